"""Barge-in: an `Interrupt` overtakes, empties, cancels, and the next turn works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from forms import texts
from reactivex.subject import Subject

from rxstage import (
    EndOfTurn,
    Execution,
    Failure,
    FlatMapStage,
    Interrupt,
    MapStage,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineConfig,
    Priority,
    Stage,
    StageFunc,
    StageType,
    StreamElement,
    Text,
)
from rxstage.testing import assert_no_leaks, virtual


class Probe:
    """A stage's function that takes ten seconds, and what became of its calls."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []

    async def __call__(self, text: str) -> str:
        self.began.append(text)
        try:
            await asyncio.sleep(10.0)
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        self.ended.append(text)
        return text.upper()


async def until(execution: Execution, elements: Any, count: int) -> list[str]:
    """The next elements, as texts."""
    async with asyncio.timeout(1000.0):
        return texts([await anext(elements) for _ in range(count)])


KINDS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "interruptible": {"interruptible": True},
    "concurrent": {"concurrency": 3},
    "both": {"concurrency": 3, "interruptible": True},
    "unordered": {"concurrency": 3, "ordered": False},
    "timed": {"timeout": 100.0},
    "timed interruptible": {"timeout": 100.0, "interruptible": True},
    "policy": {"on_error": "emit"},
}


@pytest.mark.parametrize("kind", KINDS)
@virtual
async def test_64_queued_elements(kind: str) -> None:
    """Behind 64 queued elements an interrupt acts at once; late results are discarded; the next turn works."""
    probe = Probe()
    options = KINDS[kind]
    pipeline = Pipeline.of(MapStage("work", probe, on=Text, **options), config=PipelineConfig(buffer_size=128))
    source: Subject[Any] = Subject()
    loop = asyncio.get_running_loop()
    async with assert_no_leaks(), pipeline.execute(source) as execution:
        elements = aiter(execution)
        for number in range(65):
            source.on_next(str(number))
        await asyncio.sleep(1.0)
        busy = options.get("concurrency", 1)
        assert probe.began == [str(number) for number in range(busy)]
        execution.interrupt("stop")
        begin = loop.time()
        assert (await anext(elements)).content == Interrupt("stop")
        assert loop.time() == begin
        source.on_next("next")
        source.on_next(StreamElement.end_of_turn())
        assert await until(execution, elements, 2) == ["NEXT", "EndOfTurn"]
        if options.get("interruptible"):
            assert probe.cancelled == [str(number) for number in range(busy)]
            assert loop.time() - begin == pytest.approx(10.0)
        else:
            assert probe.cancelled == []
        assert set(probe.began) == {*(str(number) for number in range(busy)), "next"}
        assert execution.statistics().edges["<input>", "work"].depth == 0


@virtual
async def test_generators_in_mid_work() -> None:
    """A 1:N stage in the middle of an element stops giving items after an interrupt, and its generator is closed."""
    closed: list[str] = []

    async def count(text: str) -> AsyncIterator[str]:
        try:
            for number in range(1000):
                await asyncio.sleep(1.0)
                yield f"{text}{number}"
        finally:
            closed.append(text)

    for options in ({}, {"interruptible": True}, {"concurrency": 2}):
        closed.clear()
        pipeline = Pipeline.of(FlatMapStage("count", count, on=Text, **options))
        source: Subject[Any] = Subject()
        async with assert_no_leaks(), pipeline.execute(source) as execution:
            elements = aiter(execution)
            source.on_next("a")
            assert await until(execution, elements, 2) == ["a0", "a1"]
            execution.interrupt()
            source.on_next("b")
            assert await until(execution, elements, 2) == ["Interrupt", "b0"]
            assert closed == ["a"]


