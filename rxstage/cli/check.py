"""`rxstage check`: whether a pipeline can be built."""

from __future__ import annotations

from typing import Annotated

import typer

from rxstage.cli.command import command, counted, plural, say
from rxstage.cli.target import TARGET_HELP, load
from rxstage.errors import GraphError

__all__ = ["check"]


@command
def check(target: Annotated[str, typer.Argument(help=TARGET_HELP)]) -> int:
    """Check a pipeline: every problem on a line of its own, and exit code 1 if there is one."""
    try:
        graph = load(target).graph
    except GraphError as error:
        for problem in error.problems:
            typer.echo(f"{target}: {problem.kind.value}: {problem.message}")
        say(f"{target} has {plural(len(error.problems), 'problem')}")
        return 1
    typer.echo(f"{target}: ok, {counted(graph)}")
    return 0
