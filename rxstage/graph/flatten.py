"""A graph with its nested pipelines taken apart: nodes, links between them, and how each is to be run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rxstage.config import PipelineConfig
from rxstage.element import StreamElement
from rxstage.flow.callback import Callback, Select, kinds_of
from rxstage.graph.model import Edge, Graph
from rxstage.stage import Shape, Stage, StageType

__all__ = ["Link", "Node", "flatten", "test_of"]


_ASYNCHRONOUS = (Shape.STREAM, Shape.PRODUCER)


class Node:
    """One stage, or a junction: the input or output of a pipeline.

    Attributes:
        index: position in topological order; 0 is the entry.
        name: qualified name.
        callback: its function, None for a junction.
        shape: how it is run, None for a junction.
        fused: whether it can be part of a fused run.
        asynchronous: whether it needs a loop.
        inward, outward: its links.
        pumps: which nodes push into it, through synchronous nodes only; one pump means that copies of a
            control arrive together.
    """

    __slots__ = (
        "asynchronous",
        "callback",
        "config",
        "fused",
        "index",
        "inward",
        "name",
        "outward",
        "pumps",
        "shape",
        "stage",
    )

    def __init__(self, name: str, stage: Stage | None, config: PipelineConfig) -> None:
        self.name = name
        self.stage = stage
        self.config = config
        self.index = -1
        self.callback: Callback | None = None
        self.fused = False
        self.asynchronous = False
        self.shape: Shape | None = None if stage is None else stage.shape
        self.inward: list[Link] = []
        self.outward: list[Link] = []
        self.pumps: frozenset[int] = frozenset()

    def number(self, index: int) -> None:
        """Take a place in the order, and with it what can be known of the stage only under its name here."""
        self.index = index
        if self.stage is not None:
            self.callback = self.stage.callback(self.name, index)
            self.fused = self.shape is Shape.ELEMENT and self.callback is not None and self.callback.fusible
            self.asynchronous = self.shape in _ASYNCHRONOUS or (self.shape is Shape.ELEMENT and not self.fused)

    def __repr__(self) -> str:
        return f"Node({self.index}, {self.name!r})"


class Link:
    """One edge between two nodes; `mute` where it only tells the end of a sink."""

    __slots__ = ("config", "edge", "mute", "source", "target")

    def __init__(
        self, source: Node, target: Node, config: PipelineConfig, edge: Edge | None = None, mute: bool = False
    ) -> None:
        self.source = source
        self.target = target
        self.config = config
        self.edge = edge
        self.mute = mute
        source.outward.append(self)
        target.inward.append(self)

    @property
    def plain(self) -> bool:
        """Whether it passes everything and has no buffer of its own."""
        edge = self.edge
        return not self.mute and (edge is None or (edge.when is None and not edge.is_route and not edge.has_options))


def flatten(graph: Graph) -> list[Node]:
    """The nodes in topological order, the entry first and the exit last."""
    entry, exit_ = _expand(graph, "", "<input>", "<output>")
    waiting = {entry: 0}
    order: list[Node] = []
    ready = [entry]
    while ready:
        node = ready.pop()
        order.append(node)
        for link in reversed(node.outward):
            left = waiting.setdefault(link.target, len(link.target.inward)) - 1
            waiting[link.target] = left
            if not left:
                ready.append(link.target)
    order.remove(exit_)
    order.append(exit_)
    for index, node in enumerate(order):
        node.number(index)
    return order


def _expand(graph: Graph, prefix: str, entry_name: str, exit_name: str) -> tuple[Node, Node]:
    entry, exit_ = Node(entry_name, None, graph.config), Node(exit_name, None, graph.config)
    ends: dict[str, tuple[Node, Node]] = {}
    for name, stage in graph.stages.items():
        qualified = prefix + name
        if stage.shape is Shape.GRAPH:
            inner: Graph = stage.graph  # type: ignore[attr-defined]
            ends[name] = _expand(inner, qualified + "/", qualified, qualified)
        else:
            node = Node(qualified, stage, graph.config)
            ends[name] = node, node
    for name in graph.roots:
        Link(entry, ends[name][0], graph.config)
    for edge in graph.edges:
        Link(ends[edge.source][1], ends[edge.target][0], graph.config, edge)
    for name in graph.leaves:
        Link(ends[name][1], exit_, graph.config, mute=graph.stages[name].type is StageType.SINK)
    return entry, exit_


def test_of(edge: Edge | None) -> Callable[[StreamElement], Any] | None:
    """What an edge lets through, as a function of the element; None is everything."""
    when = None if edge is None else edge.when
    if when is None:
        return None
    if not isinstance(when, (type, tuple)):
        return when
    declared = when if isinstance(when, tuple) else (when,)
    kinds, values = kinds_of(declared)
    if StreamElement in declared or not (kinds or values):
        return None
    if values:
        return Select(kinds, values).takes
    if len(kinds) == 1:
        (only,) = kinds
        return lambda element: element.content.__class__ is only
    return lambda element: element.content.__class__ in kinds
