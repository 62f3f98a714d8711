"""A graph as a picture: Mermaid's language, and SVG (without any external program)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from rxstage.graph.caption import clean, edge_caption, stage_caption
from rxstage.graph.model import Graph
from rxstage.graph.svg import to_svg
from rxstage.stage import Shape, Stage, StageType

__all__ = ["to_mermaid", "to_svg"]

_SHAPES: Final = {
    StageType.TRANSFORM: ("(", ")"),
    StageType.ACCUMULATE: ("[/", "\\]"),
    StageType.GENERATE: ("([", "])"),
    StageType.SINK: ("[[", "]]"),
    StageType.BIDIRECTIONAL: ("{{", "}}"),
}
_COLOURS: Final = {
    StageType.TRANSFORM: "#e6f0fa,stroke:#2b6cb0",
    StageType.ACCUMULATE: "#fdf0e1,stroke:#b8630b",
    StageType.GENERATE: "#e3f5ee,stroke:#0b7a58",
    StageType.SINK: "#f8e9f2,stroke:#a23f78",
    StageType.BIDIRECTIONAL: "#ece9fb,stroke:#5b46c2",
}
_MARKUP: Final = re.compile(r"[^\w ,.:·→…-]|[.-](?= )|:(?! )")  # also what begins a list, or an icon such as fa:fa-car
_LONGEST: Final = 60


class _Level(NamedTuple):
    """A graph that is being written: the stages that are left, and the ids of the others."""

    graph: Graph
    left: Iterator[tuple[str, Stage]]
    ids: dict[str, str]


def to_mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flow chart; nested pipelines are subgraphs.

    Names are text in it: whatever stands in them, it is no markup.
    """
    lines = ["flowchart LR"]
    kinds: dict[StageType, None] = {}
    count = 0
    levels = [_Level(graph, iter(graph.stages.items()), {})]
    while levels:
        level, indent = levels[-1], "    " * len(levels)
        for name, stage in level.left:
            count += 1
            ident = level.ids[name] = f"s{count}"
            if stage.shape is Shape.GRAPH:
                inner: Graph = stage.graph  # type: ignore[attr-defined]
                lines.append(f'{indent}subgraph {ident}["{_text(name)}"]')
                levels.append(_Level(inner, iter(inner.stages.items()), {}))
                break
            kinds[stage.type] = None
            begin, end = _SHAPES[stage.type]
            label = f"{_text(name)}<br/><small>{_text(stage_caption(stage))}</small>"
            lines.append(f'{indent}{ident}{begin}"{label}"{end}:::{stage.type.value}')
        else:
            lines += [indent + edge for edge in _edges(level, outermost=len(levels) == 1)]
            levels.pop()
            if levels:
                lines.append("    " * len(levels) + "end")
    lines += [f"    classDef {kind.value} fill:{_COLOURS[kind]},color:#1b2430" for kind in kinds]
    return "\n".join(lines) + "\n"


def _edges(level: _Level, outermost: bool) -> Iterator[str]:
    graph, ids = level.graph, level.ids
    outputs = [name for name in graph.leaves if graph.stages[name].type is not StageType.SINK]
    if outermost:
        yield 'input(("input"))'
        if outputs:
            yield 'output(("output"))'
        for name in graph.roots:
            yield f"input --> {ids[name]}"
    for edge in graph.edges:
        caption = edge_caption(edge)
        label = f'|"{_text(caption)}"|' if caption else ""
        yield f"{ids[edge.source]} -->{label} {ids[edge.target]}"
    if outermost:
        for name in outputs:
            yield f"{ids[name]} --> output"


def _text(text: str) -> str:
    """Text for a quoted label: what could be markup is written as its number."""
    return _MARKUP.sub(lambda match: f"#{ord(match[0])};", clean(text, _LONGEST))
