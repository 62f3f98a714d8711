"""How an execution went: as a table for people, as JSON for programs."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

import rxstage
from rxstage.cli.command import console
from rxstage.execution import Execution
from rxstage.observe.metrics import Metrics, Statistics
from rxstage.observe.table import STAGE_HEADER, readable, stage_rows

__all__ = ["Report"]


class Report(Struct, frozen=True):
    """The end of an execution.

    Attributes:
        pipeline: its name.
        source: what it read.
        state: `"completed"`, `"failed"` or `"cancelled"`.
        error: what it failed with, or None.
        received: elements that came in.
        emitted: elements that came out, controls not counted.
        duration: seconds.
        metrics: its stages.
        statistics: its edges.
    """

    pipeline: str
    source: str
    state: str
    error: str | None
    received: int
    emitted: int
    duration: float
    metrics: Metrics
    statistics: Statistics

    @classmethod
    def of(
        cls, execution: Execution, source: str, emitted: int, duration: float, error: BaseException | None
    ) -> Report:
        """The report of an execution that has ended."""
        metrics = execution.metrics()
        roots = execution.pipeline.graph.roots
        return cls(
            pipeline=execution.pipeline.name,
            source=source,
            state=execution.state,
            error=None if error is None else f"{type(error).__name__}: {error}",
            received=max((metrics.stages[root].received for root in roots if root in metrics.stages), default=0),
            emitted=emitted,
            duration=duration,
            metrics=metrics,
            statistics=execution.statistics(),
        )

    def to_json(self) -> str:
        """One line of JSON."""
        document: dict[str, Any] = {"rxstage": rxstage.__version__}
        document.update(msgspec.to_builtins({name: getattr(self, name) for name in self.__struct_fields__[:-2]}))
        document["stages"] = msgspec.to_builtins(self.metrics.stages)
        document["edges"] = [
            {"source": source, "target": target, **msgspec.to_builtins(edge)}
            for (source, target), edge in self.statistics.edges.items()
        ]
        return msgspec.json.encode(document).decode()

    def show(self, *, stderr: bool = False) -> None:
        """Print the table of the stages, and what they did in all."""
        out = console(stderr=stderr)
        out.line_out()
        out.table_out(STAGE_HEADER, stage_rows(self.metrics, self.statistics))
        out.line_out(
            (self.state, "green" if self.state == "completed" else "yellow" if self.state == "cancelled" else "red"),
            f": {self.received:,} elements from {self.source} in, {self.emitted:,} out, in {readable(self.duration)}",
        )
