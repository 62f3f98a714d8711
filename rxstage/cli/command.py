"""What all commands share: how they end, and where they write."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from rxstage.errors import GraphError, RxStageError, StageError
from rxstage.graph.model import Graph
from rxstage.observe.table import rich_table

__all__ = [
    "INTERRUPTED",
    "CommandError",
    "PipeClosed",
    "command",
    "console",
    "counted",
    "explain",
    "plural",
    "say",
    "where",
]

INTERRUPTED: Final = 130  # as a shell has it for a program that Ctrl-C has ended
_WIDEST: Final = 1000  # columns of a table
_P = ParamSpec("_P")


class CommandError(Exception):
    """A command failed; its message is one line that names the remedy.

    Args:
        message: that line.
        code: exit code: 1 failed, 2 wrong usage.
    """

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class PipeClosed(Exception):
    """Whoever read our output has gone, as `head` does."""


class _Console(Console):
    """Writes lines as they are: nothing in them is markup, and long ones are the terminal's to wrap."""

    def on_broken_pipe(self) -> NoReturn:
        raise PipeClosed

    def line_out(self, *cells: Any) -> None:
        """One line: `(text, style)` pairs or texts."""
        self.print(Text.assemble(*cells), soft_wrap=True)

    def table_out(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table, as wide as it is: figures are not cut off."""
        table = rich_table(header, rows)
        needed = Measurement.get(self, self.options.update(max_width=_WIDEST), table).maximum
        self.width = max(self.width, needed)
        self.print(table, crop=False)


def console(*, stderr: bool = False) -> _Console:
    """Where to write; made when it is needed, since tests and callers exchange the streams."""
    return _Console(stderr=stderr, highlight=False)


def say(message: str) -> None:
    """One line to standard error."""
    print(f"rxstage: {message}", file=sys.stderr)


def plural(count: int, word: str) -> str:
    """`"1 stage"`, `"2 stages"`."""
    return f"{count:,} {word}{'s' * (count != 1)}"


def counted(graph: Graph) -> str:
    """How large a graph is: `"2 stages, 1 edge"`."""
    return f"{plural(len(graph.stages), 'stage')}, {plural(len(graph.edges), 'edge')}"


def explain(error: BaseException) -> str:
    """An error in one line, with the place that raised it where that is a user's code."""
    if isinstance(error, StageError) and error.__cause__ is not None:
        return f"{error}{where(error.__cause__)}"
    if isinstance(error, (RxStageError, CommandError)):
        return str(error)
    return f"{type(error).__name__}: {error}{where(error)}"


def where(error: BaseException) -> str:
    """`" (file.py:12)"`: the last line of the program that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def command(function: Callable[_P, int | None]) -> Callable[_P, None]:
    """A command of the command line: its result is the exit code, and its errors are one line."""

    @functools.wraps(function)
    def wrapped(*args: _P.args, **options: _P.kwargs) -> None:
        try:
            code = function(*args, **options)
            sys.stdout.flush()
        except (PipeClosed, BrokenPipeError):
            _silence()
            code = 0
        except KeyboardInterrupt:
            code = INTERRUPTED
        except GraphError as error:
            for problem in error.problems:
                say(problem.message)
            code = 1
        except (CommandError, RxStageError) as error:
            say(explain(error))
            code = error.code if isinstance(error, CommandError) else 1
        except OSError as error:
            say(f"{error.filename}: {error.strerror}" if error.filename is not None else str(error))
            code = 1
        if code:
            raise typer.Exit(code)

    return wrapped


def _silence() -> None:
    """Let nothing more be written to a closed pipe: the interpreter flushes at its end."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
