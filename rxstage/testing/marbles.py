"""Pipelines tested with marbles: what comes in and out as text, one character a tick, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct
from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable
from reactivex.scheduler import TimeoutScheduler
from reactivex.testing import TestScheduler

from rxstage.content import EndOfTurn, Failure, Interrupt
from rxstage.element import StreamElement
from rxstage.pipeline import Pipeline
from rxstage.stage import Stage
from rxstage.testing.drawing import marbles_svg
from rxstage.testing.notation import CONTROL_TOKENS, Mark, format_marks, parse_marks
from rxstage.testing.virtual import run_virtual

__all__ = ["MarbleRecord", "MarbleRun", "elements_from", "marbles_of", "marbles_svg", "run_marbles"]

_SLACK: Final = 100  # ticks that a stream without an end is watched for behind its last one
_TOKEN_OF: Final = {kind: token for token, kind in CONTROL_TOKENS.items()}


class MarbleRecord(Struct, frozen=True):
    """One thing that came out.

    Attributes:
        time: seconds since the subscription.
        kind: `"next"`, `"completed"` or `"error"`.
        value: the element, None, or the exception.
    """

    time: float
    kind: str
    value: Any = None


class MarbleRun(Struct, frozen=True, eq=False):
    """What came out of a run; equal to the marble text that says the same.

    Attributes:
        records: everything in order, with its exact time.
        timespan: seconds of one tick.
        names: the name of each output that is not named by its text.
        ticks: length of the run, where it has no end.
    """

    records: tuple[MarbleRecord, ...]
    timespan: float = 1.0
    names: tuple[tuple[Any, str], ...] = ()
    ticks: int = 0

    @property
    def elements(self) -> list[StreamElement]:
        """The elements that came out."""
        return [record.value for record in self.records if record.kind == "next"]

    @property
    def error(self) -> BaseException | None:
        """What it ended with, if that was an error."""
        return next((record.value for record in self.records if record.kind == "error"), None)

    @property
    def marks(self) -> list[Mark]:
        """The records on ticks, by their names."""
        return [Mark(round(record.time / self.timespan), _name(record, self.names)) for record in self.records]

    @property
    def text(self) -> str:
        """As marble text; times are rounded to ticks.

        Raises:
            ValueError: two things are too close for it; use a smaller `timespan`.
        """
        return format_marks(self.marks, self.ticks)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            expected, _ = parse_marks(other)
            return [(mark.tick, mark.text) for mark in self.marks] == [(mark.tick, mark.text) for mark in expected]
        return self.records == other.records if isinstance(other, MarbleRun) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        try:
            return repr(self.text)
        except ValueError:
            return " ".join(f"{record.time:g}s:{_name(record, self.names)}" for record in self.records)

    def __str__(self) -> str:
        return self.text

    def _repr_svg_(self) -> str:
        return marbles_svg(self.text)


def _name(record: MarbleRecord, names: tuple[tuple[Any, str], ...]) -> str:
    if record.kind != "next":
        return "|" if record.kind == "completed" else "#"
    element = record.value
    payload = element.payload
    for value, name in names:
        if element == value or (type(payload) is type(value) and payload == value):
            return name
    kind = type(element.content).__name__
    if kind in _TOKEN_OF:
        return _TOKEN_OF[kind]
    name = str(payload)
    try:
        marks, _ = parse_marks(name)
    except ValueError:
        return kind
    return name if len(marks) == 1 and marks[0].text == name and name[0].isalnum() else kind


# ------------------------------------------------------------------------------------------ in


def _value(text: str, lookup: Mapping[str, Any]) -> Any:
    if text in lookup:
        return lookup[text]
    if text == "/":
        return StreamElement(EndOfTurn())
    if text == "!":
        return StreamElement(Interrupt())
    if text == "?":
        return StreamElement(Failure(ValueError("marble ?"), ""))
    return text


def elements_from(
    text: str,
    *,
    lookup: Mapping[str, Any] | None = None,
    error: Exception | None = None,
    timespan: float = 1.0,
    scheduler: abc.SchedulerBase | None = None,
) -> Observable[StreamElement]:
    """A cold Observable of the elements that marble text shows.

    `elements_from("-a-(b,cd)-/-|")` emits the texts `a`, `b` and `cd`, an `EndOfTurn`, and completes. A name that
    is in `lookup` stands for that value; `/`, `!` and `?` are `EndOfTurn`, `Interrupt` and `Failure`.

    Args:
        text: one line; `parse_marks` tells what its characters mean.
        lookup: elements or raw values by name.
        error: what `#` stands for; by default a `RuntimeError`.
        timespan: seconds of one tick.
        scheduler: where it lives; by default the scheduler of the subscription, else timers on threads.

    Raises:
        ValueError: the text has no meaning.
    """
    marks, _ = parse_marks(text)
    table = lookup or {}
    failure = error if error is not None else RuntimeError("marble #")

    def subscribe(
        observer: abc.ObserverBase[StreamElement], scheduler_: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        used = scheduler or scheduler_ or TimeoutScheduler.singleton()
        timers = CompositeDisposable()
        by_tick: dict[int, list[str]] = {}
        for mark in marks:
            if mark.text != "^":
                by_tick.setdefault(mark.tick, []).append(mark.text)
        for tick, texts in by_tick.items():
            timers.add(used.schedule_relative(tick * timespan, _emission(observer, texts, table, failure)))
        return timers

    return Observable(subscribe)


def _emission(
    observer: abc.ObserverBase[StreamElement], texts: list[str], lookup: Mapping[str, Any], error: Exception
) -> Callable[..., None]:
    def emit(_: abc.SchedulerBase, __: Any = None) -> None:
        for text in texts:
            if text == "|":
                observer.on_completed()
            elif text == "#":
                observer.on_error(error)
            else:
                observer.on_next(StreamElement.of(_value(text, lookup)))

    return emit


def marbles_of(
    records: Any, *, lookup: Mapping[str, Any] | None = None, timespan: float = 1.0, start: float = 0.0, ticks: int = 0
) -> str:
    """The marble text of what was recorded.

    Args:
        records: `MarbleRecord`s, or the `Recorded` messages of an observer of a `TestScheduler`.
        lookup: values by name, as for `elements_from`.
        timespan: seconds of one tick.
        start: time of the first tick [s].
        ticks: length of the text, where there is no end.

    Raises:
        ValueError: two things are too close for it.
    """
    names = tuple((value, name) for name, value in (lookup or {}).items())
    marks = [Mark(round((r.time - start) / timespan), _name(r, names)) for r in map(_record, records)]
    return format_marks(marks, ticks)


def _record(recorded: Any) -> MarbleRecord:
    if isinstance(recorded, MarbleRecord):
        return recorded
    told = recorded.value
    if told.kind == "N":
        return MarbleRecord(recorded.time, "next", StreamElement.of(told.value))
    if told.kind == "C":
        return MarbleRecord(recorded.time, "completed")
    return MarbleRecord(recorded.time, "error", told.exception)


# ------------------------------------------------------------------------------------------ through


def run_marbles(
    stage: Stage | Callable[[Observable[Any]], Observable[Any]],
    text: str,
    *,
    lookup: Mapping[str, Any] | None = None,
    error: Exception | None = None,
    timespan: float = 1.0,
    ticks: int | None = None,
) -> MarbleRun:
    """Run marble text through a pipeline, a stage or any Rx operator, in virtual time.

        assert run_marbles(MapStage("upper", str.upper, on=Text), "-a-b-|") == "-A-B-|"

    Args:
        stage: what it goes through. A graph with asynchronous stages runs on a virtual loop, any other under a
            `TestScheduler`.
        text: what comes in, as for `elements_from`. It comes in its time, however full the buffers are.
        lookup: values by name, for what comes in and what goes out.
        error: what `#` stands for.
        timespan: seconds of one tick.
        ticks: how long it is watched; by default till its end, at most 100 ticks past that of the text.

    Returns:
        What came out, which can be compared with marble text.

    Raises:
        ValueError: the text has no meaning.
    """
    _, length = parse_marks(text)
    names = tuple((value, name) for name, value in (lookup or {}).items())
    watched = (length + _SLACK if ticks is None else ticks) * timespan
    source = elements_from(text, lookup=lookup, error=error, timespan=timespan)
    records: list[MarbleRecord] = []
    if _needs_a_loop(stage):
        run_virtual(_on_loop(stage, source, watched, records))
    else:
        _under_test_scheduler(stage, source, watched, records)
    ended = bool(records) and records[-1].kind != "next"
    return MarbleRun(tuple(records), timespan, names, 0 if ended else length if ticks is None else ticks)


def _needs_a_loop(stage: Any) -> bool:
    if not isinstance(stage, Stage):
        return False
    pipeline = stage if isinstance(stage, Pipeline) else Pipeline.of(stage)
    config = pipeline.config
    return pipeline.plan.asynchronous or config.execution_timeout is not None or config.idle_timeout is not None


def _under_test_scheduler(stage: Any, source: Observable[Any], watched: float, records: list[MarbleRecord]) -> None:
    scheduler = TestScheduler()
    subscription = source.pipe(stage).subscribe(
        *_recorder(records, lambda: float(scheduler.clock)), scheduler=scheduler
    )
    scheduler.advance_to(watched)
    subscription.dispose()


async def _on_loop(stage: Any, source: Observable[Any], watched: float, records: list[MarbleRecord]) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    begin = loop.time()
    pipeline = stage if isinstance(stage, Pipeline) else Pipeline.of(stage, name=stage.name)
    execution = pipeline.execute(source)
    on_next, on_error, on_completed = _recorder(records, lambda: loop.time() - begin, ended.set)
    subscription = execution.output.subscribe(on_next, on_error, on_completed)
    try:
        async with asyncio.timeout_at(begin + watched):
            await ended.wait()
    except TimeoutError:
        pass
    subscription.dispose()
    await execution.closed()


def _recorder(
    records: list[MarbleRecord], clock: Callable[[], float], ended: Callable[[], object] = lambda: None
) -> tuple[Callable[[Any], None], Callable[[Exception], None], Callable[[], None]]:
    def on_next(value: Any) -> None:
        records.append(MarbleRecord(clock(), "next", StreamElement.of(value)))

    def on_error(error: Exception) -> None:
        records.append(MarbleRecord(clock(), "error", error))
        ended()

    def on_completed() -> None:
        records.append(MarbleRecord(clock(), "completed"))
        ended()

    return on_next, on_error, on_completed
