"""A stall is an error that names who holds what, never a hang."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import reactivex as rx
from forms import Observer
from reactivex import operators as ops

from rxstage import (
    MapStage,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineConfig,
    Stage,
    StageFunc,
    StageType,
    StallError,
    StreamElement,
)
from rxstage.testing import assert_no_leaks, virtual


async def slow(element: StreamElement) -> StreamElement:
    await asyncio.sleep(0.1)
    return element


async def each(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    async for element in elements:
        yield element


def swallowing(other: Stage) -> Pipeline:
    """A diamond of which one branch swallows every `EndOfTurn`."""
    swallow = OperatorStage("swallow", ops.filter(lambda e: not e.is_control), sees_controls=True)
    return (
        PipelineBuilder(PipelineConfig(buffer_size=4))
        .add(PassthroughStage("in"))
        .branch("in", swallow, other)
        .merge("swallow", other.name, into=PassthroughStage("out"))
        .build()
    )


def endless() -> Iterator[Any]:
    """One turn, then content for ever."""
    yield "a"
    yield StreamElement.end_of_turn()
    while True:
        yield "x"


async def endless_async() -> AsyncIterator[Any]:
    """The same, waiting between its elements."""
    for item in endless():
        await asyncio.sleep(0.01)
        yield item


OTHERS: dict[str, Any] = {
    "async": lambda: MapStage("other", slow),
    "concurrent": lambda: MapStage("other", slow, concurrency=2),
    "operator": lambda: OperatorStage("other", ops.map(lambda e: e)),
    "plain": lambda: PassthroughStage("other"),
    "stream": lambda: StageFunc("other", StageType.TRANSFORM, each),
}


@pytest.mark.parametrize("source", [endless, endless_async])
@pytest.mark.parametrize("other", OTHERS)
@virtual
async def test_a_swallowed_end_of_turn(other: str, source: Any) -> None:
    """One branch swallows the `EndOfTurn`, the other goes on for ever: the error names the fan-in and the branch."""
    async with assert_no_leaks():
        with pytest.raises(StallError) as caught:
            async for _ in swallowing(OTHERS[other]()).execute(source()):
                pass
    assert asyncio.get_running_loop().time() < 60.0
    message = str(caught.value)
    assert "fan-in before 'out'" in message
    assert "waiting for EndOfTurn" in message
    assert "from swallow" in message
    assert any("fan-in" in holder for holder in caught.value.holders)


@virtual
async def test_a_stall_in_operator_form() -> None:
    """In operator form the observer hears of it."""
    observer = Observer()
    async with assert_no_leaks():
        swallowing(MapStage("other", slow)).execute(endless()).output.subscribe(observer)
        error = (await observer.wait()).error
    assert isinstance(error, StallError)


def test_a_stall_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` raises it."""
    monkeypatch.setattr("rxstage.running._SUSPECTED", 0.01)
    with assert_no_leaks(), pytest.raises(StallError, match="from swallow"):
        swallowing(MapStage("other", each_turn)).run(endless())


async def each_turn(element: StreamElement) -> StreamElement:
    await asyncio.sleep(0)
    return element


def test_a_stall_inline() -> None:
    """Inline there is no time in which it could resolve: past `hot_source_limit` it is an error at once."""
    pipeline = swallowing(OperatorStage("other", ops.map(lambda e: e)))
    observer = Observer()
    rx.from_iterable(endless()).pipe(pipeline).subscribe(observer)
    assert isinstance(observer.outcome().error, StallError)


@virtual
async def test_slow_is_no_stall() -> None:
    """A branch that is only slow, a source that is silent and a consumer that takes its time are no stalls."""

    async def very_slow(element: StreamElement) -> StreamElement:
        await asyncio.sleep(500.0)
        return element

    pipeline = (
        PipelineBuilder(PipelineConfig(buffer_size=2))
        .add(PassthroughStage("in"))
        .branch("in", MapStage("slow", very_slow), PassthroughStage("fast"))
        .merge("slow", "fast", into=PassthroughStage("out"))
        .build()
    )

    async def source() -> AsyncIterator[Any]:
        for _ in range(3):
            yield "a"
            yield StreamElement.end_of_turn()
            yield "b"
            await asyncio.sleep(5000.0)

    async with assert_no_leaks():
        count = 0
        async for _ in pipeline.execute(source()):
            count += 1
            await asyncio.sleep(1000.0)
    assert count == 3 * 5


@virtual
async def test_a_later_control_frees_an_earlier_one() -> None:
    """A branch that brings a later control has passed the earlier ones: no stall where it drops only some."""
    count = 0

    def every_second(element: StreamElement) -> bool:
        nonlocal count
        if not element.is_control:
            return True
        count += 1
        return count % 2 == 0

    pipeline = (
        PipelineBuilder(PipelineConfig(buffer_size=4))
        .add(PassthroughStage("in"))
        .branch("in", OperatorStage("some", ops.filter(every_second), sees_controls=True), MapStage("all", slow))
        .merge("some", "all", into=PassthroughStage("out"))
        .build()
    )
    items = [item for _ in range(6) for item in ("x", StreamElement.end_of_turn())]
    async with assert_no_leaks():
        result = await pipeline.execute(items)
    assert sum(element.is_control for element in result.elements) == 6
