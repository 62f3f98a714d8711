"""The event bus: who is called, in which order, and what a bad handler can do to the others."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rxstage.errors import PipelineClosed
from rxstage.events import EdgeDropped, Event, PipelineStarted, StageCompleted, StageFailed
from rxstage.observe.bus import EventBus

WAIT = 10.0  # real seconds, an upper bound that a healthy run never comes near


class Special(StageFailed, frozen=True, kw_only=True):
    type: str = "stage.failed.specially"


@pytest.fixture
def bus() -> Iterator[EventBus]:
    bus = EventBus()
    yield bus
    bus.close()
    assert bus.flush(WAIT)
    join(bus)


def join(bus: EventBus) -> None:
    """Wait for the end of the bus's thread, which nobody holds."""
    for thread in threading.enumerate():
        if thread.name == "rxstage:events":
            thread.join(WAIT)
    assert bus._thread is None


def blocking(entered: threading.Event, go: threading.Event) -> Callable[[Event], None]:
    """A handler that says when it has begun, and ends when it is let go."""

    def handler(event: Event) -> None:
        entered.set()
        go.wait(WAIT)

    return handler


def number(event: Event) -> int:
    return int(event.data["number"])


def numbered(count: int, kind: str = "a.b") -> list[Event]:
    return [Event(type=kind, data={"number": index}) for index in range(count)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("stage.failed", [StageFailed()]),
        ("stage.*", [StageFailed(), StageCompleted(), Special()]),
        ("stage.failed.*", [Special()]),
        ("*", [PipelineStarted(), StageFailed(), StageCompleted(), Special(), Event(type="turn.begin")]),
        (StageFailed, [StageFailed(), Special()]),
        (Event, [PipelineStarted(), StageFailed(), StageCompleted(), Special(), Event(type="turn.begin")]),
        ("turn.*", [Event(type="turn.begin")]),
        ("st.*", []),
    ],
)
def test_kinds(bus: EventBus, kind: Any, expected: list[Event]) -> None:
    """A type, a prefix, everything and a class each get the events that they name."""
    got: list[Event] = []
    bus.subscribe(kind, got.append)
    for event in (PipelineStarted(), StageFailed(), StageCompleted(), Special(), Event(type="turn.begin")):
        bus.publish(event)
    assert bus.flush(WAIT)
    assert got == expected


def test_order_is_kept_per_handler(bus: EventBus) -> None:
    """A handler gets the events in the order of their publication, all on the one thread."""
    got: list[tuple[str, Event]] = []
    bus.subscribe("*", lambda event: got.append((threading.current_thread().name, event)))
    events = numbered(500)
    for event in events:
        bus.publish(event)
    assert bus.flush(WAIT)
    assert got == [("rxstage:events", event) for event in events]


