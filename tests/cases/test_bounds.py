"""CASES 12-17: what may be held, and what holds it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from forms import FORMS, Form, contents, texts
from reactivex import operators as ops

from rxstage import (
    BufferOverflow,
    EdgeDropped,
    Execution,
    FilterStage,
    FlatMapStage,
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
    Text,
)
from rxstage.config import Overflow
from rxstage.flow.valve import Valve
from rxstage.testing import assert_no_leaks, virtual

forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
ONE = PipelineConfig(buffer_size=1)


async def same(element: StreamElement) -> StreamElement:
    await asyncio.sleep(0.001)
    return element


async def each(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    async for element in elements:
        yield element


def all_kinds() -> list[Stage]:
    return [
        MapStage("async", same),
        MapStage("plain", lambda e: e),
        StageFunc("stream", StageType.TRANSFORM, each),
        OperatorStage("operator", ops.map(lambda e: e)),
        MapStage("concurrent", same, concurrency=3),
        FlatMapStage("flat", lambda e: (e, e)),
        MapStage("unordered", same, concurrency=2, ordered=False),
        MapStage("last", same),
    ]


@forms
def test_12_capacity_one_everywhere(form: Form) -> None:
    """CASE 12: with capacity 1 everywhere every kind of stage makes progress, and nothing is lost."""
    pipeline = Pipeline.of(*all_kinds(), config=ONE)
    elements, error = form(pipeline, [str(number) for number in range(30)])
    assert error is None
    assert sorted(texts(elements), key=int) == [str(number) for number in range(30) for _ in range(2)]


@forms
def test_12_capacity_one_in_a_diamond(form: Form) -> None:
    """CASE 12: the same for a diamond whose edges have buffers of their own."""
    pipeline = (
        PipelineBuilder(ONE)
        .add(PassthroughStage("in"), MapStage("slow", same), PassthroughStage("fast"), PassthroughStage("out"))
        .connect("in", "slow", buffer_size=1)
        .connect("in", "fast", buffer_size=1)
        .connect("slow", "out", buffer_size=1)
        .connect("fast", "out", buffer_size=1)
        .build()
    )
    elements, error = form(pipeline, [str(number) for number in range(30)])
    assert error is None
    assert sorted(texts(elements), key=int) == [str(number) for number in range(30) for _ in range(2)]


@virtual
async def test_12_strict_alternation() -> None:
    """CASE 12: capacity 1 in front of a consumer: the producer is one element ahead at most, in turn."""
    log: list[str] = []

    async def produce() -> AsyncIterator[str]:
        for number in range(5):
            log.append(f"+{number}")
            yield str(number)

    async with assert_no_leaks():
        async for element in Pipeline.of(PassthroughStage("p"), config=ONE).execute(produce()):
            await asyncio.sleep(1.0)
            log.append(f"-{element.text}")
    ahead = 0
    for step in log:
        ahead += 1 if step[0] == "+" else -1
        assert 0 <= ahead <= 3  # one in the buffer, one at the consumer, one that waits to enter
    assert [step for step in log if step[0] == "-"] == [f"-{number}" for number in range(5)]


@pytest.mark.parametrize("capacity", [1, 2, 4, 16])
@pytest.mark.parametrize("burst", [1, 3, 10])
@pytest.mark.parametrize("behind", ["sequential", "concurrent", "stream", "edge", "output"])
@virtual
async def test_13_one_to_many(behind: str, burst: int, capacity: int) -> None:
    """CASE 13: a 1:N stage in front of capacity c: the depth is never above c - 1 + N."""
    flat = FlatMapStage("flat", lambda e: [e] * burst)
    after: Stage = {
        "sequential": MapStage("after", same),
        "concurrent": MapStage("after", same, concurrency=2),
        "stream": StageFunc("after", StageType.TRANSFORM, each),
        "edge": PassthroughStage("after"),
        "output": PassthroughStage("after"),
    }[behind]
    config = PipelineConfig(buffer_size=capacity)
    builder = PipelineBuilder(config).add(flat, after)
    pipeline = builder.connect("flat", "after", buffer_size=capacity if behind == "edge" else None).build()
    execution = pipeline.execute([str(number) for number in range(40)])
    count = 0
    async for _ in execution:
        await asyncio.sleep(0.01)
        count += 1
    assert count == 40 * burst
    for (source, target), edge in execution.statistics().edges.items():
        burst_here = 1 if source == "<input>" else burst
        assert edge.peak <= max(0, edge.capacity - 1 + burst_here), (source, target)


@pytest.mark.parametrize("size", [3, 50])
@virtual
async def test_13_many_to_one(size: int) -> None:
    """CASE 13: an N:1 stage that collects more than the capacity of its buffer makes progress."""

    async def collect(elements: AsyncIterator[StreamElement]) -> AsyncIterator[str]:
        held: list[str] = []
        async for element in elements:
            held.append(element.text or "")
            if len(held) == size:
                yield "".join(held)
                held.clear()

    pipeline = Pipeline.of(StageFunc("collect", StageType.ACCUMULATE, collect), config=PipelineConfig(buffer_size=2))
    result = await pipeline.execute(["x"] * (4 * size))
    assert texts(result.elements) == ["x" * size] * 4


@virtual
async def test_13_many_to_one_operator() -> None:
    """CASE 13: the same for an operator that collects."""
    collect = OperatorStage("collect", ops.buffer_with_count(50), ops.map(lambda es: "".join(e.text for e in es)))
    pipeline = Pipeline.of(MapStage("a", same), collect, MapStage("b", same), config=PipelineConfig(buffer_size=2))
    result = await pipeline.execute(["x"] * 200)
    assert texts(result.elements) == ["x" * 50] * 4


POLICIES: dict[Overflow, list[str]] = {
    "drop_oldest": ["2", "3"],
    "drop_newest": ["1", "2"],
    "latest": ["3"],
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("reader", ["stage", "edge"])
@virtual
async def test_15_overflow(policy: Overflow, reader: str) -> None:
    """CASE 15: past the capacity each policy keeps exactly what it promises, counts the rest, and keeps controls."""
    gate = asyncio.Event()

    async def held(element: StreamElement) -> StreamElement:
        await gate.wait()
        return element

    drops: list[tuple[str, int]] = []
    slow = MapStage("slow", held)
    builder = PipelineBuilder().add(PassthroughStage("in"), slow)
    if reader == "stage":
        builder.connect("in", "slow", buffer_size=2, overflow=policy)
        expected_edge = ("in", "slow")
    else:
        builder.add(PassthroughStage("p"))
        builder.connect("in", "p", buffer_size=2, overflow=policy).connect("p", "slow", buffer_size=1)
        expected_edge = ("in", "p")
    execution = builder.build().execute(numbers(3, gate))
    execution.events.subscribe(lambda e: drops.append((e.type, e.dropped)) if isinstance(e, EdgeDropped) else None)
    result = await execution
    statistics = execution.statistics().edges[expected_edge]
    if reader == "stage":
        # 0 is in work, 1 to 3 came while the buffer had room for two
        survivors = POLICIES[policy]
        assert [t for t in texts(result.elements) if t != "EndOfTurn"] == ["0", *survivors]
        dropped = 3 - len(survivors)
    else:
        dropped = statistics.dropped
        assert len([t for t in texts(result.elements) if t != "EndOfTurn"]) == 4 - dropped
    assert texts(result.elements).count("EndOfTurn") == 1
    assert statistics.dropped == dropped
    assert drops[-1] == ("edge.dropped", dropped) if dropped else not drops


async def numbers(last: int, gate: asyncio.Event) -> AsyncIterator[Any]:
    """0 at once, the others and an end of turn a little later, in one go; then the gate opens."""
    yield "0"
    await asyncio.sleep(1.0)
    for number in range(1, last + 1):
        yield str(number)
    yield StreamElement.end_of_turn()
    await asyncio.sleep(1.0)
    gate.set()


@virtual
async def test_15_fail() -> None:
    """CASE 15: `fail` ends the execution with an error that names the edge, and the remedies."""
    gate = asyncio.Event()

    async def held(element: StreamElement) -> StreamElement:
        await gate.wait()
        return element

    pipeline = (
        PipelineBuilder()
        .add(PassthroughStage("in"), MapStage("slow", held))
        .connect("in", "slow", buffer_size=2, overflow="fail")
        .build()
    )
    async with assert_no_leaks():
        with pytest.raises(BufferOverflow, match=r"'in' to 'slow'.*buffer_size.*overflow"):
            await pipeline.execute(numbers(4, gate))


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("drop_oldest", ["7", "8"]), ("drop_newest", ["0", "1"]), ("latest", ["8"])],
)
@virtual
async def test_15_overflow_of_the_output(policy: Overflow, kept: list[str]) -> None:
    """CASE 15: the buffer at the output follows the policy of the configuration, and counts, too."""
    pipeline = Pipeline.of(PassthroughStage("p"), config=PipelineConfig(buffer_size=2, overflow=policy))
    execution = pipeline.execute([str(number) for number in range(9)])
    drops: list[Any] = []
    execution.events.subscribe(lambda e: drops.append(e) if e.type == "edge.dropped" else None)
    elements = aiter(execution)
    await asyncio.sleep(1.0)
    assert [element.text async for element in elements] == kept
    edge = execution.statistics().edges["p", "<output>"]
    assert edge.dropped == 9 - len(kept)
    assert (drops[-1].stage, drops[-1].target, drops[-1].dropped) == ("p", "<output>", 9 - len(kept))


def test_16_pausers() -> None:
    """CASE 16: closing twice is one effect, two closers must both open, and who is linked late starts closed."""
    valve, woken = Valve(), []
    valve.wakers.append(lambda: woken.append(bool(valve.closers)))
    valve.close("a")
    valve.close("a")
    valve.open("a")
    assert woken == [False]
    valve.close("a")
    valve.close("b")
    valve.open("a")
    assert woken == [False]
    assert valve.closers
    upstream = Valve()
    valve.link(upstream)
    assert upstream.closers
    valve.open("b")
    assert woken == [False, False]
    assert not upstream.closers


@virtual
async def test_16_two_branches_pause_one_source() -> None:
    """CASE 16: two full branches pause the source once each; it goes on when both have room."""
    gates = {"a": asyncio.Event(), "b": asyncio.Event()}
    pulled = 0

    def source() -> Any:
        nonlocal pulled
        for number in range(20):
            pulled += 1
            yield str(number)

    def branch(name: str) -> SinkStage:
        async def held(element: StreamElement) -> None:
            await gates[name].wait()

        return SinkStage(name, held)

    pipeline = (
        PipelineBuilder(PipelineConfig(buffer_size=2))
        .add(PassthroughStage("in"))
        .branch("in", branch("a"), branch("b"))
        .build()
    )
    async with assert_no_leaks(), pipeline.execute(source()) as execution:
        await asyncio.sleep(1.0)
        paused = pulled
        assert paused <= 3
        gates["a"].set()
        await asyncio.sleep(1.0)
        assert pulled == paused
        gates["b"].set()
        result = await execution
    assert pulled == 20
    assert result.metrics.stages["a"].received == result.metrics.stages["b"].received == 20


@forms
@pytest.mark.parametrize("kind", ["filter", "sink", "async", "stream", "operator"])
def test_17_a_stage_that_never_emits(form: Form, kind: str) -> None:
    """CASE 17: a stage that never emits does not pause what is before it."""

    async def swallow(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for _ in elements:
            pass
        for _ in range(0):
            yield StreamElement.of("")

    async def no(element: StreamElement) -> bool:
        return False

    stage: Stage = {
        "filter": FilterStage("n", lambda e: False),
        "sink": SinkStage("n", lambda e: None),
        "async": FilterStage("n", no),
        "stream": StageFunc("n", StageType.ACCUMULATE, swallow),
        "operator": OperatorStage("n", ops.ignore_elements()),
    }[kind]
    count = 0

    def source() -> Any:
        nonlocal count
        for number in range(100):
            count += 1
            yield str(number)

    elements, error = form(Pipeline.of(stage, config=PipelineConfig(buffer_size=2)), source())
    assert (elements, error) == ([], None)
    assert count == 100


@virtual
async def test_17_one_silent_branch() -> None:
    """CASE 17: a branch that never emits pauses neither its neighbour nor the fan-in."""
    pipeline = (
        PipelineBuilder(PipelineConfig(buffer_size=2))
        .add(PassthroughStage("in"))
        .branch("in", FilterStage("silent", lambda e: False), MapStage("loud", same))
        .merge("silent", "loud", into=PassthroughStage("out"))
        .build()
    )
    result = await pipeline.execute([str(number) for number in range(50)])
    assert texts(result.elements) == [str(number) for number in range(50)]
    assert contents(result.elements)[0] == Text("0")


def test_execution_is_exported() -> None:
    """What `execute` gives has a public name."""
    assert isinstance(Pipeline.of(PassthroughStage("p")).execute(), Execution)
