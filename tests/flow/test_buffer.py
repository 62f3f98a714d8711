"""The bounded buffer of an edge, and BufferedSubject."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from reactivex.subject import Subject

from rxstage import (
    BufferedSubject,
    BufferOverflow,
    Data,
    EndOfTurn,
    Failure,
    Interrupt,
    MapStage,
    Overflow,
    Pipeline,
    PipelineConfig,
    Priority,
    StreamElement,
    Text,
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
    left = []
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
    for rouse in (lambda b: fill(b, [1]), lambda b: fill(b, [TURN]), lambda b: b.done()):  # type: ignore[misc]
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


# ------------------------------------------------------------------------------------------ BufferedSubject


class Seen:
    """An observer that notes what it is told."""

    def __init__(self, raises_on: Any = None) -> None:
        self.values: list[Any] = []
        self.ends: list[Any] = []
        self.raises_on = raises_on

    def on_next(self, each: StreamElement) -> None:
        self.values.append(each.payload)
        if each.payload == self.raises_on:
            raise ValueError(f"on {each.payload}")

    def on_error(self, error: Exception) -> None:
        self.ends.append(error)

    def on_completed(self) -> None:
        self.ends.append("completed")

    def subscribe(self, source: Any) -> Any:
        return source.subscribe(self.on_next, self.on_error, self.on_completed)


def test_subject_capacity() -> None:
    """A capacity below 1 is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        BufferedSubject(0)


@virtual
async def test_subject_delivers_on_the_loop() -> None:
    """What goes in comes out later, in order, to everybody, then the end."""
    subject, first, second = BufferedSubject(4), Seen(), Seen()
    first.subscribe(subject)
    second.subscribe(subject)
    for value in "abc":
        subject.on_next(value)
    subject.on_completed()
    subject.on_next("late")
    assert not first.values
    await settle()
    assert first.values == second.values == ["a", "b", "c"]
    assert first.ends == second.ends == ["completed"]


@virtual
async def test_subject_valve() -> None:
    """CASE 16: under `wait` its valve closes at the capacity and opens when it has delivered; statistics say so."""
    subject, seen = BufferedSubject(2), Seen()
    seen.subscribe(subject)
    subject.on_next("a")
    assert not subject.valve.closers
    subject.on_next("b")
    assert subject.valve.closers
    assert subject.statistics().waiting
    await settle()
    assert not subject.valve.closers
    assert subject.statistics().depth == 0
    assert subject.statistics().peak == 2


@virtual
async def test_subject_pause() -> None:
    """CASE 16: two pausers must both resume; pausing twice by one is one effect; paused before it is subscribed."""
    subject, seen = BufferedSubject(8), Seen()
    subject.pause("x")
    subject.pause("x")
    subject.pause("y")
    seen.subscribe(subject)
    subject.on_next("a")
    await settle()
    assert seen.values == []
    subject.resume("x")
    await settle()
    assert seen.values == []
    subject.resume("y")
    await settle()
    assert seen.values == ["a"]
    subject.on_next("b")
    await settle()
    assert seen.values == ["a", "b"]


@virtual
async def test_subject_pause_from_inside() -> None:
    """A pause from inside a handler holds from the next element on."""
    subject, seen = BufferedSubject(8), Seen()

    def pausing(each: StreamElement) -> None:
        seen.on_next(each)
        if each.text == "b":
            subject.pause("inside")

    subject.subscribe(pausing, on_completed=seen.on_completed)
    for value in "abcd":
        subject.on_next(value)
    subject.on_completed()
    await settle()
    assert seen.values == ["a", "b"]
    assert seen.ends == []
    subject.resume("inside")
    await settle()
    assert seen.values == list("abcd")
    assert seen.ends == ["completed"]


@virtual
async def test_subject_one_raises() -> None:
    """CASE 10: an observer that raises gets its error and is dropped; the others get everything."""
    subject, bad, good = BufferedSubject(8), Seen(raises_on="b"), Seen()
    bad.subscribe(subject)
    good.subscribe(subject)
    for value in "abcd":
        subject.on_next(value)
    subject.on_completed()
    await settle()
    assert bad.values == ["a", "b"]
    assert [str(error) for error in bad.ends] == ["on b"]
    assert good.values == list("abcd")
    assert good.ends == ["completed"]


@virtual
async def test_subject_one_raises_without_a_handler() -> None:
    """CASES 7 and 10: one that raises and takes no errors either is reported to the loop; the others go on."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    subject, bad, good = BufferedSubject(8), Seen(raises_on="b"), Seen()
    subject.subscribe(bad.on_next)
    good.subscribe(subject)
    for value in "abcd":
        subject.on_next(value)
    subject.on_completed()
    await settle()
    assert good.values == list("abcd")
    assert good.ends == ["completed"]
    assert [str(context["exception"]) for context in reported] == ["on b"]


@virtual
async def test_subject_raising_at_the_end() -> None:
    """CASE 10: one that raises at the end does not keep the end from the others."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    subject, good = BufferedSubject(8), Seen()

    def raising() -> None:
        raise ValueError("at the end")

    subject.subscribe(on_completed=raising)
    good.subscribe(subject)
    subject.on_completed()
    await settle()
    assert good.ends == ["completed"]
    assert [str(context["exception"]) for context in reported] == ["at the end"]


