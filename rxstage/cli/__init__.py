"""The command line: `rxstage demo`, `run`, `chat`, `serve`, `check`, `draw` and `bench` (extra `cli`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what stands behind the program's name; by default what the process was started with.

    Returns:
        The exit code: 0 ok, 1 failed, 2 wrong usage, 130 interrupted by Ctrl-C.
    """
    missing = [name for name in ("typer", "rich") if not _installed(name)]
    if missing:
        print(f"rxstage: the command line needs {' and '.join(missing)}: pip install 'rxstage[cli]'", file=sys.stderr)
        return 1
    from rxstage.cli.app import run_app

    return run_app(arguments)


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # it is in sys.modules as None or without a spec: as good as missing
        return sys.modules.get(name) is not None
