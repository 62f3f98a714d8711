"""Time limits, in virtual time; and a plain function that keeps the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import reactivex as rx
from forms import WAIT, Observer, texts

from rxstage import (
    ExecutionTimeout,
    IdleTimeout,
    MapStage,
    PassthroughStage,
    Pipeline,
    PipelineConfig,
    PipelineTimeout,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
)
from rxstage.testing import assert_no_leaks, virtual


async def never(element: StreamElement) -> StreamElement:
    await asyncio.Event().wait()
    return element


async def beat(seconds: float, count: int) -> AsyncIterator[str]:
    for number in range(count):
        await asyncio.sleep(seconds)
        yield str(number)


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_execution_timeout() -> None:
    """`execution_timeout` ends an execution that lives too long, however busy; what came out is in the result."""
    pipeline = Pipeline.of(PassthroughStage("p"), config=PipelineConfig(execution_timeout=10.0))
    async with assert_no_leaks():
        result = await pipeline.execute(beat(3.0, 100), raise_on_error=False)
    assert isinstance(result.error, ExecutionTimeout)
    assert isinstance(result.error, PipelineTimeout)
    assert isinstance(result.error, TimeoutError)
    assert "10.0 s" in str(result.error)
    assert texts(result.elements) == ["0", "1", "2"]
    assert now() == pytest.approx(10.0)


@virtual
async def test_execution_timeout_names_the_holder() -> None:
    """The error says who held what."""
    pipeline = Pipeline.of(MapStage("stuck", never), config=PipelineConfig(execution_timeout=10.0))
    with pytest.raises(ExecutionTimeout, match=r"stage 'stuck': .*1 in its function"):
        await pipeline.execute(["a", "b"])


@virtual
async def test_a_quick_execution_leaves_no_timer() -> None:
    """One that ends in time is not touched, and leaves no timer behind."""
    config = PipelineConfig(execution_timeout=10.0, idle_timeout=5.0)
    async with assert_no_leaks():
        assert (await Pipeline.of(PassthroughStage("p"), config=config).execute(["a"])).text == "a"
    loop: Any = asyncio.get_running_loop()
    assert [handle for handle in loop._scheduled if not handle.cancelled()] == []


@virtual
async def test_idle_timeout() -> None:
    """`idle_timeout` ends an execution in which nothing moves; one that moves now and then lives on."""
    pipeline = Pipeline.of(PassthroughStage("p"), config=PipelineConfig(idle_timeout=5.0))
    async with assert_no_leaks():
        assert len((await pipeline.execute(beat(4.9, 10))).elements) == 10
        begin = now()
        with pytest.raises(IdleTimeout, match=r"nothing moved for 5\.0 s"):
            await pipeline.execute(beat(7.0, 10))
        assert 5.0 <= now() - begin + 1e-6 <= 5.7


@virtual
async def test_idle_timeout_counts_from_the_last_movement() -> None:
    """It counts from when something last moved, with a tolerance of an eighth."""
    pipeline = Pipeline.of(PassthroughStage("p"), config=PipelineConfig(idle_timeout=8.0))

    async def source() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(6.5)
        yield "b"
        await asyncio.sleep(1000.0)

    with pytest.raises(IdleTimeout):
        await pipeline.execute(source())
    assert 14.5 <= now() <= 15.6


@pytest.mark.parametrize("shape", ["async", "stream"])
@virtual
async def test_idle_timeout_of_a_stuck_stage(shape: str) -> None:
    """A stage that is stuck is named."""

    async def stuck(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for element in elements:
            await asyncio.Event().wait()
            yield element

    stage = MapStage("s", never) if shape == "async" else StageFunc("s", StageType.TRANSFORM, stuck)
    with pytest.raises(IdleTimeout, match="'s'"):
        await Pipeline.of(stage, config=PipelineConfig(idle_timeout=5.0)).execute(["a"])


@pytest.mark.parametrize("limit", ["execution_timeout", "idle_timeout"])
@virtual
async def test_operator_form_obeys(limit: str) -> None:
    """The limits hold in operator form, too, for a graph of plain functions as well."""
    pipeline = Pipeline.of(PassthroughStage("p"), config=PipelineConfig().with_(**{limit: 5.0}))
    observer = Observer()
    async with assert_no_leaks():
        rx.never().pipe(pipeline).subscribe(observer)
        error = (await observer.wait()).error
    assert isinstance(error, PipelineTimeout)


def test_limits_without_a_loop() -> None:
    """The limits hold where the library brings the loop."""
    pipeline = Pipeline.of(PassthroughStage("p"), config=PipelineConfig(execution_timeout=0.05))
    observer = Observer()
    with assert_no_leaks():
        rx.never().pipe(pipeline).subscribe(observer)
        assert observer.ended.wait(WAIT)
        with pytest.raises(ExecutionTimeout):
            pipeline.run(rx.never())
    assert isinstance(observer.outcome().error, ExecutionTimeout)


@pytest.mark.parametrize("shape", ["plain", "async"])
def test_timeout_of_run(shape: str) -> None:
    """`run(timeout=...)` ends a run that takes longer."""
    stage = MapStage("s", never) if shape == "async" else PassthroughStage("s")
    source: Any = ["a"] if shape == "async" else rx.never()
    with assert_no_leaks():
        with pytest.raises(ExecutionTimeout, match=r"0\.05 s"):
            Pipeline.of(stage).run(source, timeout=0.05)
        result = Pipeline.of(stage).run(source, timeout=0.05, raise_on_error=False)
        assert isinstance(result.error, ExecutionTimeout)
        with pytest.raises(ValueError, match="above 0 s"):
            Pipeline.of(stage).run(source, timeout=0)


@pytest.mark.parametrize("kind", ["stage", "source"])
def test_a_plain_function_that_keeps_the_loop(kind: str) -> None:
    """A plain function that does not return keeps the loop: `run(timeout=...)` comes back anyway, and names it."""
    gate = threading.Event()
    calls: list[str | None] = []

    def stuck(element: StreamElement) -> StreamElement:
        calls.append(element.text)
        gate.wait(WAIT)
        return element

    def source() -> Any:
        yield "a"
        if kind == "source":
            gate.wait(WAIT)
        yield "b"

    stage = MapStage("stuck", stuck) if kind == "stage" else PassthroughStage("p")
    pipeline = Pipeline.of(stage, config=PipelineConfig(shutdown_timeout=0.05))
    with assert_no_leaks():
        try:
            with pytest.raises(ExecutionTimeout, match="does not answer"):
                pipeline.run(source(), timeout=0.05)
            assert pipeline.executions == ()
        finally:
            gate.set()
    assert calls in ([], ["a"])


@virtual
async def test_timeout_of_a_stage() -> None:
    """`timeout=` of a stage is per element, and names the stage."""

    async def work(element: StreamElement) -> StreamElement:
        await asyncio.sleep(1000.0 if element.text == "b" else 1.0)
        return element

    pipeline = Pipeline.of(MapStage("s", work, timeout=5.0))
    async with assert_no_leaks():
        result = await pipeline.execute(["a", "a", "a", "b", "a"], raise_on_error=False)
    assert isinstance(result.error, StageError)
    assert isinstance(result.error.__cause__, TimeoutError)
    assert len(result.elements) == 3
    assert now() == pytest.approx(8.0)


@virtual
async def test_timeout_of_a_stage_with_a_policy() -> None:
    """With `on_error="emit"` the element that took too long becomes a `Failure`, and the others go on."""

    async def work(element: StreamElement) -> StreamElement:
        await asyncio.sleep(1000.0 if element.text == "b" else 1.0)
        return element

    pipeline = Pipeline.of(MapStage("s", work, timeout=5.0, on_error="emit"))
    async with assert_no_leaks():
        result = await pipeline.execute(["a", "b", "c"])
    assert texts(result.elements) == ["a", "Failure", "c"]
    assert isinstance(result.failures[0].error, TimeoutError)


def test_limits_must_be_positive() -> None:
    """Limits of 0 or less are refused."""
    for name in ("execution_timeout", "idle_timeout", "shutdown_timeout"):
        with pytest.raises(ValueError, match=name):
            PipelineConfig().with_(**{name: 0})
