"""What can go wrong. Every error names the place, the value and the remedy."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

__all__ = [
    "BufferOverflow",
    "ExecutionCancelled",
    "ExecutionTimeout",
    "GraphError",
    "IdleTimeout",
    "MissingExtra",
    "PipelineClosed",
    "PipelineTimeout",
    "Problem",
    "ProblemKind",
    "RxStageError",
    "ShutdownTimeout",
    "StageError",
    "StallError",
    "require",
]


class RxStageError(Exception):
    """Base of every error that the library raises about pipelines."""


class MissingExtra(RxStageError, ImportError):
    """A feature needs an optional package; the message names the extra to install."""


class ProblemKind(StrEnum):
    """What is wrong with a graph."""

    NO_STAGES = "no_stages"
    DUPLICATE_NAME = "duplicate_name"
    UNKNOWN_NAME = "unknown_name"
    CYCLE = "cycle"
    DUPLICATE_EDGE = "duplicate_edge"
    IMPOSSIBLE_CONTENT = "impossible_content"
    IMPOSSIBLE_ROUTE = "impossible_route"
    POLICY = "policy"
    AUDIO_FORMAT = "audio_format"


class Problem(Struct, frozen=True):
    """One thing that is wrong with a graph: its kind, the stages concerned, and a sentence with the remedy."""

    kind: ProblemKind
    message: str
    stages: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message


class GraphError(RxStageError):
    """A graph cannot be built. `problems` holds everything that is wrong with it, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        lines = "".join(f"\n  - {problem.message}" for problem in self.problems)
        super().__init__(f"the graph has {len(self.problems)} problem(s):{lines}")

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphError, (self.problems,), self.__dict__


class StageError(RxStageError):
    """A stage failed and ended its execution; the original exception is `__cause__`.

    Attributes:
        stage: name of the stage (qualified where pipelines are nested).
        stage_type: its `StageType`.
        element: the element it worked on, or None.
    """

    def __init__(
        self, stage: str, stage_type: Any = None, element: Any = None, cause: BaseException | None = None
    ) -> None:
        self.stage = stage
        self.stage_type = stage_type
        self.element = element
        self.__cause__ = cause
        what = f"{type(cause).__name__}: {cause}" if cause is not None else "it ended early"
        on = f" on {_short(element)}" if element is not None else ""
        kind = f" ({stage_type.name})" if stage_type is not None else ""
        super().__init__(f"stage {stage!r}{kind} failed{on}: {what}")

    def __reduce__(self) -> tuple[Any, ...]:
        return StageError, (self.stage, self.stage_type, self.element, self.__cause__), self.__dict__


class PipelineTimeout(RxStageError, TimeoutError):
    """A time limit of the configuration was reached."""


class ExecutionTimeout(PipelineTimeout):
    """The execution took longer than `execution_timeout` or the `timeout=` of the call."""


class IdleTimeout(PipelineTimeout):
    """Nothing moved for `idle_timeout`."""


class BufferOverflow(RxStageError):
    """More arrived than a buffer may hold, and its source cannot be slowed."""


class StallError(RxStageError):
    """Everything waits for something that cannot come. `holders` names who holds what."""

    def __init__(self, message: str, holders: Iterable[str] = ()) -> None:
        self.holders: tuple[str, ...] = tuple(holders)
        super().__init__(f"{message}: {'; '.join(self.holders)}" if self.holders else message)
        self._message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return StallError, (self._message, self.holders), self.__dict__


class ShutdownTimeout(PipelineTimeout):
    """A drain or shutdown did not finish in time. `left` names what was still running."""

    def __init__(self, message: str, left: Iterable[str] = ()) -> None:
        self.left: tuple[str, ...] = tuple(left)
        super().__init__(f"{message}: {'; '.join(self.left)}" if self.left else message)
        self._message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return ShutdownTimeout, (self._message, self.left), self.__dict__


class ExecutionCancelled(RxStageError):
    """The execution was cancelled before its end."""


class PipelineClosed(RxStageError):
    """The pipeline or execution takes nothing more."""


def require(module: str, extra: str) -> Any:
    """Import an optional module, or say which extra brings it.

    Raises:
        MissingExtra: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtra(f"this needs the package {package!r}: pip install 'rxstage[{extra}]'") from error


def _short(value: Any, limit: int = 120) -> str:
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"
