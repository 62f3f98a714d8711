"""Memory is bounded by what the buffers may hold, and depth of graphs is not depth of the stack."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from forms import LOOP_FORMS, texts
from reactivex import operators as ops

from rxstage import (
    Data,
    FilterStage,
    MapStage,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineConfig,
    SinkStage,
    Stage,
    StageFunc,
    StageType,
    StreamElement,
)
from rxstage.testing import virtual

MILLION = 1_000_000


class Payload:
    """Something that a weak reference can be made to."""


async def same(element: StreamElement) -> StreamElement:
    return element


async def each(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    async for element in elements:
        yield element


@virtual
async def test_14_one_million_elements() -> None:
    """CASE 14: one million elements with a consumer that is slower than the source: depths and memory stay flat."""
    config = PipelineConfig(buffer_size=16)
    pipeline = Pipeline.of(PassthroughStage("p"), MapStage("a", same), config=config)
    source = (element for element in _repeated(StreamElement.of("x"), MILLION))
    execution = pipeline.execute(source)
    count = 0
    early = late = 0
    async for _ in execution:
        count += 1
        if not count % 5_000:
            await asyncio.sleep(0.01)
        if count == 20_000:
            tracemalloc.start()
        elif count == 40_000:
            early = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        elif count == MILLION - 20_000:
            tracemalloc.start()
        elif count == MILLION:
            late = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
    assert count == MILLION
    assert late < early + 100_000
    for edge in execution.statistics().edges.values():
        assert edge.peak <= 16


def _repeated(element: StreamElement, count: int) -> Iterator[StreamElement]:
    for _ in range(count):
        yield element


@pytest.mark.parametrize("shape", ["plain", "async", "concurrent", "stream", "operator", "diamond"])
@virtual
async def test_only_what_is_bounded_is_alive(shape: str) -> None:
    """At no time are more payloads alive than the buffers may hold, however many pass."""
    alive: weakref.WeakSet[Payload] = weakref.WeakSet()
    most = 0

    def source() -> Iterator[Any]:
        nonlocal most
        for _ in range(3000):
            payload = Payload()
            alive.add(payload)
            most = max(most, len(alive))
            yield Data(payload)

    config = PipelineConfig(buffer_size=8)
    builder = PipelineBuilder(config)
    if shape == "diamond":
        builder.add(PassthroughStage("in")).branch("in", MapStage("a", same), PassthroughStage("b"))
        builder.merge("a", "b", into=PassthroughStage("out"))
    else:
        stages: dict[str, Stage] = {
            "plain": PassthroughStage("s"),
            "async": MapStage("s", same),
            "concurrent": MapStage("s", same, concurrency=4),
            "stream": StageFunc("s", StageType.TRANSFORM, each),
            "operator": OperatorStage("s", ops.map(lambda e: e)),
        }
        builder.chain(stages[shape])
    count = 0
    elements = aiter(builder.build().execute(source()))
    while await anext(elements, None) is not None:
        count += 1
        if not count % 10:
            await asyncio.sleep(0.01)
    assert count == (6000 if shape == "diamond" else 3000)
    assert most <= 8 * 3 + 8
    gc.collect()
    assert len(alive) == 0


@virtual
async def test_an_execution_that_is_kept_keeps_no_elements() -> None:
    """Who keeps a finished execution keeps its numbers, not its elements."""
    refs: list[weakref.ref[Payload]] = []

    def source() -> Iterator[Any]:
        for _ in range(50):
            payload = Payload()
            refs.append(weakref.ref(payload))
            yield Data(payload)

    pipeline = Pipeline.of(
        MapStage("a", same, concurrency=3), StageFunc("f", StageType.TRANSFORM, each), SinkStage("s", lambda e: None)
    )
    execution = pipeline.execute(source())
    result = await execution
    gc.collect()
    assert [ref() for ref in refs if ref() is not None] == []
    assert execution.metrics().stages["a"].received == 50
    assert execution.statistics().edges["<input>", "a"].peak > 0
    assert result.metrics.stages["s"].received == 50


@virtual
async def test_finished_executions_are_forgotten() -> None:
    """A pipeline keeps nothing of the executions that have ended."""
    pipeline = Pipeline.of(MapStage("a", same))
    refs = []
    for _ in range(20):
        execution = pipeline.execute(["x"])
        refs.append(weakref.ref(execution))
        await execution
        del execution
    gc.collect()
    assert [ref() for ref in refs if ref() is not None] == []


@pytest.mark.parametrize("form", ["await", "operator"])
@pytest.mark.parametrize("kind", ["operators", "big operators", "diamonds", "async diamonds"])
def test_two_thousand_in_series(kind: str, form: str) -> None:
    """2,000 operators or diamonds in series do not overflow the stack."""
    count = 2000
    builder = PipelineBuilder()
    if kind == "operators":
        builder.chain(*(OperatorStage(f"o{n}", ops.map(lambda e: e)) for n in range(count)))
    elif kind == "big operators":
        builder.chain(*(OperatorStage(f"o{n}", *[ops.map(lambda e: e)] * 20) for n in range(count // 20)))
    else:
        builder.add(PassthroughStage("j0"))
        for n in range(count):
            left = FilterStage(f"a{n}", lambda e: False)
            right = MapStage(f"b{n}", same) if kind == "async diamonds" and not n % 50 else PassthroughStage(f"b{n}")
            builder.branch(f"j{n}", left, right).merge(f"a{n}", f"b{n}", into=PassthroughStage(f"j{n + 1}"))
    elements, error = LOOP_FORMS[form](builder.build(), ["x", StreamElement.end_of_turn(), "y", ValueError("v")])
    assert error is None
    assert texts(elements)[:2] == ["x", "EndOfTurn"]
    assert sorted(texts(elements)[2:]) == ["Failure", "y"]  # a failure leaves a fan-in with its first copy


def test_a_deep_series_of_stages() -> None:
    """`a >> b >> ...` of 2,000 stages, and 100 pipelines nested in each other, run."""
    series: Any = PassthroughStage("s0")
    for n in range(1, 2000):
        series = series >> MapStage(f"s{n}", lambda e: e)
    assert Pipeline.of(series).run(["x"]).text == "x"
    nested: Any = PassthroughStage("deepest")
    for n in range(100):
        nested = Pipeline.of(nested, name=f"level{n}")
    assert nested.run(["x"]).text == "x"
