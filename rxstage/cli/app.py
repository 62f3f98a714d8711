"""The commands put together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
import typer.main

import rxstage
from rxstage.cli.bench import bench
from rxstage.cli.chat import chat
from rxstage.cli.check import check
from rxstage.cli.demo import demo
from rxstage.cli.draw import draw
from rxstage.cli.run import run
from rxstage.cli.serve import serve

__all__ = ["app", "run_app"]

app = typer.Typer(
    name="rxstage",
    help="Streaming pipelines: stages composed into a DAG, run as Rx operators with backpressure.",
    epilog="Exit codes: 0 ok, 1 failed, 2 wrong usage, 130 interrupted by Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (demo, chat, serve, run, check, draw, bench):
    app.command()(_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rxstage {rxstage.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def run_app(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a character gets a question mark instead
            stream.reconfigure(errors="replace")
    try:
        # Not `app()`: that would replace the excepthook of the process.
        typer.main.get_command(app)(args=None if arguments is None else list(arguments), prog_name="rxstage")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
