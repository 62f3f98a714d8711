"""Logs through loguru, bound with pipeline, execution and stage; silent until one call turns them on.

loguru is looked up in `sys.modules` instead of imported: it costs 64 ms, and as long as nobody has imported
it nobody can have turned our logs on either.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from rxstage.events import Event

if TYPE_CHECKING:
    from loguru import Logger

__all__ = ["disable_logging", "enable_logging", "log_event", "logging_on", "warn"]

_PACKAGE: Final = "rxstage"
_LEVELS: Final = {
    "pipeline.started": "INFO",
    "pipeline.completed": "INFO",
    "pipeline.cancelled": "INFO",
    "pipeline.failed": "ERROR",
    "stage.failed": "ERROR",
    "stage.restarted": "WARNING",
}


class _Switch:
    """Whether our records are wanted, as far as loguru tells.

    loguru has no public question "is this package enabled?", so its list of activations is read: each
    `enable` and `disable` makes a new list, and the answer holds as long as the list is the same object.
    """

    __slots__ = ("_answer", "_lock", "_seen", "_settled", "added", "floor")

    def __init__(self) -> None:
        self.floor = 0  # records below this level number are not made
        self.added: list[int] = []  # handlers of `enable_logging`
        self._settled = False
        self._seen: object = None
        self._answer = False
        self._lock = threading.Lock()

    def logger(self) -> Logger | None:
        """loguru's logger if our records are wanted, else None."""
        logger: Logger | None = getattr(sys.modules.get("loguru"), "logger", None)
        if logger is None:
            return None
        if not self._settled:
            self.settle(logger)
        core = _core(logger)
        activations = getattr(core, "activation_list", None)
        if activations is None:
            return logger  # another loguru than we know: it sorts our records out itself
        if activations is not self._seen:
            self._answer = next((bool(on) for name, on in activations if f"{__name__}.".startswith(name)), True)
            self._seen = activations
        return logger if self._answer and core.handlers else None

    def settle(self, logger: Logger) -> None:
        """Silence the package, once, unless its user has decided about it already."""
        with self._lock:
            if not self._settled:
                activations = getattr(_core(logger), "activation_list", ())
                if not any(name.startswith(f"{_PACKAGE}.") for name, _ in activations):
                    logger.disable(_PACKAGE)
                self._settled = True


_switch = _Switch()


def enable_logging(level: str | int = "INFO", sink: Any = None) -> int | None:
    """Turn the library's logs on.

    Args:
        level: lowest level that is logged: a name of loguru's, or a number.
        sink: where to log to, in addition to the handlers that loguru has: anything that `logger.add` takes.
            Without one they go to loguru's handlers, and to stderr if it has none.

    Returns:
        The id of the handler that was added, for `logger.remove`, or None where none was.

    Raises:
        ValueError: no such level.
    """
    from loguru import logger

    number = logger.level(level).no if isinstance(level, str) else level
    _switch.settle(logger)
    was_on = logging_on()
    handler = None
    if sink is None and not getattr(_core(logger), "handlers", True):
        sink = sys.stderr
    elif sink is not None and was_on:
        number = min(number, _switch.floor)  # the handlers that were there keep what they got
    if sink is not None:
        handler = logger.add(sink, level=level, filter=_PACKAGE)
        _switch.added.append(handler)
    _switch.floor = number
    logger.enable(_PACKAGE)
    return handler


def disable_logging() -> None:
    """Turn the library's logs off, and remove the handlers that `enable_logging` has added."""
    _switch.floor = 0
    logger: Logger | None = getattr(sys.modules.get("loguru"), "logger", None)
    if logger is None:
        return
    _switch.settle(logger)
    logger.disable(_PACKAGE)
    while _switch.added:
        with suppress(ValueError):  # its user has removed it already
            logger.remove(_switch.added.pop())


def logging_on() -> bool:
    """Whether anybody wants our logs; costs a dict look-up while loguru is not imported."""
    return "loguru" in sys.modules and _switch.logger() is not None


def log_event(event: Event) -> None:
    """Log what happened to a pipeline or stage; never raises, whatever a sink does.

    Args:
        event: its type says the level: a failed pipeline or stage is an ERROR, other failures and restarts are
            WARNING, the life of a pipeline is INFO, the rest DEBUG.
    """
    kind = event.type
    level = _LEVELS.get(kind) or ("WARNING" if kind.endswith(".failed") else "DEBUG")
    bound: dict[str, Any] = {"event": kind}
    if event.data:
        bound["data"] = dict(event.data)
    # The traceback is told once: by the pipeline's own end, not by every stage on the way to it.
    error = event.error if kind == "pipeline.failed" else None
    _write(level, _sentence(event), error, event.pipeline, event.execution_id, event.stage, bound)


def warn(message: str, *, error: BaseException | None = None, **bound: Any) -> None:
    """Log a warning about something that hurts nobody now but should be known; never raises.

    Args:
        message: a sentence that names the place, the value and the remedy.
        error: the exception behind it, shown with its traceback.
        bound: what the record is bound with: `pipeline`, `execution`, `stage` (else ""), and anything else.
    """
    pipeline, execution, stage = (bound.pop(key, "") for key in ("pipeline", "execution", "stage"))
    _write("WARNING", message, error, pipeline, execution, stage, bound)


def _core(logger: Logger) -> Any:
    return getattr(logger, "_core", None)


def _write(
    level: str,
    message: str,
    error: BaseException | None,
    pipeline: str,
    execution: str,
    stage: str,
    bound: dict[str, Any],
) -> None:
    logger = _switch.logger() if "loguru" in sys.modules else None
    if logger is None:
        return
    with suppress(Exception):  # of a sink with catch=False, or a patcher: a log is no reason to end an execution
        if logger.level(level).no >= _switch.floor:
            record = logger.bind(pipeline=pipeline, execution=execution, stage=stage, **bound)
            record.opt(exception=error).log(level, message)


def _sentence(event: Event) -> str:
    subject = f"stage {event.stage!r} of pipeline" if event.stage else "pipeline"
    words = [f"{subject} {event.pipeline!r}: {event.type}"]
    words += [f"{count} {word}" for field, word in _COUNTS if (count := getattr(event, field, None)) is not None]
    if event.duration is not None:
        words.append(f"{event.duration:.3f} s")
    if event.error is not None:
        words.append(f"{type(event.error).__name__}: {event.error}")
    return ", ".join(words)


_COUNTS: Final = (
    ("received", "in"),
    ("emitted", "out"),
    ("errors", "errors"),
    ("dropped", "dropped"),
    ("attempt", "attempts"),
)
