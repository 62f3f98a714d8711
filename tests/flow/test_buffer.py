"""The bounded buffer of an edge."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rxstage import (
    BufferOverflow,
    EndOfTurn,
    MapStage,
    Overflow,
    Pipeline,
    PipelineConfig,
    Priority,
    StreamElement,
)
from rxstage.flow.buffer import Buffer, survives
from rxstage.testing import SinkProbe, SourceProbe, settle, virtual


def element(value: Any, priority: Priority = Priority.NORMAL) -> StreamElement:
    return StreamElement.of(value, priority=priority)


def of(buffer: Buffer) -> list[Any]:
    return [each.payload if not each.is_control else type(each.content).__name__ for each in buffer.queue]


def fill(buffer: Buffer, values: Any) -> None:
    for value in values:
        each = StreamElement.of(value)
        (buffer.control if each.is_control else buffer.push)(each)


TURN = StreamElement.end_of_turn()
FAILURE = StreamElement.of(ValueError("x"))


# ------------------------------------------------------------------------------------------ overflow


@pytest.mark.parametrize(
    ("overflow", "survivors", "dropped"),
    [
        ("wait", [1, 2, 3, 4, 5], 0),
        ("drop_oldest", [2, 3, 4, 5], 1),
        ("drop_newest", [1, 2, 3, 4], 1),
        ("latest", [5], 4),
        ("fail", [1, 2, 3, 4, 5], 0),
    ],
)
@pytest.mark.parametrize("priority_queue", [False, True])
def test_one_too_many(overflow: Overflow, survivors: list[int], dropped: int, priority_queue: bool) -> None:
    """CASE 15: at capacity + 1, exactly the promised survivors and drop count."""
    drops: list[tuple[tuple[str, str], int]] = []
    errors: list[BaseException] = []
    buffer = Buffer(
        4,
        overflow,
        priority_queue=priority_queue,
        edge=("a", "b"),
        on_drop=lambda edge, count: drops.append((edge, count)),
        on_overflow=errors.append,
    )
    fill(buffer, [1, 2, 3, 4])
    assert of(buffer) == [1, 2, 3, 4]
    assert not drops
    assert not errors
    assert bool(buffer.valve.closers) == (overflow == "wait")
    fill(buffer, [5])
    assert of(buffer) == survivors
    assert buffer.dropped == dropped
    assert drops == ([(("a", "b"), dropped)] if dropped else [])
    assert [type(error) for error in errors] == ([BufferOverflow] if overflow == "fail" else [])
    statistics = buffer.statistics()
    assert (statistics.depth, statistics.capacity, statistics.dropped) == (len(survivors), 4, dropped)
    assert statistics.waiting == (overflow == "wait")


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "latest"])
@pytest.mark.parametrize("priority_queue", [False, True])
def test_many_too_many(overflow: Overflow, priority_queue: bool) -> None:
    """CASE 15: a hundred elements and some controls: the controls survive in their order, the depth is bounded."""
    buffer = Buffer(4, overflow, priority_queue=priority_queue)
    controls = [StreamElement(EndOfTurn()) if n % 2 else StreamElement.of(ValueError(str(n))) for n in range(3)]
    for n in range(100):
        fill(buffer, [n])
        if n in (10, 20, 30):
            buffer.control(controls[n // 10 - 1])
        assert len(buffer.queue) <= 4 + 3
    assert [each for each in buffer.queue if each.is_control] == controls
    content = [each.payload for each in buffer.queue if not each.is_control]
    assert buffer.dropped == 100 - len(content)
    if overflow == "latest":
        assert content == [99]
    elif overflow == "drop_oldest":
        assert content == [96, 97, 98, 99]  # controls take no place from content that is there
    else:
        assert content == [0, 1, 2, 3]


def test_content_behind_many_controls() -> None:
    """Where controls fill the buffer, the newest content still stays under `drop_oldest`."""
    buffer = Buffer(2, "drop_oldest")
    fill(buffer, [TURN, FAILURE, TURN, 1, 2])
    assert of(buffer) == ["EndOfTurn", "Failure", "EndOfTurn", 2]
    assert buffer.dropped == 1


def test_latest_of_one_object() -> None:
    """Under `latest` one element stays, even if the very same object is pushed again and again."""
    buffer = Buffer(2, "latest")
    one = element("a")
    for _ in range(5):
        buffer.push(one)
    assert of(buffer) == ["a"]
    assert buffer.dropped == 4


def test_overflow_by_priority() -> None:
    """With priorities, what is dropped is of the lowest priority that waits."""
    buffer = Buffer(3, "drop_oldest", priority_queue=True)
    for value, priority in ((1, Priority.HIGH), (2, Priority.LOW), (3, Priority.NORMAL), (4, Priority.LOW)):
        buffer.push(element(value, priority))
    assert sorted(of(buffer)) == [1, 3, 4]
    buffer.push(element(5, Priority.HIGH))
    assert sorted(of(buffer)) == [1, 3, 5]
    assert buffer.queue.popleft().payload == 1


def test_fail_has_head_room_for_critical_content() -> None:
    """With priorities, a critical element finds a place beyond the capacity; the next ordinary one does not."""
    errors: list[BaseException] = []
    buffer = Buffer(4, "fail", priority_queue=True, on_overflow=errors.append)
    fill(buffer, range(4))
    buffer.push(element("!", Priority.CRITICAL))
    assert not errors
    buffer.push(element("x"))
    assert len(errors) == 1
    assert "buffer_size" in str(errors[0])


def test_fail_without_a_listener() -> None:
    """Nobody is told where nobody asked; the element stays."""
    buffer = Buffer(1, "fail")
    fill(buffer, [1, 2])
    assert of(buffer) == [1, 2]


# ------------------------------------------------------------------------------------------ the valve


@pytest.mark.parametrize("capacity", [1, 2, 3, 8, 16, 64])
def test_depth_is_bounded(capacity: int) -> None:
    """CASE 13: pumps that look after every delivery of at most N never bring it above c - 1 + N."""
    for burst in (1, 3, 50):
        buffer = Buffer(capacity)
        for _ in range(5):
            while not buffer.valve.closers:
                fill(buffer, range(burst))
            while buffer.queue:
                buffer.queue.popleft()
                if buffer.full:
                    buffer.reopen()
        assert buffer.peak <= capacity - 1 + burst
        assert not buffer.valve.closers


def test_capacity_one_alternates() -> None:
    """CASE 12: with room for one it closes at each element and opens at each that is taken."""
    buffer = Buffer(1)
    for n in range(5):
        assert not buffer.valve.closers
        fill(buffer, [n])
        assert buffer.valve.closers == {buffer}
        assert buffer.queue.popleft().payload == n
        buffer.reopen()
    assert buffer.peak == 1


def test_opens_low() -> None:
    """It opens once it is nearly empty, so that whole batches are handed over."""
    buffer = Buffer(16)
    fill(buffer, range(16))
    left: list[int] = []
    while buffer.queue:
        buffer.queue.popleft()
        if buffer.full:
            buffer.reopen()
            if not buffer.full:
                left.append(len(buffer.queue))
    assert left == [2]


def test_controls_do_not_close() -> None:
    """Controls are not counted against the room: they pass a full buffer's valve."""
    buffer = Buffer(2)
    fill(buffer, [1, TURN, TURN, TURN])
    assert not buffer.valve.closers
    assert buffer.peak == 4
    fill(buffer, [2])
    assert buffer.valve.closers


