"""Probes: a source pushed by hand and a consumer that takes on demand."""

from __future__ import annotations

import asyncio

import pytest
import reactivex as rx

from rxstage import (
    EndOfTurn,
    ExecutionCancelled,
    MapStage,
    PassthroughStage,
    Pipeline,
    PipelineConfig,
    StageError,
    StreamElement,
    Text,
)
from rxstage.testing import SinkProbe, SourceProbe, settle, virtual


async def upper(text: str) -> str:
    return text.upper()


def slow_pipeline(size: int = 1) -> Pipeline:
    return Pipeline.of(MapStage("upper", upper, on=Text), config=PipelineConfig(buffer_size=size))


@virtual
async def test_demand_reaches_the_source() -> None:
    """Without demand a source is pulled only as far as there is room; each element taken makes room for one."""
    source = SourceProbe(*"abcdefgh")
    async with slow_pipeline().execute(source) as execution:
        sink = SinkProbe(execution)
        await sink.expect("A")
        await settle()
        held = source.pulled
        assert held < 6
        for number, letter in enumerate("BCD"):
            await sink.expect(letter)
            await settle()
            assert source.pulled == held + number + 1
        source.complete()
        await sink.expect(*"EFGH")
        await sink.expect_completed()
    assert source.pulled == 8
    assert source.pending == 0
    assert source.closed == 0
    assert source.opened == 1


@virtual
async def test_push_while_wanted() -> None:
    """A consumer that waits gets what is pushed at once."""
    source = SourceProbe()
    async with slow_pipeline(4).execute(source) as execution:
        sink = SinkProbe(execution)
        await sink.expect_nothing(30.0)
        assert source.wanted
        source.push("a", StreamElement.end_of_turn())
        await sink.expect("A", EndOfTurn)
        assert source.asked == 3
        source.fail(ValueError("of the source"))
        error = await sink.expect_error(ValueError)
        assert str(error) == "of the source"


@virtual
async def test_close_is_counted() -> None:
    """An execution that is cancelled closes its source, once."""
    source = SourceProbe("a")
    execution = slow_pipeline().execute(source)
    sink = SinkProbe(execution)
    await sink.expect("A")
    await sink.cancel()
    assert source.closed == 1
    assert execution.done
    await sink.expect_error(ExecutionCancelled)


@virtual
async def test_pushed() -> None:
    """As an Observable it gives what is pushed at once, what waited first, and its end to late subscribers."""
    source = SourceProbe("a")
    seen: list[object] = []
    first = source.observable.subscribe(seen.append, on_completed=lambda: seen.append("end"))
    source.push("b")
    first.dispose()
    assert source.closed == 1
    source.push("c")
    source.complete()
    source.complete()
    assert seen == ["a", "b"]
    source.observable.subscribe(seen.append, on_completed=lambda: seen.append("end"))
    assert seen == ["a", "b", "c", "end"]
    assert source.pulled == 3
    assert source.opened == 2
    with pytest.raises(RuntimeError, match="ended"):
        source.push("d")


@virtual
async def test_pushed_error() -> None:
    """An error goes to the observers that are there."""
    source = SourceProbe()
    errors: list[Exception] = []
    source.observable.subscribe(on_error=errors.append)
    error = ValueError("x")
    source.fail(error)
    assert errors == [error]


@virtual
async def test_what_a_sink_probe_expects() -> None:
    """Each expectation fails with what came instead."""

    def sink(*values: object, within: float = 5.0) -> SinkProbe:
        pipeline = Pipeline.of(PassthroughStage("p"))
        return SinkProbe(pipeline.execute(list(values)), within=within)

    await sink("a", 1, Text("c")).expect("a", 1, Text("c"))
    with pytest.raises(AssertionError, match="expected 'b' as number 0, got 'a'"):
        await sink("a").expect("b")
    with pytest.raises(AssertionError, match="got 0"):
        await sink(0).expect(False)
    with pytest.raises(AssertionError, match="completed, 1 of 2 missing"):
        await sink("a").request(2)
    with pytest.raises(AssertionError, match="expected the end, got 'a'"):
        await sink("a").expect_completed()
    with pytest.raises(AssertionError, match="expected nothing, got 'a'"):
        await sink("a").expect_nothing()
    with pytest.raises(AssertionError, match="it completed"):
        await sink().expect_nothing()
    with pytest.raises(AssertionError, match="it completed, where"):
        await sink().expect_error(ValueError)
    with pytest.raises(AssertionError, match="expected ValueError, got 'a'"):
        await sink("a").expect_error(ValueError)


@virtual
async def test_failures_of_what_is_probed() -> None:
    """An error that was not expected is the cause of the assertion."""
    bad = Pipeline.of(MapStage("bad", lambda text: 1 / 0, on=Text))
    with pytest.raises(AssertionError, match="StageError") as caught:
        await SinkProbe(bad.execute(["a"])).expect_completed()
    assert isinstance(caught.value.__cause__, StageError)
    with pytest.raises(AssertionError, match="should have with ValueError"):
        await SinkProbe(bad.execute(["a"])).expect_error(ValueError)
    with pytest.raises(AssertionError, match="it failed with"):
        await SinkProbe(bad.execute(["a"])).expect_nothing()
    assert (await SinkProbe(bad.execute(["a"])).expect_error(StageError)).stage == "bad"


@virtual
async def test_nothing_in_time() -> None:
    """What does not come in time is told, on the loop's clock."""
    loop = asyncio.get_running_loop()
    execution = slow_pipeline().execute(rx.never())
    sink = SinkProbe(execution, within=120.0)
    with pytest.raises(AssertionError, match="within 120 s"):
        await sink.request()
    assert loop.time() == pytest.approx(120.0)
    execution.cancel()
    await execution.closed()
