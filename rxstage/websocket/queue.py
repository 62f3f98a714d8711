"""The bounded queue at each end of a session, in either direction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal, TypeAlias

from msgspec import Struct

from rxstage.content import Audio, Data, Interrupt
from rxstage.element import StreamElement
from rxstage.flow.gate import Gate
from rxstage.priority import Priority
from rxstage.voice.speech import Spoken

__all__ = ["LinkOverflow", "LinkQueue", "LinkQueueStatistics"]

LinkOverflow: TypeAlias = Literal["drop_oldest", "wait"]
"""What a full queue does: leave out its oldest sound, or have the sender wait."""


class LinkQueueStatistics(Struct, frozen=True):
    """A snapshot of one queue.

    Attributes:
        depth: elements in it now.
        bytes: of sound in it now.
        peak: most elements that were in it at once.
        capacity: from how many on it is full.
        dropped: elements that were left out because it was full.
        flushed: elements that an `Interrupt` took away.
    """

    depth: int = 0
    bytes: int = 0
    peak: int = 0
    capacity: int = 0
    dropped: int = 0
    flushed: int = 0


class LinkQueue:
    """Elements on their way to or from the other end.

    Where it is full, `"drop_oldest"` leaves out the oldest sound (and the oldest data of low priority, such as levels);
    text, messages and controls are never left out: where there is nothing else, their sender waits. `"wait"` has every
    sender wait. An `Interrupt` takes away the sound that is queued, and the marks in it, and is never kept waiting.

    Args:
        capacity: elements from which on it is full.
        capacity_bytes: bytes of sound from which on it is full.
        overflow: what then happens.
    """

    __slots__ = (
        "_arrived",
        "_loop",
        "_waiting",
        "bytes",
        "capacity",
        "capacity_bytes",
        "dropped",
        "ended",
        "error",
        "flushed",
        "gap",
        "held",
        "items",
        "overflow",
        "peak",
    )

    def __init__(self, capacity: int, capacity_bytes: int, overflow: LinkOverflow) -> None:
        loop = asyncio.get_running_loop()
        self.capacity, self.capacity_bytes, self.overflow = capacity, capacity_bytes, overflow
        self.items: deque[StreamElement] = deque()
        self.bytes = 0
        self.peak = self.dropped = self.flushed = 0
        self.gap = False  # sound was left out since somebody asked
        self.held = False  # nothing is given away for the moment
        self.ended = False
        self.error: BaseException | None = None
        self._loop, self._arrived = loop, Gate(loop)
        self._waiting: list[asyncio.Future[None]] = []  # for room

    @property
    def full(self) -> bool:
        """Whether there is no room."""
        return len(self.items) >= self.capacity or self.bytes >= self.capacity_bytes

    def offer(self, element: StreamElement) -> bool:
        """Take an element, if there is or can be made room; tells whether it is settled.

        What comes after the end is left out.
        """
        if self.ended:
            self.dropped += 1
            return True
        content = element.content
        if content.__class__ is Interrupt:
            self.flush()
        elif self.full and not self._make_room():
            if not (self.overflow == "drop_oldest" and _may_go(element)):
                return False
            self.dropped += 1
            self.gap = True
            return True
        if content.__class__ is Audio:
            self.bytes += len(content.samples)
        items = self.items
        items.append(element)
        if len(items) > self.peak:
            self.peak = len(items)
        self._arrived.wake()
        return True

    async def put(self, element: StreamElement) -> None:
        """Take an element, once there is room."""
        while not self.offer(element):
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    def push(self, element: StreamElement) -> None:
        """Take an element, room or not; whoever calls it waits for `room` before it calls again."""
        if not self.ended:
            if element.content.__class__ is Audio:
                self.bytes += len(element.content.samples)
            self.items.append(element)
            self.peak = max(self.peak, len(self.items))
            self._arrived.wake()

    async def room(self) -> None:
        """Wait till there is room."""
        while self.full and not self.ended:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    async def get(self) -> StreamElement | None:
        """The oldest element, once there is one; None at the end.

        Raises:
            BaseException: what the queue has failed with.
        """
        while not self.items or self.held:
            if self.ended and not self.held:
                if self.error is not None:
                    raise self.error
                return None
            await self._arrived.wait()
        return self.take()

    def take(self) -> StreamElement:
        """The oldest element, where there is one."""
        element = self.items.popleft()
        if element.content.__class__ is Audio:
            self.bytes -= len(element.content.samples)
        if self._waiting:
            self._let_in()
        return element

    async def arrival(self) -> None:
        """Wait till something arrives, or `rouse` or `end` is called."""
        await self._arrived.wait()

    def rouse(self) -> None:
        """Wake whoever waits for something to arrive."""
        self._arrived.wake()

    def hold(self) -> None:
        """Give nothing away till `let_go`: an `Interrupt` is on its way past what would be taken."""
        self.held = True

    def let_go(self) -> None:
        """Give away again."""
        if self.held:
            self.held = False
            self._arrived.wake()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will come, or it has failed; what is in it can still be taken."""
        if not self.ended:
            self.ended, self.error = True, error
            self._arrived.wake()
            self._let_in()

    def flush(self) -> None:
        """Take away the sound and its marks."""
        self.keep(lambda element: not _is_sound(element))

    def keep(self, wanted: Callable[[StreamElement], bool]) -> None:
        """Take away everything that is not wanted."""
        kept = [element for element in self.items if wanted(element)]
        self.flushed += len(self.items) - len(kept)
        self.items.clear()
        self.items.extend(kept)
        self.bytes = sum(len(element.content.samples) for element in kept if element.content.__class__ is Audio)
        self._let_in()

    def statistics(self) -> LinkQueueStatistics:
        """A snapshot."""
        return LinkQueueStatistics(len(self.items), self.bytes, self.peak, self.capacity, self.dropped, self.flushed)

    def _let_in(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _make_room(self) -> bool:
        """Leave out the oldest that may go, till there is room; tells whether there is."""
        if self.overflow == "wait":
            return False
        items = self.items
        while self.full:
            oldest = next((at for at, element in enumerate(items) if _may_go(element)), None)
            if oldest is None:
                return False
            content = items[oldest].content
            if content.__class__ is Audio:
                self.bytes -= len(content.samples)
                self.gap = True
            del items[oldest]
            self.dropped += 1
        return True


def _may_go(element: StreamElement) -> bool:
    content = element.content
    return content.__class__ is Audio or (content.__class__ is Data and element.priority == Priority.LOW)


def _is_sound(element: StreamElement) -> bool:
    content = element.content
    return content.__class__ is Audio or (content.__class__ is Data and content.value.__class__ is Spoken)