def test_parked_reader() -> None:
    """A reader that waits is woken once, by content, a control, or the end."""
    for rouse in (lambda b: fill(b, [1]), lambda b: fill(b, [TURN]), lambda b: b.done()):
        woken: list[int] = []
        buffer = Buffer(4)
        buffer.park(lambda woken=woken: woken.append(1))  # type: ignore[misc]
        rouse(buffer)
        rouse(buffer)
        assert woken == [1]
    assert buffer.ended


def test_clear_and_lift() -> None:
    """Emptied or lifted, it keeps nobody waiting."""
    buffer = Buffer(2)
    fill(buffer, [1, 2])
    assert buffer.valve.closers
    buffer.clear()
    assert not buffer.valve.closers
    assert not buffer.queue
    fill(buffer, [1, 2])
    buffer.lift()
    assert not buffer.valve.closers
    fill(buffer, range(100))
    assert not buffer.valve.closers
    assert len(buffer.queue) == 102


# ------------------------------------------------------------------------------------------ interrupts


@pytest.mark.parametrize("priority_queue", [False, True])
def test_interrupt_flushes(priority_queue: bool) -> None:
    """An interrupt drops content and turn ends, keeps failures and critical content, goes first, opens the valve."""
    buffer = Buffer(4, priority_queue=priority_queue)
    fill(buffer, [1, TURN, FAILURE, 2, element("!", Priority.CRITICAL), 3])
    assert buffer.valve.closers
    interrupt = StreamElement.interrupt()
    buffer.control(interrupt)
    assert of(buffer) == ["Interrupt", "Failure", "!"]
    fill(buffer, [4])
    taken = [buffer.queue.popleft() for _ in range(len(buffer.queue))]
    if buffer.full:
        buffer.reopen()
    assert [each.payload for each in taken if not each.is_control] == ["!", 4]
    assert not buffer.valve.closers


