"""Workers: one element at a time or several, with threads, limits, and interrupts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import reactivex as rx

from rxstage import (
    FilterStage,
    FlatMapStage,
    MapStage,
    Pipeline,
    PipelineConfig,
    SinkStage,
    StageError,
    StreamElement,
    Text,
)
from rxstage.testing import SinkProbe, SourceProbe, assert_no_leaks, settle, virtual


def shown(elements: Any) -> list[Any]:
    return [type(e.content).__name__ if e.is_control else e.payload for e in elements]


async def slow(text: str) -> str:
    await asyncio.sleep(1)
    return text.upper()


async def letters(text: str) -> AsyncIterator[str]:
    for letter in text:
        await asyncio.sleep(1)
        yield letter


SEQUENTIAL: dict[str, dict[str, Any]] = {
    "lean": {},
    "with a policy": {"on_error": "emit"},
    "with a limit": {"timeout": 50.0},
}
CONCURRENT: dict[str, dict[str, Any]] = {
    "concurrent": {"concurrency": 3},
    "unordered": {"concurrency": 3, "ordered": False},
    "interruptible": {"interruptible": True},
    "both": {"concurrency": 3, "interruptible": True},
}
ALL = {**SEQUENTIAL, **CONCURRENT}


@virtual
async def test_everything_in_order() -> None:
    """Every kind of worker gives everything, controls in their place, then the end, and leaves nothing."""
    source = ["a", "b", StreamElement.end_of_turn(), 5, "c", StreamElement.of(ValueError("x")), "d"]
    for options in ALL.values():
        for metrics in (False, True):
            config = PipelineConfig(buffer_size=2, metrics=metrics)
            async with assert_no_leaks():
                result = await Pipeline.of(MapStage("m", slow, on=Text, **options), config=config).execute(source)
            got = shown(result.elements)
            assert sorted(got[:2]) == ["A", "B"], options
            assert got[2] == "EndOfTurn"
            assert {*got[3:5]} == {5, "C"}
            assert got[5:] == ["Failure", "D"]
            meter = result.metrics.stages["m"]
            assert (meter.received, meter.emitted, meter.errors) == (5, 5, 0)
            assert (meter.p50 is not None) == metrics


@virtual
async def test_kinds() -> None:
    """Filters, 1:N stages and sinks in every kind of worker."""

    async def no_b(text: str) -> bool:
        await asyncio.sleep(1)
        return text != "b"

    seen: list[str] = []

    async def save(text: str) -> None:
        await asyncio.sleep(1)
        seen.append(text)

    for options in ALL.values():
        result = await Pipeline.of(FilterStage("f", no_b, on=Text, **options)).execute(["a", "b", 1])
        assert sorted(map(str, shown(result.elements))) == ["1", "a"]
        result = await Pipeline.of(FlatMapStage("f", letters, on=Text, **options)).execute(["ab", "cd", 1])
        got = shown(result.elements)
        assert sorted(map(str, got)) == ["1", "a", "b", "c", "d"]
        assert got.index("a") < got.index("b")
        seen.clear()
        await Pipeline.of(SinkStage("s", save, on=Text, **options)).execute(["a", "b", 1])
        assert sorted(seen) == ["a", "b"]


@virtual
async def test_errors() -> None:
    """CASE 2: an error ends every kind of worker with its stage and element; what was before it has left."""

    async def breaks(text: str) -> str:
        await asyncio.sleep(1)
        if text == "bad":
            raise ValueError(text)
        return text

    async def breaks_inside(text: str) -> AsyncIterator[str]:
        yield text
        await asyncio.sleep(1)
        if text == "bad":
            raise ValueError(text)

    for name, options in ALL.items():
        if options.get("on_error"):
            continue
        for kind, function in ((MapStage, breaks), (FlatMapStage, breaks_inside)):
            async with assert_no_leaks():
                pipeline = Pipeline.of(kind("m", function, on=Text, **options))
                result = await pipeline.execute(["a", "bad", "c"], raise_on_error=False)
            assert isinstance(result.error, StageError), name
            assert (result.error.stage, result.error.element.text) == ("m", "bad")
            assert isinstance(result.error.__cause__, ValueError)
            if name == "lean":
                assert shown(result.elements)[:1] == ["a"]


@virtual
async def test_cancelled_by_itself() -> None:
    """CASE 8: CancelledError that nobody asked for is an error of the stage, in every kind of worker."""

    async def cancels(text: str) -> str:
        raise asyncio.CancelledError

    for name, options in ALL.items():
        async with assert_no_leaks():
            with pytest.raises(Exception, match=r"cancel|Cancel") as caught:
                async with asyncio.timeout(1000):
                    await Pipeline.of(MapStage("m", cancels, on=Text, **options)).execute(["a"])
        assert not isinstance(caught.value, TimeoutError), name


@virtual
async def test_error_behind() -> None:
    """STYLE 4: what raises behind a worker is not its error."""
    for options in ALL.values():
        for metrics in (False, True):
            bad = MapStage("bad", lambda text: 1 / 0, on=Text)
            pipeline = Pipeline.of(MapStage("m", slow, on=Text, **options), bad, config=PipelineConfig(metrics=metrics))
            async with assert_no_leaks():
                with pytest.raises(StageError) as caught:
                    await pipeline.execute(["a", "b"])
            assert caught.value.stage == "bad"


@virtual
async def test_backpressure() -> None:
    """CASE 14: a consumer that takes one at a time lets each worker hold what its buffer and window may."""
    for options in ALL.values():
        source = SourceProbe(*(str(n) for n in range(200)))
        pipeline = Pipeline.of(MapStage("m", slow, on=Text, **options), config=PipelineConfig(buffer_size=3))
        async with pipeline.execute(source) as execution:
            sink = SinkProbe(execution)
            for n in range(10):
                await sink.request()
                await asyncio.sleep(20)
                assert source.pulled <= n + 1 + 2 * 3 + 3 + 2, options


@virtual
async def test_interrupt() -> None:
    """An interrupt acts at once behind a full buffer and drops the old turn; the next one is heard."""
    for name, options in ALL.items():
        for stage in (MapStage("m", slow, on=Text, **options), FlatMapStage("m", letters, on=Text, **options)):
            execution = Pipeline.of(stage, config=PipelineConfig(buffer_size=64)).execute(rx.never())
            async with execution:
                elements = aiter(execution)
                for n in range(32):
                    execution.send(f"{n:02}")
                execution.send(StreamElement.end_of_turn())
                await asyncio.sleep(0.5)
                begin = asyncio.get_running_loop().time()
                execution.interrupt()
                got: list[Any] = []
                while not got or got[-1] != "Interrupt":
                    got += shown([await anext(elements)])
                assert asyncio.get_running_loop().time() == begin, name
                execution.send("n")
                execution.send(StreamElement.end_of_turn())
                assert shown([await anext(elements), await anext(elements)]) in (
                    ["N", "EndOfTurn"],
                    ["n", "EndOfTurn"],
                ), name


@virtual
async def test_sync_generator_with_a_timeout() -> None:
    """A plain generator in a timed stage is run to its end on a thread; its items are collected."""

    def pair(text: str) -> Any:
        yield text
        yield text

    result = await Pipeline.of(FlatMapStage("f", pair, on=Text, timeout=10.0)).execute(["a", "b"])
    assert result.text == "aabb"


@virtual
async def test_awaitables_that_are_no_coroutines() -> None:
    """A function marked as async may give any awaitable; a plain one that gives a coroutine is told to be async."""

    async def future(text: str) -> str:
        loop = asyncio.get_running_loop()
        promise = loop.create_future()
        loop.call_later(5, promise.set_result, text.upper())
        result: str = await promise
        return result

    assert (await Pipeline.of(MapStage("m", future, on=Text)).execute(["a"])).text == "A"


@virtual
async def test_generator_is_closed() -> None:
    """An async generator that is left half-way, by cancel or interrupt, is closed."""
    closed: list[str] = []

    async def forever(text: str) -> AsyncIterator[str]:
        try:
            while True:
                yield text
                await asyncio.sleep(1)
        finally:
            closed.append(text)

    for options in ({}, {"concurrency": 2}, {"interruptible": True}):
        closed.clear()
        async with assert_no_leaks():
            pipeline = Pipeline.of(FlatMapStage("f", forever, on=Text, **options))
            async with pipeline.execute(rx.never()) as execution:
                elements = aiter(execution)
                execution.send("a")
                assert shown([await anext(elements)]) == ["a"]
                execution.interrupt()
                while shown([await anext(elements)]) != ["Interrupt"]:
                    pass
                execution.send("b")
                assert shown([await anext(elements)]) == ["b"]
                await settle()
                assert closed == ["a"]
        assert sorted(closed) == ["a", "b"]


@virtual
async def test_holding() -> None:
    """What a worker holds can be told in words."""
    gate = asyncio.Event()

    async def waits(text: str) -> str:
        await gate.wait()
        return text

    for options in ({}, {"concurrency": 2}):
        gate.clear()
        pipeline = Pipeline.of(MapStage("m", waits, on=Text, **options), config=PipelineConfig(buffer_size=8))  # type: ignore[arg-type]
        async with pipeline.execute(list("abcde")) as execution:
            sink = SinkProbe(execution)
            await sink.expect_nothing()
            assert execution.run is not None
            (words,) = execution.run.scope.holding()
            assert "queued" in words
            assert "in its function" in words
            gate.set()
            await sink.expect(*"abcde")
            await sink.expect_completed()