def test_order_of_each_of_many_producers(bus: EventBus) -> None:
    """Eight threads publish at once, and none of their events is lost or overtaken by a later one of its own."""
    bus.limit = 10_000
    got: dict[str, list[int]] = {str(index): [] for index in range(8)}
    bus.subscribe("a.b", lambda event: got[event.stage].append(number(event)))
    begin = threading.Barrier(8)

    def produce(name: str) -> None:
        begin.wait(WAIT)
        for index in range(200):
            bus.publish(Event(type="a.b", stage=name, data={"number": index}))

    threads = [threading.Thread(target=produce, args=(name,)) for name in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert bus.flush(WAIT)
    assert got == {name: list(range(200)) for name in got}
    assert bus.dropped == 0


def test_raising_handler_is_counted_and_called_again(bus: EventBus) -> None:
    """A handler that raises, even SystemExit, hurts no other handler and not its own next call."""
    errors = iter([ValueError("no"), SystemExit(3), KeyError("x")])
    got: list[Event] = []

    def bad(event: Event) -> None:
        raise next(errors)

    bus.subscribe("*", bad)
    bus.subscribe("*", got.append)
    events = numbered(3)
    for event in events:
        bus.publish(event)
    assert bus.flush(WAIT)
    assert got == events
    assert bus.failures == 3


def test_blocked_handler_bounds_the_queue_and_drops_the_oldest() -> None:
    """While a handler blocks, publish goes on at once, and past the limit the oldest events go."""
    bus = EventBus(limit=3)
    entered, go = threading.Event(), threading.Event()
    got: list[int] = []

    def slow(event: Event) -> None:
        entered.set()
        go.wait(WAIT)
        got.append(number(event))

    bus.subscribe("*", slow)
    events = numbered(10)
    bus.publish(events[0])
    assert entered.wait(WAIT)
    for event in events[1:]:
        bus.publish(event)
    assert bus.dropped == 6
    go.set()
    assert bus.flush(WAIT)
    assert got == [0, 7, 8, 9]
    join(bus)


def test_flush_gives_up_in_time_and_survives_an_overrun() -> None:
    """A flush behind a blocked handler says False at its timeout; one whose mark was pushed out still ends."""
    bus = EventBus(limit=2)
    entered, go = threading.Event(), threading.Event()
    bus.subscribe("*", blocking(entered, go))
    bus.publish(Event(type="a"))
    assert entered.wait(WAIT)
    assert bus.flush(0.0) is False
    answers: list[bool] = []
    flusher = threading.Thread(target=lambda: answers.append(bus.flush(WAIT)))
    flusher.start()
    while bus._queue.qsize() < 2:
        threading.Event().wait(0.001)
    for event in numbered(5):
        bus.publish(event)
    assert answers == []
    go.set()
    flusher.join(WAIT)
    assert answers == [True]
    join(bus)


def test_flush_in_a_handler_says_no_at_once(bus: EventBus) -> None:
    """A handler that flushes its own bus is told False instead of waiting for itself."""
    answers: list[bool] = []
    bus.subscribe("*", lambda event: answers.append(bus.flush(3600.0)))
    bus.publish(Event(type="a"))
    assert bus.flush(WAIT)
    assert answers == [False]


def test_publish_in_a_handler(bus: EventBus) -> None:
    """An event that a handler publishes comes after those that were there."""
    got: list[str] = []

    def handler(event: Event) -> None:
        got.append(event.type)
        if event.type == "a":
            bus.publish(Event(type="c"))

    bus.subscribe("*", handler)
    bus.acquire()
    bus.publish(Event(type="a"))
    bus.publish(Event(type="b"))
    assert bus.flush(WAIT)
    assert bus.flush(WAIT)
    assert sorted(got) == ["a", "b", "c"]
    assert got.index("a") < got.index("b")
    bus.release()


def test_no_thread_without_a_matching_handler(bus: EventBus) -> None:
    """Events that nobody asked for start no thread, and a flush of nothing is done at once."""
    bus.subscribe("stage.*", print)
    bus.publish(PipelineStarted())
    assert bus._thread is None
    assert bus.flush(0.0) is True


def test_thread_ends_by_itself_when_nobody_holds_it(bus: EventBus) -> None:
    """Without acquire the thread ends after draining, and another starts with the next event."""
    names: list[int] = []
    bus.subscribe("*", lambda event: names.append(number(event)))
    for event in numbered(3):
        bus.publish(event)
        join(bus)
    assert names == [0, 1, 2]


def test_thread_stays_while_held_and_ends_with_the_last_release(bus: EventBus) -> None:
    """Between acquire and the last release one thread serves all events; then it is gone."""
    threads: set[threading.Thread] = set()
    bus.subscribe("*", lambda event: threads.add(threading.current_thread()))
    bus.acquire()
    bus.acquire()
    for event in numbered(3):
        bus.publish(event)
        assert bus.flush(WAIT)
    bus.release()
    assert bus.flush(WAIT)
    bus.publish(Event(type="a"))
    assert bus.flush(WAIT)
    assert len(threads) == 1
    bus.release()
    join(bus)
    bus.release()  # one too many does no harm
    bus.acquire()
    assert bus._holders == 1


def test_release_lets_what_is_queued_be_handled() -> None:
    """The last release does not throw away what is still on its way."""
    bus = EventBus()
    go = threading.Event()
    got: list[int] = []

    def slow(event: Event) -> None:
        go.wait(WAIT)
        got.append(number(event))

    bus.subscribe("*", slow)
    bus.acquire()
    for event in numbered(5):
        bus.publish(event)
    bus.release()
    go.set()
    join(bus)
    assert got == [0, 1, 2, 3, 4]


def test_threads_come_and_go_without_losing_an_event(bus: EventBus) -> None:
    """Events published just while the thread is about to end are handled, in order."""
    got: list[int] = []
    bus.subscribe("*", lambda event: got.append(number(event)))
    for event in numbered(2000):
        bus.publish(event)
        if number(event) % 3 == 0:
            bus.flush(WAIT)
    assert bus.flush(WAIT)
    assert got == list(range(2000))


def test_unsubscribe_takes_effect_at_once(bus: EventBus) -> None:
    """After unsubscribing no event reaches the handler, not even one that was on its way."""
    entered, go = threading.Event(), threading.Event()
    got: list[Event] = []
    bus.subscribe("first", blocking(entered, go))
    unsubscribe = bus.subscribe("second", got.append)
    bus.publish(Event(type="first"))
    bus.publish(Event(type="second"))
    assert entered.wait(WAIT)
    unsubscribe()
    unsubscribe()
    go.set()
    assert bus.flush(WAIT)
    assert got == []
    assert bus.active
    assert not bus.wants("second")


def test_wants_and_active(bus: EventBus) -> None:
    """The engine can ask whether building an event is worth while, by class or by type."""
    assert not bus.active
    assert not bus.wants(StageFailed)
    end = bus.subscribe(StageFailed, print)
    assert bus.active
    assert bus.wants(StageFailed)
    assert bus.wants(Special)
    assert bus.wants("stage.failed")
    assert bus.wants("stage.failed.specially")
    assert not bus.wants(EdgeDropped)
    assert not bus.wants("edge.dropped")
    end()
    bus.subscribe("edge.*", print)
    assert bus.wants(EdgeDropped)
    assert bus.wants("edge.anything")
    assert not bus.wants(StageFailed)


def test_made_up_types_do_not_pile_up(bus: EventBus) -> None:
    """What is remembered about types stays bounded, however many there are."""
    bus.subscribe("never", print)
    for index in range(5000):
        bus.publish(Event(type=f"turn.{index}"))
    assert len(bus._cache) <= 1024


def test_close_handles_what_is_there_and_takes_no_more() -> None:
    """After close nothing new is taken, what was there is handled, and the thread ends though it is held."""
    bus = EventBus()
    entered, go = threading.Event(), threading.Event()
    got: list[str] = []

    def handler(event: Event) -> None:
        entered.set()
        go.wait(WAIT)
        got.append(event.type)

    bus.subscribe("*", handler)
    bus.acquire()
    bus.publish(Event(type="a"))
    bus.publish(Event(type="b"))
    assert entered.wait(WAIT)
    bus.close()
    bus.close()
    bus.publish(Event(type="c"))
    go.set()
    join(bus)
    assert got == ["a", "b"]
    with pytest.raises(PipelineClosed, match="before close"):
        bus.subscribe("*", print)


async def coroutine_function(event: Event) -> None: ...


async def generator_function(event: Event) -> Any:
    yield event


class AsyncCallable:
    async def __call__(self, event: Event) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [coroutine_function, functools.partial(coroutine_function), generator_function, AsyncCallable()],
)
def test_async_handlers_are_refused(bus: EventBus, handler: Any) -> None:
    """An async handler would never be awaited, so it is refused with what to do instead."""
    with pytest.raises(TypeError, match="call_soon_threadsafe"):
        bus.subscribe("*", handler)


