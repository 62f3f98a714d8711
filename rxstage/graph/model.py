"""A pipeline as data: stages by name, and the edges between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from rxstage.config import Overflow, PipelineConfig

if TYPE_CHECKING:
    from rxstage.stage import Stage

__all__ = ["Edge", "EdgeKind", "Graph", "Rule"]

Rule: TypeAlias = type | tuple[type, ...] | Callable[[Any], Any]
"""What an edge lets through: content types (or types of `Data` values), or a predicate of the element."""

EdgeKind: TypeAlias = str


@dataclass(frozen=True, slots=True)
class Edge:
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
        incoming: dict[str, list[Edge]] = {stage: [] for stage in self.stages}
        outgoing: dict[str, list[Edge]] = {stage: [] for stage in self.stages}
        for edge in self.edges:
            outgoing[edge.source].append(edge)
            incoming[edge.target].append(edge)
        self._incoming = {stage: tuple(edges) for stage, edges in incoming.items()}
        self._outgoing = {stage: tuple(edges) for stage, edges in outgoing.items()}

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(self.stages)

    @property
    def roots(self) -> tuple[str, ...]:
        """Stages without an incoming edge: they read the input."""
        return tuple(stage for stage, edges in self._incoming.items() if not edges)

    @property
    def leaves(self) -> tuple[str, ...]:
        """Stages without an outgoing edge: all but sinks feed the output."""
        return tuple(stage for stage, edges in self._outgoing.items() if not edges)

    def incoming(self, stage: str) -> tuple[Edge, ...]:
        """Edges that enter a stage."""
        return self._incoming[stage]

    def outgoing(self, stage: str) -> tuple[Edge, ...]:
        """Edges that leave a stage, in the order in which they are served."""
        return self._outgoing[stage]

    def order(self) -> tuple[str, ...]:
        """Stages in topological order, in declaration order where that is free."""
        waiting = {stage: len(edges) for stage, edges in self._incoming.items()}
        ready = [stage for stage, count in waiting.items() if not count]
        result: list[str] = []
        for stage in ready:
            result.append(stage)
            for edge in self._outgoing[stage]:
                waiting[edge.target] -= 1
                if not waiting[edge.target]:
                    ready.append(edge.target)
        return tuple(result)

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self.stages)} stages, {len(self.edges)} edges)"
