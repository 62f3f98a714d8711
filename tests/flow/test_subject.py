"""BufferedSubject: a Subject with a bounded buffer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from reactivex.subject import Subject

from rxstage import (
    BufferedSubject,
    BufferOverflow,
    Data,
    Failure,
    Interrupt,
    MapStage,
    Pipeline,
    Priority,
    StreamElement,
    Text,
)
from rxstage.testing import settle, virtual


def element(value: Any, priority: Priority = Priority.NORMAL) -> StreamElement:
    return StreamElement.of(value, priority=priority)


class Seen:
    """An observer that notes what it is told."""

    def __init__(self, raises_on: Any = None) -> None:
        self.values: list[Any] = []
        self.ends: list[Any] = []
        self.raises_on = raises_on

    def on_next(self, each: StreamElement) -> None:
        self.values.append(each.payload)
        if each.payload == self.raises_on:
            raise ValueError(f"on {each.payload}")

    def on_error(self, error: Exception) -> None:
        self.ends.append(error)

    def on_completed(self) -> None:
        self.ends.append("completed")

    def subscribe(self, source: Any) -> Any:
        return source.subscribe(self.on_next, self.on_error, self.on_completed)


def test_subject_capacity() -> None:
    """A capacity below 1 is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        BufferedSubject(0)


@virtual
async def test_subject_delivers_on_the_loop() -> None:
    """What goes in comes out later, in order, to everybody, then the end."""
    subject, first, second = BufferedSubject(4), Seen(), Seen()
    first.subscribe(subject)
    second.subscribe(subject)
    for value in "abc":
        subject.on_next(value)
    subject.on_completed()
    subject.on_next("late")
    assert not first.values
    await settle()
    assert first.values == second.values == ["a", "b", "c"]
    assert first.ends == second.ends == ["completed"]


@virtual
async def test_subject_valve() -> None:
    """CASE 16: under `wait` its valve closes at the capacity and opens when it has delivered; statistics say so."""
    subject, seen = BufferedSubject(2), Seen()
    seen.subscribe(subject)
    subject.on_next("a")
    assert not subject.valve.closers
    subject.on_next("b")
    assert subject.valve.closers
    assert subject.statistics().waiting
    await settle()
    assert not subject.valve.closers
    assert subject.statistics().depth == 0
    assert subject.statistics().peak == 2


@virtual
async def test_subject_pause() -> None:
    """CASE 16: two pausers must both resume; pausing twice by one is one effect; paused before it is subscribed."""
    subject, seen = BufferedSubject(8), Seen()
    subject.pause("x")
    subject.pause("x")
    subject.pause("y")
    seen.subscribe(subject)
    subject.on_next("a")
    await settle()
    assert seen.values == []
    subject.resume("x")
    await settle()
    assert seen.values == []
    subject.resume("y")
    await settle()
    assert seen.values == ["a"]
    subject.on_next("b")
    await settle()
    assert seen.values == ["a", "b"]


@virtual
async def test_subject_pause_from_inside() -> None:
    """A pause from inside a handler holds from the next element on."""
    subject, seen = BufferedSubject(8), Seen()

    def pausing(each: StreamElement) -> None:
        seen.on_next(each)
        if each.text == "b":
            subject.pause("inside")

    subject.subscribe(pausing, on_completed=seen.on_completed)
    for value in "abcd":
        subject.on_next(value)
    subject.on_completed()
    await settle()
    assert seen.values == ["a", "b"]
    assert seen.ends == []
    subject.resume("inside")
    await settle()
    assert seen.values == list("abcd")
    assert seen.ends == ["completed"]


@virtual
async def test_subject_one_raises() -> None:
    """CASE 10: an observer that raises gets its error and is dropped; the others get everything."""
    subject, bad, good = BufferedSubject(8), Seen(raises_on="b"), Seen()
    bad.subscribe(subject)
    good.subscribe(subject)
    for value in "abcd":
        subject.on_next(value)
    subject.on_completed()
    await settle()
    assert bad.values == ["a", "b"]
    assert [str(error) for error in bad.ends] == ["on b"]
    assert good.values == list("abcd")
    assert good.ends == ["completed"]


@virtual
async def test_subject_one_raises_without_a_handler() -> None:
    """CASES 7 and 10: one that raises and takes no errors either is reported to the loop; the others go on."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    subject, bad, good = BufferedSubject(8), Seen(raises_on="b"), Seen()
    subject.subscribe(bad.on_next)
    good.subscribe(subject)
    for value in "abcd":
        subject.on_next(value)
    subject.on_completed()
    await settle()
    assert good.values == list("abcd")
    assert good.ends == ["completed"]
    assert [str(context["exception"]) for context in reported] == ["on b"]


@virtual
async def test_subject_raising_at_the_end() -> None:
    """CASE 10: one that raises at the end does not keep the end from the others."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    subject, good = BufferedSubject(8), Seen()

    def raising() -> None:
        raise ValueError("at the end")

    subject.subscribe(on_completed=raising)
    good.subscribe(subject)
    subject.on_completed()
    await settle()
    assert good.ends == ["completed"]
    assert [str(context["exception"]) for context in reported] == ["at the end"]


