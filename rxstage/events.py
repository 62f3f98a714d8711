"""What an execution tells about itself while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

__all__ = [
    "EdgeDropped",
    "Event",
    "PipelineCancelled",
    "PipelineCompleted",
    "PipelineFailed",
    "PipelineStarted",
    "StageCompleted",
    "StageFailed",
    "StageRestarted",
    "StageStarted",
]


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened in an execution.

    Attributes:
        type: dotted name, such as `"stage.failed"`.
        pipeline: name of the pipeline.
        execution_id: id of the execution.
        stage: name of the stage concerned, or "".
        stage_type: its `StageType`, or None.
        time: seconds on the execution's clock.
        duration: seconds that it took, where it ends something, else None.
        error: the exception, where there is one.
        data: what domain stages add.
    """

    type: str = ""
    pipeline: str = ""
    execution_id: str = ""
    stage: str = ""
    stage_type: Any = None
    time: float = 0.0
    duration: float | None = None
    error: BaseException | None = None
    data: Mapping[str, Any] = {}


class PipelineStarted(Event, frozen=True, kw_only=True):
    """An execution has opened."""

    type: str = "pipeline.started"


class PipelineCompleted(Event, frozen=True, kw_only=True):
    """An execution came to its end; `received` and `emitted` count the elements that entered and left."""

    type: str = "pipeline.completed"
    received: int = 0
    emitted: int = 0


class PipelineFailed(Event, frozen=True, kw_only=True):
    """An execution ended with `error`."""

    type: str = "pipeline.failed"
    received: int = 0
    emitted: int = 0


class PipelineCancelled(Event, frozen=True, kw_only=True):
    """An execution was cancelled or its subscription disposed."""

    type: str = "pipeline.cancelled"
    received: int = 0
    emitted: int = 0


class StageStarted(Event, frozen=True, kw_only=True):
    """A stage is ready for its first element."""

    type: str = "stage.started"


class StageCompleted(Event, frozen=True, kw_only=True):
    """A stage has ended; `received`, `emitted` and `errors` are its totals."""

    type: str = "stage.completed"
    received: int = 0
    emitted: int = 0
    errors: int = 0


class StageFailed(Event, frozen=True, kw_only=True):
    """A stage failed and ended the execution."""

    type: str = "stage.failed"


class StageRestarted(Event, frozen=True, kw_only=True):
    """A stage over the whole stream raised and begins again with fresh state."""

    type: str = "stage.restarted"
    attempt: int = 0


class EdgeDropped(Event, frozen=True, kw_only=True):
    """The edge from `stage` to `target` dropped an element; `dropped` is its count so far."""

    type: str = "edge.dropped"
    target: str = ""
    dropped: int = 0
