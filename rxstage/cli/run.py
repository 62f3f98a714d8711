"""`rxstage run`: a user's pipeline over a file or standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from msgspec import Struct

from rxstage.cli.command import CommandError, command, plural
from rxstage.cli.source import Input, open_input, piped
from rxstage.cli.stream import stream
from rxstage.cli.target import TARGET_HELP, load
from rxstage.content import Audio, Image, Message, Parts, Video
from rxstage.element import StreamElement
from rxstage.graph.model import Graph
from rxstage.pipeline import Pipeline
from rxstage.stage import StageType
from rxstage.wire import WireError, from_json, to_json

__all__ = ["run"]


@command
def run(
    target: Annotated[str, typer.Argument(help=TARGET_HELP)],
    file: Annotated[
        str | None,
        typer.Argument(
            help="What it reads: the lines of a text file, or a WAV file as 20 ms of Audio each; - or nothing for "
            "standard input."
        ),
    ] = None,
    wire: Annotated[
        bool, typer.Option("--wire", help="Read and write elements in their wire form, one line of JSON each.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print only a report, as one line of JSON.")] = False,
    metrics: Annotated[bool, typer.Option("--metrics", help="Print a table of the stages to standard error.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds for all of it.")] = None,
) -> int:
    """Run a pipeline: elements in from a file or standard input, elements out to standard output.

    Text is written as it is, data as Python shows it, and sound or pictures as a short description. Failures that
    a stage passes on are told on standard error.
    """
    if timeout is not None and timeout <= 0:
        raise CommandError(f"--timeout must be above 0 s, got {timeout}", code=2)
    pipeline = load(target)
    if metrics or json:
        pipeline = _measured(pipeline)
    source = open_input(file) if file is not None or piped() else None
    if source is None and not _generates(pipeline.graph):
        raise CommandError(f"{target} reads an input and there is none: name a FILE, or pipe one in", code=2)
    if source is not None and wire:
        source.source = _elements(source, source.source)

    # Whoever reads a stream must not wait for a block of it.
    live = source is None or source.live or sys.stdout.isatty()

    def show(element: StreamElement) -> None:
        print(to_json(element).decode() if wire else _shown(element), flush=live)

    try:
        report, code = stream(pipeline, source, None if json else show, controls=wire, timeout=timeout)
    finally:
        if source is not None:
            source.__exit__()
    if json:
        typer.echo(report.to_json())
    if metrics:
        report.show(stderr=True)
    return code


def _measured(pipeline: Pipeline) -> Pipeline:
    graph = pipeline.graph
    config = graph.config.with_(metrics=True)
    return Pipeline(Graph(graph.name, graph.stages, graph.edges, config), events=pipeline._state.bus)


def _generates(graph: Graph) -> bool:
    """Whether something in it, however deep, makes elements by itself."""
    return any(
        stage.type is StageType.GENERATE or (isinstance(stage, Pipeline) and _generates(stage.graph))
        for stage in graph.stages.values()
    )


def _elements(source: Input, lines: Iterator[str]) -> Iterator[StreamElement]:
    if source.kind != "text":
        raise CommandError(f"{source.name} is a WAV file; --wire reads lines of JSON")
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield from_json(line)
            except WireError as error:
                raise CommandError(f"{source.name}, line {number}: {error}") from error


def _shown(element: StreamElement) -> str:
    if element.text is not None:
        return element.text
    content: Any = element.payload
    if isinstance(content, Message):
        return f"{content.role}: {content.text}"
    if isinstance(content, Audio):
        return f"<audio: {content.duration:.3f} s, {content.sample_rate} Hz, {plural(content.channels, 'channel')}>"
    if isinstance(content, (Image, Video)):
        return f"<{content.mime_type}: {len(content.data):,} bytes>"
    if isinstance(content, Parts):
        return " ".join(_shown(StreamElement.of(part)) for part in content.parts)
    return str(content) if not isinstance(content, Struct) else repr(content)
