"""A queue that drains by priority, for buffers with `priority_queue=True`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from rxstage.element import StreamElement
from rxstage.priority import Priority

__all__ = ["LaneQueue"]

_LANES = len(Priority)


class _Segment:
    __slots__ = ("control", "lanes")

    def __init__(self) -> None:
        self.lanes: tuple[deque[StreamElement], ...] = tuple(deque() for _ in range(_LANES))
        self.control: StreamElement | None = None


class LaneQueue:
    """A deque of elements that serves the higher priority first, and first in first out within one.

    Controls keep their place: what came before one leaves before it. Starvation is bounded: after
    `patience` elements served past waiting lower lanes, one of those is served: the one that was so longest ago.
    It has the part of `collections.deque` that buffers use.
    """

    __slots__ = ("_head", "_length", "_passed", "_patience", "_segments", "_served", "_turn")

    def __init__(self, patience: int = 8) -> None:
        self._segments: deque[_Segment] = deque((_Segment(),))
        self._head: deque[StreamElement] = deque()
        self._length = 0
        self._passed = 0
        self._patience = patience
        self._turn = 0
        self._served = [0] * _LANES  # the turn at which a lower lane was served out of its order

    def append(self, element: StreamElement) -> None:
        """Queue an element by its priority; a control behind all that is there."""
        last = self._segments[-1]
        if element.__class__ is StreamElement:
            last.lanes[element.priority].append(element)
        else:
            last.control = element
            self._segments.append(_Segment())
        self._length += 1

    def appendleft(self, element: StreamElement) -> None:
        """Queue an element before all others."""
        self._head.append(element)
        self._length += 1

    def popleft(self) -> StreamElement:
        """The next element.

        Raises:
            IndexError: it is empty.
        """
        if not self._length:
            raise IndexError("pop from an empty LaneQueue")
        self._length -= 1
        if self._head:
            return self._head.popleft()
        first = self._segments[0]
        waiting = [lane for lane in first.lanes if lane]
        if not waiting:
            self._segments.popleft()
            assert first.control is not None
            return first.control
        if len(waiting) == 1:
            self._passed = 0
            return waiting[0].popleft()
        self._passed += 1
        if self._passed > self._patience:
            self._passed = 0
            self._turn += 1
            lower = [priority for priority, lane in enumerate(first.lanes) if lane][:-1]
            priority = min(lower, key=self._served.__getitem__)
            self._served[priority] = self._turn
            return first.lanes[priority].popleft()
        return waiting[-1].popleft()

    def evict(self, newest: bool) -> StreamElement | None:
        """Take out one content element of the lowest waiting priority, the oldest or the newest of it."""
        for priority in range(_LANES):
            for segment in reversed(self._segments) if newest else self._segments:
                lane = segment.lanes[priority]
                if lane:
                    self._length -= 1
                    return lane.pop() if newest else lane.popleft()
        return None

    def lowest(self) -> int:
        """The lowest priority that waits; above all priorities where no content does."""
        return min(
            (priority for segment in self._segments for priority, lane in enumerate(segment.lanes) if lane),
            default=_LANES,
        )

    def keep(self, wanted: Callable[[StreamElement], bool]) -> int:
        """Drop what is not wanted, keep the order of the rest; gives how many were dropped."""
        before = self._length
        survivors = [element for element in self if wanted(element)]
        self.clear()
        for element in survivors:
            self.append(element)
        return before - self._length

    def clear(self) -> None:
        """Drop everything."""
        self._head.clear()
        self._segments = deque((_Segment(),))
        self._length = self._passed = 0

    def __iter__(self) -> Iterator[StreamElement]:
        yield from self._head
        for segment in self._segments:
            for lane in reversed(segment.lanes):
                yield from lane
            if segment.control is not None:
                yield segment.control

    def __len__(self) -> int:
        return self._length
