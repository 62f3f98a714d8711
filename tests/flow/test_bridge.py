"""Sources of every kind: how they are pulled, slowed, stopped and closed."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from pydantic import BaseModel
from reactivex import Observable
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxstage import (
    BufferOverflow,
    Data,
    ExecutionCancelled,
    MapStage,
    Message,
    Pipeline,
    PipelineConfig,
    StreamElement,
    Text,
)
from rxstage.flow.source import is_file, is_single, lines_of
from rxstage.testing import SinkProbe, SourceProbe, assert_no_leaks, settle, virtual

WAIT = 20.0


async def same(element: StreamElement) -> StreamElement:
    return element


def pipeline(size: int = 4, **config: Any) -> Pipeline:
    return Pipeline.of(MapStage("same", same), config=PipelineConfig(buffer_size=size, **config))


def shown(elements: Any) -> list[Any]:
    return [type(e.content).__name__ if e.is_control else e.payload for e in elements]


class Model(BaseModel):
    """Iterable by its fields, and yet one element."""

    a: int = 1


SINGLE: list[Any] = [
    "text",
    b"bytes",
    bytearray(b"x"),
    {"a": 1},
    Model(),
    Message.user("x"),
    StreamElement.of("e"),
    5,
    ValueError(),
]


@pytest.mark.parametrize("value", SINGLE, ids=lambda value: type(value).__name__)
def test_one_element(value: Any) -> None:
    """A bare string, bytes, element, message, mapping, model, error or number is one element."""
    assert is_single(value)
    assert len(pipeline().run(value).elements) == 1


@pytest.mark.parametrize(
    "value", [[1], (1,), {1}, iter([1]), rx.of(1), range(1, 2), (n for n in [1])], ids=lambda v: type(v).__name__
)
def test_many_elements(value: Any) -> None:
    """Any other iterable, and an Observable, are their elements."""
    assert not is_single(value)
    assert shown(pipeline().run(value).elements) == [1]


def test_files(tmp_path: Path) -> None:
    """A text file gives its lines without their ends, a binary one chunks; anything with read and readline is one."""
    path = tmp_path / "lines.txt"
    path.write_text("a\nb\r\n\nc")
    with path.open() as file:
        assert shown(pipeline().run(file).elements) == ["a", "b", "", "c"]
    path.write_bytes(b"x" * 100_000)
    with path.open("rb") as binary:
        assert [len(e.data) for e in pipeline().run(binary).elements] == [65536, 100_000 - 65536]
    assert list(lines_of(io.BytesIO(b"ab"))) == [b"ab"]
    assert is_file(io.StringIO())
    assert not is_file([1])


# ------------------------------------------------------------------------------------------ pulled


@virtual
async def test_iterator_is_pulled_in_slices() -> None:
    """CASE 14: it is pulled only while there is room, and the loop gets its turns between."""
    pulled = 0

    def source() -> Iterator[int]:
        nonlocal pulled
        for n in range(10_000):
            pulled += 1
            yield n

    async with pipeline().execute(source()) as execution:
        sink = SinkProbe(execution)
        await sink.expect(0, 1, 2)
        await settle()
        assert pulled <= 3 + 3 * 4


@virtual
async def test_generator_is_closed() -> None:
    """CASE 19: a generator is closed once on every ending, also by its own pipeline from inside."""
    closed: list[str] = []

    def source(name: str, values: Any) -> Iterator[Any]:
        try:
            yield from values
        finally:
            closed.append(name)

    async with assert_no_leaks():
        await pipeline().execute(source("completed", [1]))
        execution = pipeline().execute(source("cancelled", iter(int, 1)))
        async with execution:
            await SinkProbe(execution).expect(0)
        await pipeline().execute(source("ended", [1, StreamElement.end_of_stream(), 2]))
        with pytest.raises(ZeroDivisionError):
            await pipeline().execute(source("raised", (1 // n for n in (1, 0))))
    assert closed == ["completed", "cancelled", "ended", "raised"]


@virtual
async def test_source_that_cannot_be_iterated() -> None:
    """An `__iter__` or `__aiter__` that raises is the error of the execution."""

    class Bad:
        def __iter__(self) -> Any:
            raise LookupError("iter")

    class AsyncBad:
        def __aiter__(self) -> Any:
            raise LookupError("aiter")

    for bad in (Bad(), AsyncBad()):
        async with assert_no_leaks():
            with pytest.raises(LookupError, match="iter"):
                await pipeline().execute(bad)


@virtual
async def test_async_source_error_and_close() -> None:
    """CASES 3 and 20: an async source's error comes through; on cancel it is closed, once."""
    closed = 0

    async def source(fails: bool) -> AsyncIterator[int]:
        nonlocal closed
        try:
            yield 1
            if fails:
                raise LookupError("source")
            await asyncio.Event().wait()
        finally:
            closed += 1

    async with assert_no_leaks():
        with pytest.raises(LookupError, match="source"):
            await pipeline().execute(source(True))
        execution = pipeline().execute(source(False))
        sink = SinkProbe(execution)
        await sink.expect(1)
        await sink.cancel()
    assert closed == 2


@virtual
async def test_async_source_is_pulled_on_demand() -> None:
    """It is asked for the next element only when there is room for it."""
    probe = SourceProbe(*range(100))
    async with pipeline(2).execute(probe) as execution:
        sink = SinkProbe(execution)
        for n in range(10):
            await sink.expect(n)
            await settle()
            assert probe.asked <= n + 1 + 3 * 2 + 1