def test_hidden_coroutine_counts_as_a_failure(bus: EventBus) -> None:
    """A plain function that returns a coroutine is counted as raising, without a "never awaited" warning."""
    bus.subscribe("*", lambda event: coroutine_function(event))
    bus.publish(Event(type="a"))
    assert bus.flush(WAIT)
    assert bus.failures == 1


@pytest.mark.parametrize("kind", ["", "stage.*.x", "sta*", "**", ".*", "stage..x"])
def test_bad_patterns(bus: EventBus, kind: str) -> None:
    """A pattern that cannot be meant is refused."""
    with pytest.raises(ValueError, match="no event kind"):
        bus.subscribe(kind, print)


@pytest.mark.parametrize("kind", [int, None, 3])
def test_bad_kinds(bus: EventBus, kind: Any) -> None:
    """What is neither a string nor an Event class is refused."""
    with pytest.raises(TypeError, match="Event class"):
        bus.subscribe(kind, print)


def test_bad_handler_and_limit(bus: EventBus) -> None:
    """A handler must be callable and a limit at least 1."""
    handler: Any = "print"
    with pytest.raises(TypeError, match="callable"):
        bus.subscribe("*", handler)
    with pytest.raises(ValueError, match="at least 1"):
        EventBus(limit=0)


def test_idle_thread_keeps_no_event_alive(bus: EventBus) -> None:
    """What an event carries can be collected once it has been handled, though the thread is held."""

    class Carried(Exception):
        pass

    error = Carried()
    carried = weakref.ref(error)
    bus.subscribe("*", lambda event: None)
    bus.acquire()
    bus.publish(Event(type="a", error=error))
    del error
    assert bus.flush(WAIT)
    gc.collect()
    assert carried() is None
    bus.release()


def test_thread_that_cannot_start_costs_only_the_event(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the interpreter exits no thread starts: publish drops the event and does not raise."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    bus.subscribe("*", print)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        bus.publish(Event(type="a"))
    assert bus.dropped == 1
    assert bus.flush(0.0)


def test_last_events_of_a_script_are_handled() -> None:
    """What is published just before the interpreter exits still reaches its handlers."""
    script = (
        "from rxstage.events import Event\n"
        "from rxstage.observe.bus import EventBus\n"
        "bus = EventBus()\n"
        "bus.subscribe('*', lambda event: print(event.type, flush=True))\n"
        "bus.acquire()\n"
        "for index in range(50):\n"
        "    bus.publish(Event(type=f'a.{index}'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [f"a.{index}" for index in range(50)]
    assert done.stderr == ""