def test_interrupt_with_a_reader_of_its_own() -> None:
    """Where the reader asked for interrupts it gets them at once, behind the flush."""
    buffer, seen = Buffer(4), []
    buffer.on_interrupt = lambda each: seen.append((each, of(buffer)))
    fill(buffer, [1, 2])
    interrupt = StreamElement.interrupt()
    buffer.control(interrupt)
    assert seen == [(interrupt, [])]
    assert not buffer.queue


def test_survivors() -> None:
    """What an interrupt leaves: failures, other interrupts, critical content."""
    assert [survives(each) for each in (element(1), element(1, Priority.CRITICAL), TURN, FAILURE)] == [
        False,
        True,
        False,
        True,
    ]


def test_port() -> None:
    """Its port is the buffer itself, so that a pump may fill it right there."""
    buffer = Buffer(2)
    port = buffer.port()
    port.push(element(1))
    port.control(TURN)
    port.done()
    assert of(buffer) == [1, "EndOfTurn"]
    assert port.buffer is buffer
    assert port.valve is buffer.valve
    assert buffer.ended


# ------------------------------------------------------------------------------------------ in a pipeline


@virtual
async def test_depth_in_a_pipeline() -> None:
    """CASE 13: behind a 1:N stage the buffer holds at most c - 1 + N, and everything comes."""
    from rxstage import FlatMapStage

    async def slow(value: int) -> int:
        await asyncio.sleep(1)
        return value

    pipeline = Pipeline.of(
        FlatMapStage("many", lambda n: range(n * 10, n * 10 + 10), on=int),
        MapStage("slow", slow, on=int),
        config=PipelineConfig(buffer_size=4),
    )
    execution = pipeline.execute(range(20))
    values = [each.data async for each in execution]
    assert values == list(range(200))
    statistics = execution.statistics().edges["many", "slow"]
    assert statistics.peak <= 4 - 1 + 10


@virtual
async def test_many_to_one() -> None:
    """CASE 13: a stage that needs more than fits for one output progresses."""
    from rxstage import StageFunc, StageType

    async def hundred(elements: Any) -> Any:
        total = 0
        async for each in elements:
            if each.data is not None:
                total += 1
                if total % 100 == 0:
                    yield total

    pipeline = Pipeline.of(StageFunc("sum", StageType.ACCUMULATE, hundred), config=PipelineConfig(buffer_size=2))
    result = await pipeline.execute(range(1000))
    assert [each.data for each in result.elements] == list(range(100, 1001, 100))


@virtual
async def test_slow_consumer_slows_the_source() -> None:
    """A buffer of a pipeline holds its bound while the consumer takes its time."""
    source = SourceProbe(*range(100))

    async def same(value: int) -> int:
        return value

    pipeline = Pipeline.of(MapStage("same", same, on=int), config=PipelineConfig(buffer_size=4))
    async with pipeline.execute(source) as execution:
        sink = SinkProbe(execution)
        for n in range(50):
            await sink.expect(n)
            await settle()
            assert source.pulled <= n + 1 + 3 * 4