@pytest.mark.parametrize("where", ["worker", "stream", "edge", "output", "fan-in"])
@virtual
async def test_what_stays(where: str) -> None:
    """`Failure`s and content of priority CRITICAL stay; content and `EndOfTurn`s of the turn go."""
    gate = asyncio.Event()

    async def held(element: StreamElement) -> StreamElement:
        if not gate.is_set():
            await gate.wait()
        return element

    async def stream(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for element in elements:
            if element.text is not None:
                await held(element)
            yield element

    config = PipelineConfig(buffer_size=100)
    builder = PipelineBuilder(config).add(PassthroughStage("in"))
    if where == "worker":
        builder.chain("in", MapStage("held", held))
    elif where == "stream":
        builder.chain("in", StageFunc("held", StageType.TRANSFORM, stream))
    elif where == "edge":
        builder.add(PassthroughStage("p"), MapStage("held", held))
        builder.connect("in", "p", buffer_size=50).connect("p", "held", buffer_size=1)
    elif where == "fan-in":
        builder.branch("in", PassthroughStage("quick"), MapStage("held", held))
        builder.merge("quick", "held", into=PassthroughStage("out"))
    source: Subject[Any] = Subject()
    async with assert_no_leaks(), builder.build().execute(source) as execution:
        elements = aiter(execution)
        for item in (
            "in work",
            "gone",
            StreamElement.of("critical", priority=Priority.CRITICAL),
            StreamElement.of(ValueError("kept")),
            StreamElement.end_of_turn(),
            "gone too",
        ):
            source.on_next(item)
        await asyncio.sleep(1.0)
        if where == "output":
            execution.interrupt()
            await asyncio.sleep(1.0)
        else:
            execution.interrupt()
        gate.set()
        source.on_next("next")
        await asyncio.sleep(1.0)
        source.on_completed()
        seen = texts([element async for element in elements])
    after = seen[seen.index("Interrupt") :]
    assert after.count("Interrupt") == 1
    assert "gone" not in after
    assert "gone too" not in after
    assert "EndOfTurn" not in after
    assert "critical" in after or where == "fan-in"
    assert seen.count("Failure") == 1
    assert "next" in after
    if where != "fan-in":
        assert after[-1] == "next"


@virtual
async def test_a_whole_stream_function() -> None:
    """An interrupt goes ahead of a whole-stream function, mutes what it still yields of the turn, and it sees it."""
    seen: list[str] = []

    async def turns(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            seen.extend(texts([element]))
            if element.text is not None:
                for number in range(3):
                    await asyncio.sleep(1.0)
                    yield f"{element.text}{number}"

    source: Subject[Any] = Subject()
    pipeline = Pipeline.of(StageFunc("turns", StageType.TRANSFORM, turns), config=PipelineConfig(buffer_size=100))
    async with assert_no_leaks(), pipeline.execute(source) as execution:
        elements = aiter(execution)
        for text in ("a", "b", "c"):
            source.on_next(text)
        assert await until(execution, elements, 1) == ["a0"]
        execution.interrupt()
        source.on_next("d")
        source.on_next(EndOfTurn())
        assert await until(execution, elements, 5) == ["Interrupt", "d0", "d1", "d2", "EndOfTurn"]
    assert seen == ["a", "Interrupt", "d", "EndOfTurn"]


@pytest.mark.parametrize("yielded", [True, False])
@virtual
async def test_a_whole_stream_function_may_yield_it(yielded: bool) -> None:
    """Whether the function yields the interrupt or not, it leaves once."""

    async def loop(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for element in elements:
            if not element.is_control or yielded:
                yield element

    result = await Pipeline.of(StageFunc("l", StageType.TRANSFORM, loop)).execute(["a", Interrupt("i"), "b"])
    assert texts(result.elements).count("Interrupt") == 1
    assert texts(result.elements)[-1] == "b"


@virtual
async def test_in_band() -> None:
    """An interrupt that the source brings overtakes as well: what is queued before it goes."""
    probe = Probe()
    pipeline = Pipeline.of(MapStage("w", probe, on=Text, interruptible=True), config=PipelineConfig(buffer_size=100))
    async with assert_no_leaks():
        result = await pipeline.execute(["a", "b", "c", Interrupt("i"), "d", EndOfTurn()])
    assert texts(result.elements) == ["Interrupt", "D", "EndOfTurn"]
    assert probe.ended == ["d"]


@virtual
async def test_two_interrupts() -> None:
    """A stale interrupt does not mute the turn after the next one."""
    probe = Probe()
    source: Subject[Any] = Subject()
    pipeline = Pipeline.of(MapStage("w", probe, on=Text), MapStage("x", Probe(), on=Text, interruptible=True))
    async with assert_no_leaks(), pipeline.execute(source) as execution:
        elements = aiter(execution)
        source.on_next("a")
        await asyncio.sleep(1.0)
        execution.interrupt("1")
        execution.interrupt("2")
        source.on_next("b")
        source.on_next(EndOfTurn())
        assert await until(execution, elements, 4) == ["Interrupt", "Interrupt", "B", "EndOfTurn"]


@pytest.mark.parametrize("kind", ["plain", "async", "mixed"])
@virtual
async def test_through_a_fan_in(kind: str) -> None:
    """Through a diamond an interrupt leaves once and at once, and the turns after it stay aligned."""
    left, right = Probe(), Probe()

    def branch(name: str, probe: Probe) -> Stage:
        if kind == "plain" or (kind == "mixed" and name == "b"):
            return MapStage(name, lambda text: f"{text}.{name}", on=Text)
        return MapStage(name, probe, on=Text, interruptible=True)

    pipeline = (
        PipelineBuilder(PipelineConfig(buffer_size=64))
        .add(PassthroughStage("in"))
        .branch("in", branch("a", left), branch("b", right))
        .merge("a", "b", into=PassthroughStage("out"))
        .build()
    )
    source: Subject[Any] = Subject()
    async with assert_no_leaks(), pipeline.execute(source) as execution:
        elements = aiter(execution)
        for number in range(20):
            source.on_next(str(number))
        source.on_next(EndOfTurn())
        await asyncio.sleep(1.0)
        execution.interrupt()
        await asyncio.sleep(1.0)
        for item in ("x", EndOfTurn(), "y", EndOfTurn()):
            source.on_next(item)
        source.on_completed()
        seen = texts([element async for element in elements])
    assert seen.count("Interrupt") == 1
    after = seen[seen.index("Interrupt") + 1 :]
    assert after.count("EndOfTurn") == 2
    first = after.index("EndOfTurn")
    assert {text[0].lower() for text in after[:first]} == {"x"}
    assert len(after) == 6
    assert after[-1] == "EndOfTurn"


@virtual
async def test_an_operator_sees_it_if_it_asks_for_controls() -> None:
    """An interrupt goes round an operator, or through it with `sees_controls=True`."""
    from reactivex import operators as ops

    seen: list[str] = []
    note: Any = ops.do_action(lambda e: seen.extend(texts([e])))
    for sees in (False, True):
        seen.clear()
        result = await Pipeline.of(OperatorStage("o", note, sees_controls=sees)).execute(["a", Interrupt("i"), "b"])
        assert texts(result.elements) == ["a", "Interrupt", "b"]
        assert seen == (["a", "Interrupt", "b"] if sees else ["a", "b"])


@virtual
async def test_blocking_work_is_not_cancelled_but_its_result_is_late() -> None:
    """A blocking function cannot be cancelled: its result is discarded."""
    import threading

    gate = threading.Event()

    def block(text: str) -> str:
        if text == "a":
            gate.wait(20.0)
        return text

    source: Subject[Any] = Subject()
    async with Pipeline.of(MapStage("b", block, on=Text, blocking=True)).execute(source) as execution:
        elements = aiter(execution)
        source.on_next("a")
        execution.interrupt()
        assert (await anext(elements)).content == Interrupt("")
        gate.set()
        source.on_next("next")
        source.on_completed()
        assert texts([element async for element in elements]) == ["next"]


def test_inline() -> None:
    """Inline nothing is queued: an interrupt passes in order."""
    pipeline = Pipeline.of(MapStage("m", str.upper, on=Text))
    result = pipeline.run(["a", Interrupt("i"), "b", ValueError("v")])
    assert texts(result.elements) == ["A", "Interrupt", "B", "Failure"]
    assert isinstance(result.elements[-1].content, Failure)
