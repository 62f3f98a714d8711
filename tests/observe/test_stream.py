"""Events as a hot Observable."""

from __future__ import annotations

import threading
from asyncio import CancelledError
from typing import Any

import pytest
from reactivex import operators as ops

from rxstage.events import Event, StageFailed
from rxstage.observe.stream import EventStream

WAIT = 10.0


def event(name: str) -> Event:
    return Event(type=name)


class Seen:
    """An observer that writes down what it gets."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def on_next(self, value: Event) -> None:
        self.messages.append(value.type)

    def on_error(self, error: Exception) -> None:
        self.messages.append(error)

    def on_completed(self) -> None:
        self.messages.append("|")


def see(stream: EventStream) -> Seen:
    seen = Seen()
    stream.subscribe(seen.on_next, seen.on_error, seen.on_completed)
    return seen


def test_hot() -> None:
    """Observers get what happens while they are subscribed, then the completion, and nothing after it."""
    stream = EventStream()
    stream.on_event(event("early"))
    first = see(stream)
    stream.on_event(event("a"))
    second = see(stream)
    stream.on_event(event("b"))
    stream.complete()
    stream.complete()
    stream.on_event(event("late"))
    assert first.messages == ["a", "b", "|"]
    assert second.messages == ["b", "|"]


def test_late_subscriber_completes_at_once() -> None:
    """Who subscribes after the end gets the completion at once."""
    stream = EventStream()
    stream.complete()
    assert see(stream).messages == ["|"]
    assert not stream.observed


def test_observed_and_first_observer() -> None:
    """The engine hears of the first observer, again after everybody had left, and can ask whether there is any."""
    calls: list[bool] = []
    stream = EventStream(on_first_observer=lambda: calls.append(stream.observed))
    assert not stream.observed
    first = stream.subscribe()
    second = stream.subscribe()
    assert calls == [True]
    first.dispose()
    first.dispose()
    assert stream.observed
    second.dispose()
    assert not stream.observed
    stream.subscribe()
    assert calls == [True, True]
    stream.complete()
    assert not stream.observed
    stream.subscribe()
    assert calls == [True, True]


@pytest.mark.parametrize("error", [ValueError("no"), CancelledError()])
def test_raising_observer_is_dropped_and_hurts_nobody(error: BaseException) -> None:
    """One that raises gets its error and no more events; the others and the producer do not notice."""
    stream = EventStream()
    before = see(stream)
    told: list[BaseException] = []

    def bad(value: Event) -> None:
        raise error

    stream.subscribe(bad, told.append)
    stream.subscribe(bad)  # without on_error, which makes reactivex raise it once more
    after = see(stream)
    stream.on_event(event("a"))
    stream.on_event(event("b"))
    stream.complete()
    assert before.messages == after.messages == ["a", "b", "|"]
    assert told == [error]


def test_observer_that_raises_at_the_end() -> None:
    """One that raises in on_completed does not keep the others from their completion."""
    stream = EventStream()

    def bad() -> None:
        raise ValueError("no")

    stream.subscribe(on_completed=bad)
    after = see(stream)
    stream.complete()
    assert after.messages == ["|"]


def test_keyboard_interrupt_goes_through_and_the_stream_lives() -> None:
    """An observer's KeyboardInterrupt reaches the producer, and the next event is delivered all the same."""
    stream = EventStream()
    raising = [True]

    def interrupted(value: Event) -> None:
        if raising.pop():
            raise KeyboardInterrupt

    stream.subscribe(interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.on_event(event("a"))
    raising.append(False)
    seen = see(stream)
    stream.on_event(event("b"))
    assert seen.messages == ["b"]


def test_event_inside_an_observer_comes_after_the_one_at_hand() -> None:
    """Every observer sees one order, even when one of them causes an event or the end."""
    stream = EventStream()

    def cause(value: Event) -> None:
        if value.type == "a":
            stream.on_event(event("b"))
            stream.complete()

    stream.subscribe(cause)
    seen = see(stream)
    stream.on_event(event("a"))
    assert seen.messages == ["a", "b", "|"]


def test_dispose_and_subscribe_inside_an_observer() -> None:
    """An observer may leave and another may come while an event is delivered."""
    stream = EventStream()
    late: list[Seen] = []
    first = Seen()

    def leave(value: Event) -> None:
        first.on_next(value)
        subscription.dispose()
        late.append(see(stream))

    subscription = stream.subscribe(leave)
    stream.on_event(event("a"))
    stream.on_event(event("b"))
    assert first.messages == ["a"]
    assert [each.messages for each in late] == [["b"]]


def test_two_threads_never_overlap_in_an_observer() -> None:
    """While one thread is in an observer, an event of another waits, does not block it, and comes after."""
    stream = EventStream()
    entered, go = threading.Event(), threading.Event()
    got: list[str] = []

    def slow(value: Event) -> None:
        if value.type == "a":
            entered.set()
            go.wait(WAIT)
        got.append(value.type)

    stream.subscribe(slow)
    thread = threading.Thread(target=stream.on_event, args=(event("a"),))
    thread.start()
    assert entered.wait(WAIT)
    stream.on_event(event("b"))
    for index in range(5000):
        stream.on_event(event(str(index)))
    assert got == []
    go.set()
    thread.join(WAIT)
    assert got[0] == "a"
    assert got[-1] == "4999"
    assert len(got) == 1 + 4096  # what waits is bounded, the oldest goes


def test_it_is_an_observable_like_any_other() -> None:
    """Rx operators work on it, and `take` ends the subscription."""
    stream = EventStream()
    got: list[str] = []
    stream.pipe(ops.filter(lambda value: isinstance(value, StageFailed)), ops.take(1)).subscribe(
        lambda value: got.append(value.stage)
    )
    stream.on_event(event("a"))
    stream.on_event(StageFailed(stage="s"))
    assert got == ["s"]
    assert not stream.observed
