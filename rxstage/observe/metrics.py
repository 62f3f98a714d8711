"""Snapshots of what an execution has counted, per stage and per edge."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from rxstage.flow.buffer import BufferStatistics
from rxstage.flow.scope import Scope

__all__ = ["Metrics", "StageMetrics", "Statistics", "metrics_of", "statistics_of"]


class StageMetrics(Struct, frozen=True):
    """What one stage has done; content counts, controls do not.

    Attributes:
        received: elements that reached it.
        emitted: elements that left it.
        errors: calls of its function that raised, each try counted.
        p50: median of its processing time [s], or None where it is not measured (`metrics=True` does).
        p99: the time [s] within which 99 of 100 elements were processed, or None.
        stalls: how often it had to wait for room behind it.
        stalled: for how long in all [s].
        abandoned: calls that were left running when their time was up.
        unrouted: elements of it that matched no route.
    """

    received: int = 0
    emitted: int = 0
    errors: int = 0
    p50: float | None = None
    p99: float | None = None
    stalls: int = 0
    stalled: float = 0.0
    abandoned: int = 0
    unrouted: int = 0


class Metrics(Struct, frozen=True):
    """A snapshot of an execution's stages.

    Attributes:
        stages: by name, in the order of the graph.
        duration: how long the execution has taken so far, or took [s].
    """

    stages: Mapping[str, StageMetrics] = {}
    duration: float = 0.0

    def _repr_html_(self) -> str:
        from rxstage.observe.table import STAGE_HEADER, html_table, readable, stage_rows

        return html_table(STAGE_HEADER, stage_rows(self), caption=readable(self.duration))


class Statistics(Struct, frozen=True):
    """A snapshot of an execution's edges.

    Attributes:
        edges: by the names of the two stages; all zero where the edge needs no buffer.
    """

    edges: Mapping[tuple[str, str], BufferStatistics] = {}

    def _repr_html_(self) -> str:
        from rxstage.observe.table import EDGE_HEADER, edge_rows, html_table

        return html_table(EDGE_HEADER, edge_rows(self))


_NO_BUFFER = BufferStatistics()


def metrics_of(scope: Scope, duration: float = 0.0) -> Metrics:
    """What the stages of an execution have counted so far.

    Args:
        scope: the execution.
        duration: how long it has taken [s].
    """
    unrouted = scope.unrouted
    stages: dict[str, StageMetrics] = {}
    for name, meter in scope.refresh().items():
        times = meter.times
        stages[name] = StageMetrics(
            meter.received,
            meter.emitted,
            meter.errors,
            None if times is None else times.quantile(0.5),
            None if times is None else times.quantile(0.99),
            meter.stalls,
            meter.stalled,
            meter.abandoned,
            unrouted.get(name, 0) if unrouted else 0,
        )
    return Metrics(stages, duration)


def statistics_of(scope: Scope) -> Statistics:
    """How full the edges of an execution are, and were.

    Args:
        scope: the execution.
    """
    edges = dict.fromkeys(scope.links, _NO_BUFFER)
    edges.update({edge: buffer.statistics() for edge, buffer in tuple(scope.edges.items())})
    return Statistics(edges)
