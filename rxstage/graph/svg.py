"""A graph as SVG: layered, with nested pipelines as clusters, readable in light and dark surroundings."""

from __future__ import annotations

from html import escape
from typing import Final

from rxstage.graph.blocks import (
    BOX_HEIGHT,
    END_SIZE,
    LABEL,
    Block,
    Direction,
    blocks_of,
    caption_of,
    label_of,
    name_of,
    text_width,
    title_of,
)
from rxstage.graph.caption import clean, stage_tooltip
from rxstage.graph.layout import Point
from rxstage.graph.model import Edge, Graph
from rxstage.graph.style import STYLE, number, outline

__all__ = ["to_svg"]

_MARGIN: Final = 14.0
_ARROW: Final = 7.0
_PORT: Final = 3.5
_EARLY, _LATE = 0.36, 0.64  # of the way through the gap: where labels stand


def to_svg(graph: Graph, *, direction: Direction | None = None) -> str:
    """The graph as an SVG picture, made without any external program.

    Args:
        graph: what to draw.
        direction: `"LR"` from left to right, `"TB"` downwards; by default what suits its length.

    Raises:
        ValueError: the direction is another one.
    """
    if direction not in (None, "LR", "TB"):
        raise ValueError(f"direction must be 'LR' (left to right), 'TB' (downwards) or None, got {direction!r}")
    blocks, chosen = blocks_of(graph, direction, _MARGIN)
    pen = _Pen(chosen)
    for block in blocks:
        pen.draw(block)
    box = blocks[0].box
    width, height = pen.point(Point(box.along + 2 * _MARGIN, box.across + 2 * _MARGIN))
    about = f"Pipeline {graph.name}: {len(graph.stages)} stages, {len(graph.edges)} edges"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="rxstage" role="img" aria-label="{_xml(about)}" '
        f'width="{number(width)}" height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}">'
        f"<style>{STYLE}</style>{''.join(pen.drawn)}</svg>"
    )


class _Pen:
    """Draws blocks in one direction."""

    def __init__(self, direction: Direction) -> None:
        self.down = direction == "TB"  # whether along is downwards
        self.drawn: list[str] = []

    def point(self, point: Point) -> tuple[float, float]:
        """The same as x and y."""
        return (point.across, point.along) if self.down else (point.along, point.across)

    def draw(self, block: Block) -> None:
        """Draw a cluster's frame, its edges, its stages; what is nested in it comes later, on top."""
        if block.qualified:
            self._cluster(block)
        origin = block.origin
        for edge, line, route in zip(block.edges, block.lines, block.layout.routes, strict=True):
            points = [Point(origin.along + p.along, origin.across + p.across) for p in route]
            target = block.items[line.target]
            if target is not None and target in block.inner:  # its arrow stops at the port
                points[-1] = Point(points[-1].along - _PORT, points[-1].across)
            self._edge(edge, points, line.late, arrow=target is not None or not block.qualified)
        for name, centre in zip(block.items, block.layout.centres, strict=True):
            if name is not None and name in block.inner:
                continue
            x, y = self.point(Point(origin.along + centre.along, origin.across + centre.across))
            if name is not None:
                self._stage(block, name, x, y)
            elif block.qualified:
                self.drawn.append(f'<circle class="port" cx="{number(x)}" cy="{number(y)}" r="{_PORT}"/>')
            else:
                self._end("input" if centre is block.layout.centres[0] else "output", x, y)

    def _cluster(self, block: Block) -> None:
        x, y = self.point(block.corner)
        width, height = self.point(Point(block.box.along, block.box.across))
        tip = f"pipeline {block.qualified}: {len(block.graph.stages)} stages"
        self.drawn.append(
            f'<g class="cluster"><title>{_xml(tip)}</title>{_rect(x, y, width, height, 12)}'
            f"{_text('title', x + 14, y + 20, title_of(block))}</g>"
        )

    def _stage(self, block: Block, name: str, x: float, y: float) -> None:
        stage = block.graph.stages[name]
        width, height = block.sizes[name], BOX_HEIGHT
        tip = stage_tooltip(stage, f"{block.qualified}/{name}" if block.qualified else name)
        self.drawn.append(
            f'<g class="stage {stage.type.value}"><title>{_xml(tip)}</title>'
            f'<path d="{outline(stage.type, x - width / 2, y - height / 2, width, height, self.down)}"/>'
            f"{_text('name', x, y - 3, name_of(stage))}{_text('caption', x, y + 14, caption_of(stage))}</g>"
        )

    def _end(self, word: str, x: float, y: float) -> None:
        width, height = END_SIZE
        self.drawn.append(
            f'<g class="end"><title>{word} of the pipeline</title>'
            f"{_rect(x - width / 2, y - height / 2, width, height, height / 2)}{_text('caption', x, y + 4, word)}</g>"
        )

    def _edge(self, edge: Edge | None, points: list[Point], late: bool, arrow: bool) -> None:
        tip = points[-1]
        if arrow:
            neck = tip.along - _ARROW + 1
            points[-2:] = Point(min(points[-2].along, neck), tip.across), Point(neck, tip.across)
        path = f"M{self._at(points[0])}"
        for index in range(1, len(points)):
            start, end = points[index - 1], points[index]
            if index % 2:
                if end.along - start.along > 0.5:
                    path += f"L{self._at(end)}"
            else:
                middle = (start.along + end.along) / 2
                path += (
                    f"C{self._at(Point(middle, start.across))} {self._at(Point(middle, end.across))} {self._at(end)}"
                )
        head = label = title = ""
        if arrow:
            base = tip.along - _ARROW
            corners = Point(base, tip.across - 4), tip, Point(base, tip.across + 4)
            head = f'<path class="head" d="M{"L".join(map(self._at, corners))}Z"/>'
        if edge is not None:
            caption = label_of(edge)
            about = f"{edge.source} → {edge.target}" + (f"\n{caption}" if caption else "")
            title = f"<title>{_xml(about)}</title>"
            if caption:
                label = self._label(points[1], points[2], late, caption)
        self.drawn.append(f'<g class="edge">{title}<path d="{path}"/>{head}{label}</g>')

    def _label(self, start: Point, end: Point, late: bool, caption: str) -> str:
        width, gap = text_width(caption, LABEL) + 10, end.along - start.along
        room = (18 if self.down else width) / 2 + _ARROW
        along = min(max((_LATE if late else _EARLY) * gap, room), max(gap - room - 4, gap / 2))
        x, y = self.point(Point(start.along + along, _across(start, end, along / gap if gap else 0.5)))
        return f'<g class="label">{_rect(x - width / 2, y - 9, width, 18, 9)}{_text("", x, y + 4, caption)}</g>'

    def _at(self, point: Point) -> str:
        x, y = self.point(point)
        return f"{number(x)} {number(y)}"


def _across(start: Point, end: Point, share: float) -> float:
    """Where a curve is across, that share of its way along (its handles are half-way)."""
    low, high = 0.0, 1.0
    for _ in range(12):
        t = (low + high) / 2
        low, high = (t, high) if 1.5 * t * (1 - t) + t**3 < share else (low, t)
    return start.across + (end.across - start.across) * (3 * low * low - 2 * low**3)


def _rect(x: float, y: float, width: float, height: float, radius: float) -> str:
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" '
        f'rx="{number(radius)}"/>'
    )


def _text(kind: str, x: float, y: float, text: str) -> str:
    named = f'class="{kind}" ' if kind else ""
    return f'<text {named}x="{number(x)}" y="{number(y)}">{_xml(text)}</text>'


def _xml(text: str) -> str:
    return escape(clean(text), quote=True)
