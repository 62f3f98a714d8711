"""`rxstage draw`: a pipeline as a picture."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from rxstage.cli.command import command, counted
from rxstage.cli.target import TARGET_HELP, load
from rxstage.graph.caption import clean, edge_caption, stage_caption
from rxstage.graph.model import Graph

__all__ = ["Format", "draw", "to_text"]


class Format(StrEnum):
    """What a picture is written in."""

    TEXT = "text"
    SVG = "svg"
    MERMAID = "mermaid"


_SUFFIXES: Final = {".svg": Format.SVG, ".mmd": Format.MERMAID, ".mermaid": Format.MERMAID}


@command
def draw(
    target: Annotated[str, typer.Argument(help=TARGET_HELP)],
    format: Annotated[
        Format | None, typer.Option(help="How; by default as the suffix of --out says (.svg, .mmd), else text.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write to, instead of standard output.")] = None,
) -> None:
    """Draw a pipeline as SVG, in Mermaid's language, or in words."""
    pipeline = load(target)
    if format is None:
        format = _SUFFIXES.get(out.suffix.lower(), Format.TEXT) if out is not None else Format.TEXT
    if format is Format.SVG:
        picture = pipeline.to_svg()
    elif format is Format.MERMAID:
        picture = pipeline.to_mermaid()
    else:
        picture = to_text(pipeline.graph)
    picture = picture.rstrip("\n") + "\n"
    if out is None:
        typer.echo(picture, nl=False)
    else:
        out.write_text(picture, encoding="utf-8")


def to_text(graph: Graph) -> str:
    """A graph in words: one line per stage, in topological order, with the stages that follow it."""
    width = max(map(len, (clean(name, _NAME) for name in graph.stages)), default=0)
    lines = [f"{clean(graph.name, _NAME)}: {counted(graph)}"]
    leaves = set(graph.leaves)
    for name in graph.order():
        targets = []
        for edge in graph.outgoing(name):
            caption = clean(edge_caption(edge), _NAME)
            targets.append(clean(edge.target, _NAME) + (f" [{caption}]" if caption else ""))
        if name in leaves:
            targets.append("(sink)" if graph.stages[name].type.name == "SINK" else "(output)")
        kind = clean(stage_caption(graph.stages[name]), _NAME)
        lines.append(f"  {clean(name, _NAME):{width}}  {kind:28}  -> {', '.join(targets)}")
    return "\n".join(lines)


_NAME: Final = 60