@virtual
async def test_subject_late_subscriber() -> None:
    """What was pushed before the first subscriber waits for it; a later one sees what comes from then on."""
    subject, first, second, third = BufferedSubject(8), Seen(), Seen(), Seen()
    subject.on_next("a")
    await settle()
    first.subscribe(subject)
    await settle()
    assert first.values == ["a"]
    second.subscribe(subject)
    subject.on_next("b")
    await settle()
    assert first.values == ["a", "b"]
    assert second.values == ["b"]
    subject.on_completed()
    await settle()
    third.subscribe(subject)
    assert third.ends == ["completed"]


@virtual
async def test_subject_error_behind_what_is_there() -> None:
    """An error comes after what was there, also to late subscribers; the valve is open then."""
    subject, seen, late = BufferedSubject(2), Seen(), Seen()
    seen.subscribe(subject)
    error = ValueError("x")
    subject.on_next("a")
    subject.on_next("b")
    subject.on_error(error)
    subject.on_error(ValueError("second"))
    subject.on_completed()
    await settle()
    assert seen.values == ["a", "b"]
    assert seen.ends == [error]
    late.subscribe(subject)
    assert late.ends == [error]
    assert not subject.valve.closers


@virtual
async def test_subject_fails() -> None:
    """Under `fail` one too many ends it with BufferOverflow, behind what it held."""
    subject, seen = BufferedSubject(2, "fail"), Seen()
    seen.subscribe(subject)
    for value in "abcd":
        subject.on_next(value)
    await settle()
    assert seen.values[:2] == ["a", "b"]
    assert len(seen.ends) == 1
    assert isinstance(seen.ends[0], BufferOverflow)
    assert "d" not in seen.values


@virtual
async def test_subject_priorities() -> None:
    """With priorities the higher goes first; an interrupt overtakes and flushes."""
    subject, seen = BufferedSubject(8, priority_queue=True), Seen()
    seen.subscribe(subject)
    subject.on_next(element("low", Priority.LOW))
    subject.on_next(element("high", Priority.HIGH))
    await settle()
    assert seen.values == ["high", "low"]
    subject.on_next("gone")
    subject.on_next(StreamElement.interrupt())
    subject.on_next("next")
    await settle()
    assert seen.values[2:] == [Interrupt(), "next"]


@virtual
async def test_subject_dropping() -> None:
    """A dropping policy never closes the valve and counts what it drops."""
    subject, seen = BufferedSubject(2, "drop_oldest"), Seen()
    seen.subscribe(subject)
    for value in range(10):
        subject.on_next(value)
        assert not subject.valve.closers
    await settle()
    assert seen.values == [8, 9]
    assert subject.statistics().dropped == 8


@virtual
async def test_subject_dispose() -> None:
    """Disposed of, it holds nothing and nobody; the last observer that leaves empties it."""
    subject, seen = BufferedSubject(2), Seen()
    subscription = seen.subscribe(subject)
    subject.on_next("a")
    subject.on_next("b")
    assert subject.valve.closers
    subscription.dispose()
    assert not subject.valve.closers
    assert subject.statistics().depth == 0
    seen.subscribe(subject)
    subject.on_next("c")
    subject.dispose()
    subject.on_next("d")
    await settle()
    assert seen.values == []
    assert subject.statistics().depth == 0


@virtual
async def test_subject_batches() -> None:
    """A long queue is delivered in batches, between which the loop does other things."""
    subject, seen = BufferedSubject(1000), Seen()
    seen.subscribe(subject)
    for value in range(500):
        subject.on_next(value)
    await asyncio.sleep(0)
    assert 0 < len(seen.values) < 500
    await settle()
    assert seen.values == list(range(500))


@virtual
async def test_subject_in_rx() -> None:
    """It stands between Rx operators and pipelines like any Subject."""
    source: Subject[Any] = Subject()
    subject, seen = BufferedSubject(16), Seen()
    seen.subscribe(subject.pipe(Pipeline.of(MapStage("upper", str.upper, on=Text))))
    source.subscribe(subject)
    source.on_next("a")
    source.on_next(Data(3))
    source.on_next(Failure(ValueError("x")))
    source.on_completed()
    await settle()
    assert seen.values[:2] == ["A", 3]
    assert isinstance(seen.values[2], Failure)
    assert seen.ends == ["completed"]


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
