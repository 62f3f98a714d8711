# mypy: disable-error-code="import-not-found"
"""Makes the tiny model, unless it is there, and runs `transformers serve` on it: tiny_server.py DIRECTORY MODEL.

Ends when its standard input does, so that it does not outlive the tests whatever becomes of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

__all__ = ["main"]


def main() -> None:
    """Train, and serve on some port of the loopback interface, which the log tells."""
    directory, model = sys.argv[1:]
    threading.Thread(target=_end_with_input, daemon=True).start()

    import tiny_model
    from transformers.cli.transformers import main as transformers

    if not Path(directory, model).exists():
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=directory) as apart:
            steps = tiny_model.make(Path(apart, model))
            with contextlib.suppress(OSError):  # another one that learned at the same time was quicker
                os.rename(Path(apart, model), Path(directory, model))
        print(f"learned in {time.perf_counter() - begin:.1f} s, {steps} steps", flush=True)
    os.chdir(directory)  # where the model can be asked for by its name alone
    sys.argv = ["transformers", "serve", model, "--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    transformers()


def _end_with_input() -> None:
    os.read(0, 1)  # of the file itself: a lock on sys.stdin would be in the way of an orderly end
    os._exit(1)


if __name__ == "__main__":
    main()
