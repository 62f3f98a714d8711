"""Nested graphs, laid out: each pipeline is a box of the layout that it stands in."""

from __future__ import annotations

import unicodedata
from typing import Final, Literal, TypeAlias

from rxstage.graph.caption import clean, edge_caption, stage_caption
from rxstage.graph.layout import Box, Layout, Line, Point, layered
from rxstage.graph.model import Edge, Graph
from rxstage.stage import Shape, Stage, StageType

__all__ = [
    "BOX_HEIGHT",
    "CAPTION",
    "END_SIZE",
    "LABEL",
    "NAME",
    "TITLE",
    "Block",
    "Direction",
    "blocks_of",
    "caption_of",
    "label_of",
    "name_of",
    "text_width",
    "title_of",
]

Direction: TypeAlias = Literal["LR", "TB"]

BOX_HEIGHT: Final = 46.0
END_SIZE: Final = (56.0, 26.0)  # of the marks of input and output
NAME, CAPTION, LABEL, TITLE = 13.5, 11.0, 11.0, 12.0  # sizes of text
_HEADER: Final = 34.0  # above the stages of a cluster, for its name
_PADDING: Final = 16.0
_LONGEST: Final = 30  # characters of a name, a caption
_DEEP: Final = 9  # ranks that may go from left to right; more go downwards, and so does what
_WIDE: Final = 1200.0  # is wider than this


class Block:
    """A graph and where everything in it stands.

    Attributes:
        graph: what is drawn.
        qualified: its name, with those of the pipelines round it; empty for the outermost.
        inner: the blocks of the pipelines nested in it, by name.
        items: what the boxes of the layout are: stages, None for the input and the output.
        lines, edges: between the boxes, and what they are; None where one joins the input or the output.
        sizes: width of the boxes of stages.
        layout: of its boxes and lines, relative to `origin`.
        corner: its own, in the picture.
        box: its own size and ends.
        offset: from its own corner to that of the layout.
    """

    def __init__(self, graph: Graph, qualified: str) -> None:
        self.graph = graph
        self.qualified = qualified
        self.inner: dict[str, Block] = {}
        self.items: list[str | None] = []
        self.lines: list[Line] = []
        self.edges: list[Edge | None] = []
        self.sizes: dict[str, float] = {}
        self.layout = Layout([], [], Point(0.0, 0.0))
        self.corner = Point(0.0, 0.0)
        self.box = Box(0.0, 0.0)
        self.offset = Point(0.0, 0.0)

    @property
    def outputs(self) -> list[str]:
        """The stages that feed the output."""
        stages = self.graph.stages
        return [name for name in self.graph.leaves if stages[name].type is not StageType.SINK]

    def measure(self, direction: Direction) -> None:
        """Lay it out; the blocks in it must have been measured."""
        graph, outputs = self.graph, self.outputs
        self.items = [None, *graph.stages, *([None] if outputs else [])]
        numbers = {name: number for number, name in enumerate(self.items) if name is not None}
        last = len(self.items) - 1
        boxes = [self._box(name, direction) for name in self.items]
        self.lines = lines = [Line(0, numbers[name]) for name in graph.roots]
        self.edges = [None] * len(lines)
        for edge in graph.edges:
            lines.append(self._line(edge, numbers, direction))
            self.edges.append(edge)
        for name in outputs:
            lines.append(Line(numbers[name], last))
            self.edges.append(None)
        self.layout = layered(boxes, lines)
        self._frame(direction, bool(outputs))

    def _line(self, edge: Edge, numbers: dict[str, int], direction: Direction) -> Line:
        ends = numbers[edge.source], numbers[edge.target]
        label = label_of(edge)
        if not label:
            return Line(*ends)
        # Near the end with fewer lines, where they are apart.
        late = len(self.graph.outgoing(edge.source)) >= len(self.graph.incoming(edge.target))
        width = text_width(label, LABEL) + 16
        return Line(*ends, width, 0.0, late) if direction == "LR" else Line(*ends, 24.0, width * 1.2, late)

    def _box(self, name: str | None, direction: Direction) -> Box:
        if name is None:
            width, height = END_SIZE if not self.qualified else (0.0, 0.0)
        elif name in self.inner:
            return self.inner[name].box
        else:
            stage = self.graph.stages[name]
            texts = text_width(name_of(stage), NAME), text_width(caption_of(stage), CAPTION)
            width, height = max(72.0, max(texts) + 34), BOX_HEIGHT
            self.sizes[name] = width
        return Box(width, height) if direction == "LR" else Box(height, width)

    def _frame(self, direction: Direction, has_output: bool) -> None:
        """Its own box: with room for the name, and its ends where those of the layout are."""
        along, across = self.layout.size
        before = after = last = 0.0
        if self.qualified:
            before, after = (_HEADER, _PADDING) if direction == "LR" else (_PADDING, _PADDING)
            last = 0.0 if has_output else _PADDING
            if direction == "TB":
                short = text_width(title_of(self), TITLE) + 2 * _PADDING - (across + before + after)
                before, after = before + max(0.0, short / 2), after + max(0.0, short / 2)
        middle = (before + across + after) / 2
        enter = before + self.layout.centres[0].across - middle
        leave = before + self.layout.centres[-1].across - middle if has_output else 0.0
        self.offset = Point(0.0, before)
        self.box = Box(along + last, before + across + after, enter, leave)

    @property
    def origin(self) -> Point:
        """Where its layout begins in the picture."""
        return Point(self.corner.along + self.offset.along, self.corner.across + self.offset.across)

    def place(self) -> None:
        """Put the blocks that stand in it in their places; its own must be known."""
        origin = self.origin
        for name, centre in zip(self.items, self.layout.centres, strict=True):
            block = self.inner.get(name) if name is not None else None
            if block is not None:
                block.corner = Point(
                    origin.along + centre.along - block.box.along / 2,
                    origin.across + centre.across - block.box.across / 2,
                )