@virtual
async def test_subject_late_subscriber() -> None:
    """What was pushed before the first subscriber waits for it; a later one sees what comes from then on."""
    subject, first, second, third = BufferedSubject(8), Seen(), Seen(), Seen()
    subject.on_next("a")
    await settle()
    first.subscribe(subject)
    await settle()
    assert first.values == ["a"]
    second.subscribe(subject)
    subject.on_next("b")
    await settle()
    assert first.values == ["a", "b"]
    assert second.values == ["b"]
    subject.on_completed()
    await settle()
    third.subscribe(subject)
    assert third.ends == ["completed"]


@virtual
async def test_subject_error_behind_what_is_there() -> None:
    """An error comes after what was there, also to late subscribers; the valve is open then."""
    subject, seen, late = BufferedSubject(2), Seen(), Seen()
    seen.subscribe(subject)
    error = ValueError("x")
    subject.on_next("a")
    subject.on_next("b")
    subject.on_error(error)
    subject.on_error(ValueError("second"))
    subject.on_completed()
    await settle()
    assert seen.values == ["a", "b"]
    assert seen.ends == [error]
    late.subscribe(subject)
    assert late.ends == [error]
    assert not subject.valve.closers


@virtual
async def test_subject_fails() -> None:
    """Under `fail` one too many ends it with BufferOverflow, behind what it held."""
    subject, seen = BufferedSubject(2, "fail"), Seen()
    seen.subscribe(subject)
    for value in "abcd":
        subject.on_next(value)
    await settle()
    assert seen.values[:2] == ["a", "b"]
    assert len(seen.ends) == 1
    assert isinstance(seen.ends[0], BufferOverflow)
    assert "d" not in seen.values


@virtual
async def test_subject_priorities() -> None:
    """With priorities the higher goes first; an interrupt overtakes and flushes."""
    subject, seen = BufferedSubject(8, priority_queue=True), Seen()
    seen.subscribe(subject)
    subject.on_next(element("low", Priority.LOW))
    subject.on_next(element("high", Priority.HIGH))
    await settle()
    assert seen.values == ["high", "low"]
    subject.on_next("gone")
    subject.on_next(StreamElement.interrupt())
    subject.on_next("next")
    await settle()
    assert seen.values[2:] == [Interrupt(), "next"]


@virtual
async def test_subject_dropping() -> None:
    """A dropping policy never closes the valve and counts what it drops."""
    subject, seen = BufferedSubject(2, "drop_oldest"), Seen()
    seen.subscribe(subject)
    for value in range(10):
        subject.on_next(value)
        assert not subject.valve.closers
    await settle()
    assert seen.values == [8, 9]
    assert subject.statistics().dropped == 8


@virtual
async def test_subject_dispose() -> None:
    """Disposed of, it holds nothing and nobody; the last observer that leaves empties it."""
    subject, seen = BufferedSubject(2), Seen()
    subscription = seen.subscribe(subject)
    subject.on_next("a")
    subject.on_next("b")
    assert subject.valve.closers
    subscription.dispose()
    assert not subject.valve.closers
    assert subject.statistics().depth == 0
    seen.subscribe(subject)
    subject.on_next("c")
    subject.dispose()
    subject.on_next("d")
    await settle()
    assert seen.values == []
    assert subject.statistics().depth == 0


@virtual
async def test_subject_batches() -> None:
    """A long queue is delivered in batches, between which the loop does other things."""
    subject, seen = BufferedSubject(1000), Seen()
    seen.subscribe(subject)
    for value in range(500):
        subject.on_next(value)
    await asyncio.sleep(0)
    assert 0 < len(seen.values) < 500
    await settle()
    assert seen.values == list(range(500))


@virtual
async def test_subject_in_rx() -> None:
    """It stands between Rx operators and pipelines like any Subject."""
    source: Subject[Any] = Subject()
    subject, seen = BufferedSubject(16), Seen()
    seen.subscribe(subject.pipe(Pipeline.of(MapStage("upper", str.upper, on=Text))))
    source.subscribe(subject)
    source.on_next("a")
    source.on_next(Data(3))
    source.on_next(Failure(ValueError("x")))
    source.on_completed()
    await settle()
    assert seen.values[:2] == ["A", 3]
    assert isinstance(seen.values[2], Failure)
    assert seen.ends == ["completed"]
