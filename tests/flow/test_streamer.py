"""Functions over the whole stream, and producers, as nodes of an execution."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import reactivex as rx

from rxstage import (
    GenerateStage,
    MapStage,
    PassthroughStage,
    Pipeline,
    PipelineConfig,
    Retry,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
    Text,
)
from rxstage.testing import SinkProbe, SourceProbe, assert_no_leaks, settle, virtual


def shown(elements: Any) -> list[Any]:
    return [type(e.content).__name__ if e.is_control else e.payload for e in elements]


def func(function: Callable[..., Any], **options: Any) -> StageFunc:
    return StageFunc("f", StageType.TRANSFORM, function, **options)


async def echo(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
    async for element in elements:
        yield element


@virtual
async def test_interrupt_overtakes_the_function() -> None:
    """An interrupt leaves while the function is busy; what that still yields of the old turn is muted."""
    gate = asyncio.Event()
    seen: list[str] = []

    async def slow(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            seen.append(shown([element])[0])
            if element.text == "old":
                yield "begun"
                await gate.wait()
                yield "late"
            else:
                yield element

    source = SourceProbe("old")
    async with Pipeline.of(func(slow)).execute(source) as execution:
        sink = SinkProbe(execution)
        await sink.expect("begun")
        source.push("queued", StreamElement.interrupt(), "new")
        assert shown(await sink.request()) == ["Interrupt"]
        await sink.expect_nothing()
        gate.set()
        await sink.expect("new")
        source.complete()
        await sink.expect_completed()
    assert seen == ["old", "Interrupt", "new"]


@virtual
async def test_function_that_catches_errors_of_its_source() -> None:
    """Cancelled in mid-work, its `finally` runs once, and it may not keep the execution alive."""
    ended: list[str] = []

    async def holds(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        try:
            async for element in elements:
                yield element
        finally:
            ended.append("closed")

    async with assert_no_leaks():
        execution = Pipeline.of(func(holds)).execute(rx.never())
        sink = SinkProbe(execution)
        execution.send("a")
        await sink.expect("a")
        await sink.cancel()
    assert ended == ["closed"]


@virtual
async def test_two_readers() -> None:
    """Asking for the next element twice at the same time is told instead of losing one."""

    async def both(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        one = asyncio.ensure_future(anext(elements))
        await asyncio.sleep(0)
        try:
            await anext(elements)
        finally:
            one.cancel()
        yield 1

    with pytest.raises(StageError, match="twice at the same time"):
        await Pipeline.of(func(both)).execute(rx.never())


@virtual
async def test_read_in_a_task_of_its_own() -> None:
    """A function may read in another task than it yields in."""

    async def buffered(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        queue: asyncio.Queue[StreamElement | None] = asyncio.Queue()

        async def read() -> None:
            async for element in elements:
                await queue.put(element)
            await queue.put(None)

        task = asyncio.create_task(read())
        while (element := await queue.get()) is not None:
            yield element
        await task

    async with assert_no_leaks():
        result = await Pipeline.of(func(buffered)).execute(["a", StreamElement.end_of_turn(), "b"])
    assert [each for each in shown(result.elements) if each != "EndOfTurn"] == ["a", "b"]
    assert shown(result.elements).count("EndOfTurn") == 1


@virtual
async def test_backpressure() -> None:
    """CASE 14: it is read no faster than its output is taken."""
    source = SourceProbe(*(str(n) for n in range(1000)))
    async with Pipeline.of(func(echo), config=PipelineConfig(buffer_size=4)).execute(source) as execution:
        sink = SinkProbe(execution)
        for n in range(20):
            await sink.expect(str(n))
            await settle()
            assert source.pulled <= n + 1 + 3 * 4
        assert execution.metrics().stages["f"].stalls > 0


@virtual
async def test_a_function_that_never_waits() -> None:
    """One that only yields lets the loop do other things, and can be cancelled."""

    async def forever(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        while True:
            yield "x"

    pipeline = Pipeline.of(func(forever), MapStage("drop", lambda e: e))
    execution = pipeline.execute(())
    taken = 0
    async with execution:
        async for _ in execution:
            taken += 1
            if taken == 500:
                break
    assert execution.state == "cancelled"


@virtual
async def test_coroutine_that_gives_an_iterator() -> None:
    """An `async def` that returns an async iterator will do as well."""

    async def opened(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        return echo(elements)

    assert (await Pipeline.of(func(opened)).execute(list("ab"))).text == "ab"


@virtual
async def test_errors_name_the_stage() -> None:
    """CASE 22: an error before, between and behind the elements is this stage's; one from behind is not."""

    def raising_at_once(elements: AsyncIterator[StreamElement]) -> Any:
        raise ValueError("at once")

    async def raising_first(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        raise ValueError("first")
        yield 1

    async def raising_last(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            yield element
        raise ValueError("last")

    async def cancelled(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        raise asyncio.CancelledError
        yield 1

    for function in (raising_at_once, raising_first, raising_last, cancelled):
        async with assert_no_leaks():
            with pytest.raises(StageError) as caught:
                await Pipeline.of(func(function)).execute(["a"])
        assert caught.value.stage == "f"
        assert type(caught.value.__cause__) in (ValueError, asyncio.CancelledError)
    with pytest.raises(StageError) as caught:
        await Pipeline.of(func(echo), MapStage("behind", lambda e: 1 / 0)).execute(["a"])
    assert caught.value.stage == "behind"


@virtual
async def test_control_handed_over_when_it_raises() -> None:
    """A control that a restarted function was handed is not lost."""
    starts = 0

    async def breaks(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        nonlocal starts
        starts += 1
        async for element in elements:
            if element.is_control and starts == 1:
                raise ValueError("on a control")
            yield element

    pipeline = Pipeline.of(func(breaks, on_error=Retry(attempts=2)))
    result = await pipeline.execute(["a", StreamElement.end_of_turn(), "b"])
    assert shown(result.elements) == ["a", "EndOfTurn", "b"]


@virtual
async def test_ended_before_its_input() -> None:
    """What comes behind the end of the function is dropped, and does not keep the source waiting for ever."""

    async def first(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            yield element
            return

    pipeline = Pipeline.of(func(first), config=PipelineConfig(buffer_size=2))
    async with assert_no_leaks():
        result = await pipeline.execute([str(n) for n in range(100)])
    assert result.text == "0"


# ------------------------------------------------------------------------------------------ producers


@virtual
async def test_producer_and_input() -> None:
    """A producer and what passes by it share one stream, each in its order; the end waits for both."""

    async def ticks() -> AsyncIterator[str]:
        for n in range(3):
            await asyncio.sleep(10)
            yield f"t{n}"

    source = SourceProbe()
    async with Pipeline.of(GenerateStage("g", ticks)).execute(source) as execution:
        sink = SinkProbe(execution)
        await sink.expect("t0")
        source.push("a", StreamElement.end_of_turn())
        assert shown(await sink.request(2)) == ["a", "EndOfTurn"]
        source.complete()
        await sink.expect("t1", "t2")
        await sink.expect_completed()


@virtual
async def test_drained_producer() -> None:
    """A drain stops what produces for ever, and lets out what is in flight."""
    closed: list[int] = []

    async def forever() -> AsyncIterator[int]:
        n = 0
        try:
            while True:
                await asyncio.sleep(1)
                yield n
                n += 1
        finally:
            closed.append(n)

    async with assert_no_leaks():
        execution = Pipeline.of(GenerateStage("g", forever), PassthroughStage("p")).execute(rx.never())
        sink = SinkProbe(execution)
        await sink.expect(0, 1)
        await execution.drain(5.0)
        await sink.expect_completed()
    assert len(closed) == 1


@virtual
async def test_producer_errors() -> None:
    """CASE 22: a producer that raises, is cancelled by itself, or gives no iterator fails under its name."""

    def raising() -> Any:
        raise ValueError("x")

    async def cancelled() -> AsyncIterator[int]:
        raise asyncio.CancelledError
        yield 1

    for function in (raising, cancelled, lambda: 5):
        async with assert_no_leaks():
            with pytest.raises(StageError) as caught:
                await Pipeline.of(GenerateStage("g", function)).execute()
        assert caught.value.stage == "g"


@virtual
async def test_text_only() -> None:
    """What a producer gives is stamped with number and time, raw values and elements alike."""

    async def produce() -> AsyncIterator[Any]:
        await asyncio.sleep(7)
        yield "raw"
        yield StreamElement.of("element", metadata={"k": 1}, source="mine")

    result = await Pipeline.of(GenerateStage("g", produce), MapStage("u", str.upper, on=Text)).execute()
    assert [(e.text, e.sequence, e.timestamp) for e in result.elements] == [("RAW", 1, 7.0), ("ELEMENT", 2, 7.0)]
    assert result.elements[1].metadata == {"k": 1}