# ------------------------------------------------------------------------------------------ pushed


@virtual
async def test_pushed_on_the_loop() -> None:
    """An Observable on the loop's own thread cannot be slowed: past the limit it fails with the remedies."""
    async with assert_no_leaks():
        with pytest.raises(BufferOverflow, match=r"hot_source_limit.*subscribe_on"):
            await pipeline(hot_source_limit=10).execute(rx.from_iterable(range(1000)))
        subject: Subject[Any] = Subject()
        async with pipeline(hot_source_limit=50).execute(subject) as execution:
            sink = SinkProbe(execution)
            task = asyncio.ensure_future(sink.request(30))
            await settle()
            for n in range(30):
                subject.on_next(n)
            subject.on_completed()
            assert shown(await task) == list(range(30))
            await sink.expect_completed()
    assert not subject.observers


@virtual
async def test_interrupt_overtakes_what_waits() -> None:
    """What a hot source has queued before a closed valve is dropped by an interrupt, failures excepted."""
    subject: Subject[Any] = Subject()
    async with pipeline(1).execute(subject) as execution:
        sink = SinkProbe(execution)
        await sink.expect_nothing()
        for n in range(20):
            subject.on_next(n)
        subject.on_next(StreamElement.of(ValueError("stays")))
        subject.on_next(StreamElement.interrupt())
        subject.on_next("next")
        subject.on_completed()
        got = []
        while True:
            try:
                got += shown(await sink.request())
            except AssertionError:
                break
    at = got.index("Interrupt")
    assert len([each for each in got[:at] if isinstance(each, int)]) < 20
    assert got[at:].count("Failure") + got[:at].count("Failure") == 1
    assert got[-1] == "next"
    assert not any(isinstance(each, int) for each in got[at:])


def threaded(
    values: Any, ended: threading.Event | None = None, put: Callable[[int], None] = lambda n: None
) -> Observable[Any]:
    """An Observable that pushes from a thread of its own."""

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        stop = threading.Event()

        def work() -> None:
            for n in values:
                if stop.is_set():
                    break
                observer.on_next(n)
                put(n)
            observer.on_completed()
            if ended is not None:
                ended.set()

        threading.Thread(target=work, name="producer", daemon=True).start()
        return Disposable(stop.set)

    return Observable(subscribe)


def test_pushed_from_a_thread() -> None:
    """A producer on another thread is slowed by blocking it, and everything comes in order."""
    most: list[int] = []
    taken = 0

    async def main() -> list[Any]:
        nonlocal taken
        got = []
        execution = pipeline(4).execute(threaded(range(500), put=lambda n: most.append(n - taken)))
        async for element in execution:
            got.append(element.data)
            taken = len(got)
        return got

    with assert_no_leaks():
        assert asyncio.run(asyncio.wait_for(main(), WAIT)) == list(range(500))
    assert max(most) <= 5 * 4 + 1


def test_blocked_producer_is_released() -> None:
    """CASE 19: a producer that is blocked when the execution is cancelled is let go at once."""
    ended = threading.Event()

    async def main() -> None:
        execution = pipeline(2).execute(threaded(iter(int, 1), ended))
        async with execution:
            async for _ in execution:
                break

    with assert_no_leaks():
        asyncio.run(asyncio.wait_for(main(), WAIT))
        assert ended.wait(WAIT)


def test_subscribed_on_a_thread() -> None:
    """`subscribe_on="thread"` takes cold Observables and blocking iterables off the loop; errors and cancel work."""
    threads: set[int] = set()

    def blocking() -> Iterator[int]:
        for n in range(50):
            threads.add(threading.get_ident())
            yield n

    def raising() -> Iterator[int]:
        yield 1
        raise LookupError("on the thread")

    async def main() -> None:
        assert shown((await pipeline().execute(blocking(), subscribe_on="thread")).elements) == list(range(50))
        result = await pipeline().execute(rx.from_iterable(range(2000)), subscribe_on="thread")
        assert shown(result.elements) == list(range(2000))
        for source in (raising(), rx.concat(rx.of(1), rx.throw(LookupError("on the thread")))):
            with pytest.raises(LookupError, match="on the thread"):
                await pipeline().execute(source, subscribe_on="thread")
        execution = pipeline().execute(iter(int, 1), subscribe_on="thread")
        async with execution:
            await SinkProbe(execution).expect(0, 0)
        assert isinstance((await_error := execution._result) and await_error.error, ExecutionCancelled)

    with assert_no_leaks():
        asyncio.run(asyncio.wait_for(main(), WAIT))
    assert threading.get_ident() not in threads
    with pytest.raises(ValueError, match="subscribe_on"):
        pipeline().execute([], subscribe_on="moon")


@virtual
async def test_cancelled_source() -> None:
    """CASE 8: an async source that raises CancelledError by itself fails the execution, it does not hang it."""

    async def source() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    with pytest.raises(Exception, match="cancel"):
        async with asyncio.timeout(60):
            await pipeline().execute(source())


@virtual
async def test_bad_observable() -> None:
    """An Observable that raises in `subscribe` fails the execution with that."""

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        raise LookupError("subscribe")

    async with assert_no_leaks():
        with pytest.raises(LookupError, match="subscribe"):
            await pipeline().execute(Observable(subscribe))


def test_values() -> None:
    """Raw values of all kinds enter as their contents."""
    assert [e.content for e in pipeline().run(["a", 1, None, Data(2), Text("b")]).elements] == [
        Text("a"),
        Data(1),
        Data(None),
        Data(2),
        Text("b"),
    ]
