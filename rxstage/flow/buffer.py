"""The bounded buffer on an edge, and its public face as a Subject."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from rxstage.config import Overflow
from rxstage.content import EndOfTurn, Interrupt
from rxstage.element import StreamElement
from rxstage.errors import BufferOverflow
from rxstage.flow.lanes import LaneQueue
from rxstage.flow.port import Port
from rxstage.flow.valve import Valve
from rxstage.priority import Priority

__all__ = ["BATCH", "Buffer", "BufferStatistics", "describe", "survives"]

BATCH: Final = 64  # elements a pump delivers before it lets the loop's other work run


class BufferStatistics(Struct, frozen=True):
    """A snapshot of one buffer.

    Attributes:
        depth: elements in it now.
        peak: most that were in it at once.
        capacity: from how many on it closes its valve or drops; 0 where the edge has no buffer.
        dropped: elements that its overflow policy dropped.
        waiting: whether it keeps the pumps before it waiting.
    """

    depth: int = 0
    peak: int = 0
    capacity: int = 0
    dropped: int = 0
    waiting: bool = False


class Buffer:
    """A bounded queue of elements between one region and the reader behind it.

    With `overflow="wait"` it closes its valve at `capacity` and opens it at an eighth of that, so it holds at
    most `capacity - 1` plus the largest burst of one delivery. The other policies never close the valve.
    Controls are never dropped; an `Interrupt` empties it of the turn that it ends.

    Args:
        capacity: elements it holds.
        overflow: what happens past that.
        priority_queue: serve by priority.
        edge: names of the two stages it stands between, for errors and statistics.
        on_drop: told of every drop, with the edge and the count so far.
        on_overflow: told of the overflow under `overflow="fail"`.
    """

    __slots__ = (
        "_low",
        "_on_drop",
        "_on_overflow",
        "_wake",
        "capacity",
        "dropped",
        "edge",
        "ended",
        "full",
        "on_interrupt",
        "overflow",
        "peak",
        "queue",
        "trigger",
        "valve",
    )

    def __init__(
        self,
        capacity: int,
        overflow: Overflow = "wait",
        *,
        priority_queue: bool = False,
        edge: tuple[str, str] = ("", ""),
        on_drop: Callable[[tuple[str, str], int], object] | None = None,
        on_overflow: Callable[[BufferOverflow], object] | None = None,
    ) -> None:
        self.capacity = capacity
        self.overflow = overflow
        self.edge = edge
        self.queue: deque[StreamElement] | LaneQueue = LaneQueue() if priority_queue else deque()
        self.valve = Valve()
        self.peak = 0
        self.dropped = 0
        self.full = False
        self.ended = False
        self.on_interrupt: Callable[[StreamElement], object] | None = None
        self.trigger = 1  # the depth at which a push has more to do than to append; 0 while the reader waits
        self._wake: Callable[[], object] | None = None
        self._low = capacity // 8
        self._on_drop = on_drop
        self._on_overflow = on_overflow

    def push(self, element: StreamElement) -> None:
        """Take one element; wakes the reader."""
        queue = self.queue
        queue.append(element)
        if len(queue) >= self.trigger:
            self.crossed(element)

    def port(self) -> Port:
        """The input of the buffer as a node's port."""
        return Port(self.push, self.control, self.done, self.valve, self)

    def park(self, wake: Callable[[], object]) -> None:
        """The reader waits: call `wake` once, when something arrives or the end is told."""
        self._wake = wake
        self.trigger = 0

    def control(self, element: StreamElement) -> None:
        """Take a control; an `Interrupt` overtakes what is queued."""
        if element.content.__class__ is Interrupt:
            self.flush()
            if self.on_interrupt is not None:
                self.on_interrupt(element)
                return
            self.queue.appendleft(element)
        else:
            self.queue.append(element)
        if len(self.queue) > self.peak:
            self.peak = len(self.queue)
        self.rouse()

    def done(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self.rouse()

    def rouse(self) -> None:
        """Wake the reader, if it waits."""
        wake, self._wake = self._wake, None
        if wake is not None:
            self._set_trigger()
            wake()

    def reopen(self) -> None:
        """To be called by the reader after it took an element while `full`."""
        if len(self.queue) <= self._low:
            self.full = False
            self.valve.open(self)

    def flush(self) -> None:
        """Drop the content and the `EndOfTurn`s of the running turn; failures and critical content stay."""
        queue = self.queue
        if isinstance(queue, LaneQueue):
            queue.keep(survives)
        elif queue:
            survivors = [element for element in queue if survives(element)]
            queue.clear()
            queue.extend(survivors)
        if self.full:
            self.reopen()

    def lift(self) -> None:
        """Take whatever still comes, however much: a drain lets out what is in flight, which is bounded."""
        self.capacity = self._low = sys.maxsize
        self._set_trigger()
        self.full = False
        self.valve.open(self)

    def clear(self) -> None:
        """Drop everything and open the valve."""
        self.queue.clear()
        if self.full:
            self.full = False
            self.valve.open(self)

    def statistics(self) -> BufferStatistics:
        """A snapshot."""
        return BufferStatistics(len(self.queue), self.peak, self.capacity, self.dropped, self.full)

    def crossed(self, element: StreamElement) -> None:
        """What a push has to do beside appending, once the depth has reached `trigger`."""
        depth = len(self.queue)
        if self.overflow == "wait":
            if depth >= self.capacity and not self.full:
                self.full = True
                self.valve.close(self)
        elif depth > self.capacity:
            self._overflow(element)
            depth = len(self.queue)
        if depth > self.peak:
            self.peak = depth
        wake, self._wake = self._wake, None
        self._set_trigger()
        if wake is not None:
            wake()

    def _set_trigger(self) -> None:
        full = self.capacity if self.overflow == "wait" else self.capacity + 1
        self.trigger = full if self.peak >= full else self.peak + 1

    def _overflow(self, element: StreamElement) -> None:
        queue, policy = self.queue, self.overflow
        if policy == "fail":
            reserve = max(1, self.capacity // 4) if isinstance(queue, LaneQueue) else 0
            if element.priority == Priority.CRITICAL and len(queue) <= self.capacity + reserve:
                return
            if self._on_overflow is not None:
                self._on_overflow(
                    BufferOverflow(
                        f"the buffer from {self.edge[0]!r} to {self.edge[1]!r} is full with {self.capacity} elements; "
                        f"give it a larger buffer_size, or overflow='wait' or a dropping policy"
                    )
                )
            return
        if policy == "latest":
            count = self._keep_latest(element)
        elif isinstance(queue, LaneQueue):
            count = 0 if queue.evict(newest=policy == "drop_newest") is None else 1
        else:
            count = self._drop(queue, newest=policy == "drop_newest")
        if count:
            self.dropped += count
            if self._on_drop is not None:
                self._on_drop(self.edge, self.dropped)

    def _drop(self, queue: deque[StreamElement], newest: bool) -> int:
        if newest:
            queue.pop()
            return 1
        if queue[0].__class__ is StreamElement:
            queue.popleft()
            return 1
        newest_index = len(queue) - 1  # what has just come stays, where all before it are controls
        for index, queued in enumerate(queue):
            if queued.__class__ is StreamElement and index != newest_index:
                del queue[index]
                return 1
        return 0

    def _keep_latest(self, element: StreamElement) -> int:
        queue = self.queue
        before = len(queue)
        controls = [queued for queued in queue if queued.__class__ is not StreamElement]
        queue.clear()
        for queued in controls:
            queue.append(queued)
        queue.append(element)  # it came last, so that it stands behind all controls
        return before - len(queue)


def survives(element: StreamElement) -> bool:
    """Whether an interrupt leaves an element in its place: failures and critical content stay."""
    if element.__class__ is StreamElement:
        return element.priority == Priority.CRITICAL
    return element.content.__class__ is not EndOfTurn


def describe(name: str, buffer: Buffer, busy: int, waiting: bool) -> str | None:
    """What a stage holds, in words; None where it holds nothing."""
    parts = []
    if buffer.queue:
        parts.append(f"{len(buffer.queue)} queued")
    if busy:
        parts.append(f"{busy} in its function")
    if waiting:
        parts.append("waiting for room behind it")
    return f"stage {name!r}: {', '.join(parts)}" if parts else None
