"""A pipeline as data: stages by name, and the edges between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

from rxstage.config import Overflow, PipelineConfig

if TYPE_CHECKING:
    from rxstage.stage import Stage

__all__ = ["Edge", "Graph", "Rule"]

Rule: TypeAlias = type | tuple[type, ...] | Callable[[Any], Any]
"""What an edge lets through: content types (or types of `Data` values), or a predicate of the element."""


class Edge(Struct, frozen=True):
    """One edge of a graph.

    Args:
        source: name of the stage it leaves.
        target: name of the stage it enters.
        when: what it lets through; None is everything. Controls always pass.
        route: position in the source's routing table (first match wins), or None where it is no route.
        otherwise: takes what no other route of its source matched.
        buffer_size: elements that a buffer on this edge holds, where it has options of its own.
        overflow: what that buffer does when it is full, where it has options of its own.
    """

    source: str
    target: str
    when: Rule | None = None
    route: int | None = None
    otherwise: bool = False
    buffer_size: int | None = None
    overflow: Overflow | None = None

    @property
    def is_route(self) -> bool:
        """Whether it belongs to its source's routing table."""
        return self.otherwise or self.route is not None

    @property
    def has_options(self) -> bool:
        """Whether it asks for a buffer of its own."""
        return self.buffer_size is not None or self.overflow is not None


class Graph:
    """An immutable DAG of stages, already checked.

    Attributes:
        name: name of the pipeline.
        stages: the stages by name, in the order in which they were added.
        edges: the edges, in the order in which they were declared.
        config: the configuration of the pipeline.
    """

    __slots__ = ("_incoming", "_outgoing", "config", "edges", "name", "stages")

    def __init__(
        self, name: str, stages: Mapping[str, Stage], edges: Iterable[Edge], config: PipelineConfig | None = None
    ) -> None:
        self.name = name
        self.stages: Mapping[str, Stage] = MappingProxyType(dict(stages))
        self.edges: tuple[Edge, ...] = tuple(edges)
        self.config = config or PipelineConfig()
        self._incoming: dict[str, list[Edge]] | None = None  # by name, where there are some; made when asked for
        self._outgoing: dict[str, list[Edge]] | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(self.stages)

    @property
    def roots(self) -> tuple[str, ...]:
        """Stages without an incoming edge: they read the input."""
        entered = {edge.target for edge in self.edges}
        return tuple(stage for stage in self.stages if stage not in entered)

    @property
    def leaves(self) -> tuple[str, ...]:
        """Stages without an outgoing edge: all but sinks feed the output."""
        left = {edge.source for edge in self.edges}
        return tuple(stage for stage in self.stages if stage not in left)

    def incoming(self, stage: str) -> tuple[Edge, ...]:
        """Edges that enter a stage.

        Raises:
            KeyError: there is no stage of that name.
        """
        if self._incoming is None:
            self._incoming = _by_name(self.edges, "target")
        return self._of(stage, self._incoming)

    def outgoing(self, stage: str) -> tuple[Edge, ...]:
        """Edges that leave a stage, in the order in which they are served.

        Raises:
            KeyError: there is no stage of that name.
        """
        if self._outgoing is None:
            self._outgoing = _by_name(self.edges, "source")
        return self._of(stage, self._outgoing)

    def _of(self, stage: str, edges: Mapping[str, Sequence[Edge]]) -> tuple[Edge, ...]:
        if stage not in self.stages:
            raise KeyError(f"pipeline {self.name!r} has no stage {stage!r}; its stages are listed in graph.nodes")
        return tuple(edges.get(stage, ()))

    def order(self) -> tuple[str, ...]:
        """Stages in topological order, in declaration order where that is free."""
        waiting = Counter(edge.target for edge in self.edges)
        result = list(self.roots)
        for stage in result:
            for edge in self.outgoing(stage):
                waiting[edge.target] -= 1
                if not waiting[edge.target]:
                    result.append(edge.target)
        return tuple(result)

    def __reduce__(self) -> tuple[Any, ...]:
        return Graph, (self.name, dict(self.stages), self.edges, self.config)

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self.stages)} stages, {len(self.edges)} edges)"


def _by_name(edges: Iterable[Edge], end: str) -> dict[str, list[Edge]]:
    result: dict[str, list[Edge]] = {}
    for edge in edges:
        result.setdefault(getattr(edge, end), []).append(edge)
    return result
