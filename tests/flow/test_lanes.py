"""The queue that serves by priority."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxstage import EndOfTurn, Priority, StreamElement
from rxstage.flow.lanes import LaneQueue


def element(value: object, priority: Priority = Priority.NORMAL) -> StreamElement:
    return StreamElement.of(value, priority=priority)


def drain(queue: LaneQueue) -> list[StreamElement]:
    return [queue.popleft() for _ in range(len(queue))]


def payloads(elements: list[StreamElement]) -> list[object]:
    return [type(each.content).__name__ if each.is_control else each.payload for each in elements]


def test_higher_first() -> None:
    """The higher priority goes first, and within one the one that came first."""
    queue = LaneQueue()
    for value, priority in enumerate([Priority.LOW, Priority.HIGH, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL]):
        queue.append(element(value, priority))
    assert len(queue) == 5
    assert payloads(drain(queue)) == [4, 1, 3, 2, 0]
    with pytest.raises(IndexError, match="empty"):
        queue.popleft()


def test_controls_keep_their_place() -> None:
    """What came before a control leaves before it, what came after it after it, whatever the priority."""
    queue = LaneQueue()
    queue.append(element("low", Priority.LOW))
    queue.append(StreamElement(EndOfTurn()))
    queue.append(element("critical", Priority.CRITICAL))
    queue.append(element("normal"))
    queue.append(StreamElement(EndOfTurn()))
    assert payloads(drain(queue)) == ["low", "EndOfTurn", "critical", "normal", "EndOfTurn"]


def test_head() -> None:
    """What is put before everything comes first, the later one of several behind the earlier."""
    queue = LaneQueue()
    queue.append(element("a", Priority.CRITICAL))
    queue.appendleft(StreamElement.interrupt("1"))
    queue.appendleft(StreamElement.interrupt("2"))
    assert [e.content.reason for e in drain(queue)[:2]] == ["1", "2"]


@pytest.mark.parametrize("waiting", [(0, 3), (1, 3), (0, 1, 3), (0, 1, 2, 3)])
def test_bounded_starvation(waiting: tuple[int, ...]) -> None:
    """Every lane that waits is served within a bounded number of elements, however many of a higher one come."""
    queue = LaneQueue(patience=8)
    lower = waiting[:-1]
    for priority in lower:
        for number in range(50):
            queue.append(element((priority, number), Priority(priority)))
    for number in range(50):
        queue.append(element((waiting[-1], number), Priority(waiting[-1])))
    since = dict.fromkeys(lower, 0)
    served: dict[int, list[int]] = {priority: [] for priority in waiting}
    for number in range(400):
        priority, index = queue.popleft().payload
        served[priority].append(index)
        queue.append(element((waiting[-1], 50 + number), Priority(waiting[-1])))
        for lane in lower:
            since[lane] = 0 if lane == priority else since[lane] + 1
            if len(served[lane]) < 50:
                assert since[lane] <= 9 * len(lower)
    for priority in waiting:
        assert served[priority] == list(range(len(served[priority])))
        assert served[priority]


def test_lanes_that_change() -> None:
    """A lane is not passed over for ever because others come and go."""
    queue = LaneQueue(patience=2)
    queue.append(element("low", Priority.LOW))
    for number in range(60):
        queue.append(element(number, Priority.CRITICAL))
        if number % 3 == 2:
            queue.append(element(number, Priority.HIGH))
        if number % 3 == 1:
            queue.append(element(number, Priority.NORMAL))
    order = payloads(drain(queue))
    assert order.index("low") < 12


def test_evict() -> None:
    """Evicted is content of the lowest priority that waits, the oldest or newest, in whatever turn; never a control."""
    queue = LaneQueue()
    queue.append(element(1))
    queue.append(element(2, Priority.LOW))
    queue.append(StreamElement(EndOfTurn()))
    queue.append(element(3, Priority.LOW))
    queue.append(element(4))
    assert queue.lowest() == Priority.LOW
    evicted = [queue.evict(newest=newest) for newest in (True, False, True, False, True)]
    assert [each.payload if each else None for each in evicted] == [3, 2, 4, 1, None]
    assert payloads(drain(queue)) == ["EndOfTurn"]
    assert queue.lowest() > Priority.CRITICAL


def test_keep_and_clear() -> None:
    """What is not wanted goes, the rest keeps its order; the count is right."""
    queue = LaneQueue()
    queue.appendleft(StreamElement.interrupt())
    for number in range(6):
        queue.append(element(number, Priority(number % 4)))
        if number == 2:
            queue.append(StreamElement(EndOfTurn()))
    assert queue.keep(lambda e: e.is_control or e.payload % 2 == 0) == 3
    assert len(queue) == 5
    assert payloads(list(queue)) == ["Interrupt", 2, 0, "EndOfTurn", 4]
    assert payloads(drain(queue)) == ["Interrupt", 2, 0, "EndOfTurn", 4]
    queue.append(element(1))
    queue.clear()
    assert len(queue) == 0
    assert not list(queue)


@given(st.lists(st.one_of(st.integers(0, 4), st.none()), max_size=60), st.integers(1, 10))
def test_order(steps: list[int | None], patience: int) -> None:
    """Nothing is lost, each lane is first in first out between two controls, and controls stay between."""
    queue = LaneQueue(patience)
    model: list[deque[tuple[int, int]]] = [deque()]
    out: list[StreamElement] = []
    for number, step in enumerate(steps):
        if step is None:
            if len(queue):
                out.append(queue.popleft())
        elif step == 4:
            queue.append(StreamElement.of(ValueError(number)))
            model.append(deque())
        else:
            queue.append(element((step, number), Priority(step)))
            model[-1].append((step, number))
    out += drain(queue)
    part = 0
    seen: list[list[tuple[int, int]]] = [[]]
    for each in out:
        if each.is_control:
            part += 1
            seen.append([])
        else:
            seen[-1].append(each.payload)
    assert [sorted(each) for each in seen] == [sorted(each) for each in model]
    for between in seen:
        for lane in range(4):
            numbers = [number for step, number in between if step == lane]
            assert numbers == sorted(numbers)


def test_no_pattern_starves() -> None:
    """No pattern of arrivals keeps one lane from being served: lanes that come and go do not take its turn."""
    for pattern in range(64):
        queue = LaneQueue(patience=1)
        queue.append(element("waits", Priority.NORMAL))
        for step in range(200):
            for lane in (Priority.LOW, Priority.HIGH):
                wanted = (pattern >> (step // 2 % 6)) & 1 == (lane is Priority.LOW)
                if wanted and not any(e.payload == lane.name for e in queue):
                    queue.append(element(lane.name, lane))
            queue.append(element("critical", Priority.CRITICAL))
            if queue.popleft().payload == "waits":
                break
        assert step < 12, pattern
