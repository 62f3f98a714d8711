"""What is declared: the configuration of a pipeline and the error policies of a stage."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["ErrorPolicy", "Fallback", "OnError", "Overflow", "PipelineConfig", "Retry"]

Overflow: TypeAlias = Literal["wait", "drop_oldest", "drop_newest", "latest", "fail"]
OnError: TypeAlias = Literal["fail", "emit", "skip"]


class PipelineConfig(BaseModel):
    """How the executions of a pipeline behave. All times in seconds.

    Args:
        buffer_size: elements that a buffer between concurrent stages holds before it closes its valve.
        overflow: what a full buffer does (`"wait"` is backpressure; the others never slow the source).
        priority_queue: drain buffers by priority instead of by arrival.
        execution_timeout: longest life of an execution.
        idle_timeout: longest time in which nothing moves.
        shutdown_timeout: how long tear-down and `shutdown()` wait for stages that do not end.
        max_concurrent_executions: how many may run at once; a further one waits for its turn.
        hot_source_limit: elements held for a source that can be neither pulled nor blocked.
        metrics: measure processing times (quantiles).
        auto_resample: put a `ResampleStage` before each stage that may get sound of a form it cannot take.
        tracing: reserved for records of which stage held an element, from when to when; True is refused so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    buffer_size: int = 16
    overflow: Overflow = "wait"
    priority_queue: bool = False
    execution_timeout: float | None = None
    idle_timeout: float | None = None
    shutdown_timeout: float = 10.0
    max_concurrent_executions: int | None = None
    hot_source_limit: int = 1024
    metrics: bool = False
    auto_resample: bool = False
    tracing: bool = False

    @model_validator(mode="after")
    def _in_range(self) -> PipelineConfig:
        for name in ("buffer_size", "max_concurrent_executions", "hot_source_limit"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count!r}")
        for name in ("execution_timeout", "idle_timeout", "shutdown_timeout"):
            if (seconds := getattr(self, name)) is not None and not seconds > 0:
                raise ValueError(f"{name} is in seconds and must be above 0, got {seconds!r}")
        if self.tracing:
            raise ValueError("tracing=True is not available yet; metrics=True measures times per stage")
        return self

    def with_(self, **changes: Any) -> PipelineConfig:
        """A copy with some fields changed, validated.

        Raises:
            pydantic.ValidationError: an unknown field or a bad value.
        """
        return PipelineConfig(**{**self.model_dump(), **changes})


class Fallback(Struct, frozen=True):
    """Error policy: an element whose stage raised goes to `stage` instead, a stage of one element at a time."""

    stage: Any


class Retry(Struct, frozen=True):
    """Error policy: try again.

    Args:
        attempts: tries in all, the first one included; at least 1.
        wait: seconds before each further try, or a function of the number of tries so far.
        jitter: seconds of which a random share is added to each wait.
        retry_on: exception types to retry, or a predicate of the exception; others fail at once.
        then: policy once all attempts have failed.
    """

    attempts: int = 3
    wait: float | Callable[[int], float] = 0.0
    jitter: float = 0.0
    retry_on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] = Exception
    then: OnError | Fallback = "fail"

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"Retry.attempts counts every try and must be at least 1, got {self.attempts!r}")
        if self.jitter < 0 or (not callable(self.wait) and self.wait < 0):
            raise ValueError(f"Retry waits must not be negative, got wait={self.wait!r}, jitter={self.jitter!r}")
        if not isinstance(self.then, Fallback) and self.then not in ("fail", "emit", "skip"):
            raise ValueError(f"Retry.then must be 'fail', 'emit', 'skip' or a Fallback, got {self.then!r}")

    @property
    def waits(self) -> bool:
        """Whether it ever waits between two tries."""
        return callable(self.wait) or self.wait > 0 or self.jitter > 0

    def applies(self, error: BaseException) -> bool:
        """Whether this error is worth another try."""
        if isinstance(self.retry_on, (type, tuple)):
            return isinstance(error, self.retry_on)
        return self.retry_on(error)

    def delay(self, tries: int) -> float:
        """Seconds to wait after `tries` tries."""
        wait = self.wait(tries) if callable(self.wait) else self.wait
        return wait + random.uniform(0.0, self.jitter) if self.jitter else wait


ErrorPolicy: TypeAlias = OnError | Retry | Fallback
