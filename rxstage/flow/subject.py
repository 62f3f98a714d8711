"""The bounded buffer as a Subject, for any Rx app."""

from __future__ import annotations

import asyncio
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxstage.config import Overflow
from rxstage.element import StreamElement
from rxstage.flow.buffer import BATCH, Buffer, BufferStatistics
from rxstage.flow.valve import Valve

__all__ = ["BufferedSubject"]


class BufferedSubject(Observable[StreamElement], abc.ObserverBase[Any]):
    """A Subject with a bounded buffer: elements go in as they come and out in batches on the loop.

    Everybody who is subscribed sees every element; one that raises is dropped with its error and the
    others go on. What is there is delivered before `on_completed`; before `on_error`, too.
    Raw values become elements.

    Args:
        capacity: elements it holds.
        overflow: what happens past that; under `"wait"` its `valve` closes for those who ask it.
        priority_queue: serve by priority.
        loop: the loop it delivers on; by default the running one at the first subscription.

    Emits: what it is given, in order (by priority with `priority_queue`).
    Holds: at most `capacity` elements, or `capacity - 1` plus the largest burst under `"wait"`.
    Completes: once it was completed and is empty.
    Fails: with the error it was given, or `BufferOverflow` under `overflow="fail"`.
    """

    def __init__(
        self,
        capacity: int = 16,
        overflow: Overflow = "wait",
        *,
        priority_queue: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__()
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity!r}")
        self._buffer = Buffer(capacity, overflow, priority_queue=priority_queue, on_overflow=self.on_error)
        self._loop = loop
        self._observers: list[abc.ObserverBase[StreamElement]] = []
        self._closers: set[object] = set()
        self._error: Exception | None = None
        self._stopped = self._finished = self._scheduled = False
        self._buffer.park(self._schedule)

    @property
    def valve(self) -> Valve:
        """Closed while the buffer is full: what feeds this subject can obey it."""
        return self._buffer.valve

    def statistics(self) -> BufferStatistics:
        """A snapshot of the buffer."""
        return self._buffer.statistics()

    def pause(self, who: object) -> None:
        """Deliver nothing until `who` resumes; any number of pausers."""
        self._closers.add(who)

    def resume(self, who: object) -> None:
        """Take back a `pause`."""
        self._closers.discard(who)
        self._schedule()

    def on_next(self, value: Any) -> None:
        """Take one element or raw value."""
        if not self._stopped:
            element = StreamElement.of(value)
            (self._buffer.push if element.__class__ is StreamElement else self._buffer.control)(element)

    def on_error(self, error: Exception) -> None:
        """End with an error, once what is there is delivered."""
        if not self._stopped:
            self._stopped = True
            self._error = error
            self._buffer.done()

    def on_completed(self) -> None:
        """End, once what is there is delivered."""
        if not self._stopped:
            self._stopped = True
            self._buffer.done()

    def dispose(self) -> None:
        """Drop everything and everybody."""
        self._stopped = self._finished = True
        self._observers.clear()
        self._buffer.clear()

    def _subscribe_core(
        self, observer: abc.ObserverBase[StreamElement], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        if self._finished:
            self._end(observer)
            return Disposable()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._observers.append(observer)
        self._schedule()

        def dispose() -> None:
            if observer in self._observers:
                self._observers.remove(observer)
                if not self._observers:
                    self._buffer.clear()

        return Disposable(dispose)

    def _schedule(self) -> None:
        if self._loop is None or not self._observers or self._closers:
            self._buffer.park(self._schedule)
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        buffer = self._buffer
        queue = buffer.queue
        for _ in range(BATCH):
            if not queue or self._closers or not self._observers:
                break
            element = queue.popleft()
            if buffer.full:
                buffer.reopen()
            for observer in tuple(self._observers):
                try:
                    observer.on_next(element)
                except Exception as error:
                    self._raised(observer, error)
        if queue:
            self._schedule()
        elif buffer.ended:
            if not self._finished:
                self._finished = True
                observers, self._observers = self._observers, []
                for observer in observers:
                    try:
                        self._end(observer)
                    except Exception as error:
                        self._report(error)
        else:
            buffer.park(self._schedule)

    def _raised(self, observer: abc.ObserverBase[StreamElement], error: Exception) -> None:
        """Drop an observer with its error; one that takes none must not keep anything from the others."""
        if observer in self._observers:
            self._observers.remove(observer)
        try:
            observer.on_error(error)
        except Exception as unheard:
            self._report(unheard)

    def _report(self, error: Exception) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler({"message": "an observer of a BufferedSubject raised", "exception": error})

    def _end(self, observer: abc.ObserverBase[StreamElement]) -> None:
        if self._error is not None:
            observer.on_error(self._error)
        else:
            observer.on_completed()