def blocks_of(graph: Graph, direction: Direction | None, margin: float) -> tuple[list[Block], Direction]:
    """The blocks of a graph, laid out and placed, the outer before the inner; and the direction that was chosen."""
    blocks = [Block(graph, "")]
    for block in blocks:
        for name, stage in block.graph.stages.items():
            if stage.shape is Shape.GRAPH:
                qualified = f"{block.qualified}/{name}" if block.qualified else name
                inner: Graph = stage.graph  # type: ignore[attr-defined]
                blocks.append(child := Block(inner, qualified))
                block.inner[name] = child
    chosen: Direction = direction or ("LR" if _ranks(graph) <= _DEEP else "TB")
    _measure(blocks, chosen)
    if direction is None and chosen == "LR" and blocks[0].box.along > _WIDE:
        _measure(blocks, chosen := "TB")
    blocks[0].corner = Point(margin, margin)
    for block in blocks:
        block.place()
    return blocks, chosen


def _measure(blocks: list[Block], direction: Direction) -> None:
    for block in reversed(blocks):
        block.measure(direction)


def name_of(stage: Stage) -> str:
    """The name that stands in a box."""
    return clean(stage.name, _LONGEST)


def title_of(block: Block) -> str:
    """The name that stands on a cluster."""
    return clean(block.qualified.rpartition("/")[2], _LONGEST)


def caption_of(stage: Stage) -> str:
    """The small line that stands in a box."""
    return clean(stage_caption(stage), _LONGEST + 6)


def label_of(edge: Edge) -> str:
    """What stands at an edge."""
    return clean(edge_caption(edge), _LONGEST)


def text_width(text: str, size: float) -> float:
    """About how wide a text is, `size` [px] high, in whatever font there is."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return (len(text) + 0.8 * wide) * size * 0.575


def _ranks(graph: Graph) -> int:
    """Number of stages on the longest path."""
    depth = dict.fromkeys(graph.stages, 1)
    for name in graph.order():
        for edge in graph.outgoing(name):
            depth[edge.target] = max(depth[edge.target], depth[name] + 1)
    return max(depth.values(), default=0)
