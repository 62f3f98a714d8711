"""Sources that push: an Observable is slowed by blocking the thread that it pushes from.

One that pushes on the loop's own thread cannot be slowed.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from reactivex import abc

from rxstage.content import EndOfStream, Failure, Interrupt
from rxstage.element import StreamElement
from rxstage.errors import BufferOverflow, StallError
from rxstage.flow.buffer import BATCH, survives
from rxstage.flow.callback import CAUGHT
from rxstage.flow.entry import Entry
from rxstage.flow.scope import Scope
from rxstage.flow.source import Source

__all__ = ["Inlet", "Observed", "OnThread", "observing", "pulling"]

_PATIENCE: Final = 3600.0  # seconds without progress after which a blocked producer gives up


class Inlet(Source):
    """Takes what others push, from any thread, and hands it on while the valve is open.

    Another thread is blocked while `capacity` elements wait; on the loop's own thread up to
    `hot_source_limit` may wait, then the execution fails.
    """

    def __init__(self, scope: Scope, entry: Entry) -> None:
        super().__init__(scope, entry)
        assert scope.loop is not None
        self.loop = scope.loop
        self.thread = threading.get_ident()
        self.capacity = scope.config.buffer_size
        self.limit = scope.config.hot_source_limit
        self.waiting: deque[Any] = deque()
        self.room = threading.Condition()
        self.scheduled = False
        self.ending: Callable[[], object] | None = None
        self.delivering = False
        self.taken = 0

    def put(self, value: Any) -> None:
        """Take one value."""
        if self.stopped or self.ending is not None:
            return
        if threading.get_ident() != self.thread:
            self._put_blocking(value)
        elif self.closers or self.waiting or self.delivering or self.entry.pending:
            self._enqueue(value)
            if len(self.waiting) > self.limit:
                self._failed(self._overflow("on the loop's own thread"))
            elif not self.closers:
                self._schedule()
        else:
            self._deliver(value)

    def finish(self, ending: Callable[[], object]) -> None:
        """Call `ending` once everything that waits has entered; from now on nothing more does."""
        with self.room:
            if self.stopped or self.ending is not None or self.loop.is_closed():
                return
            self.ending = ending
            if self.scheduled:
                return
            self.scheduled = True
        if threading.get_ident() == self.thread:
            self.loop.call_soon(self._pump)
        else:
            self.loop.call_soon_threadsafe(self._pump)

    def wake(self) -> None:
        if self.waiting or self.ending is not None:
            self._schedule()

    def stop(self) -> None:
        with self.room:
            self.stopped = True
            self.waiting.clear()
            self.room.notify_all()

    def _enqueue(self, value: Any) -> None:
        if value.__class__ is not StreamElement and _content(value).__class__ is Interrupt:
            survivors = [each for each in self.waiting if _outlives(each)]
            self.waiting.clear()  # it overtakes what waits, which belongs to the turn that it ends
            self.waiting.append(value)
            self.waiting.extend(survivors)
        else:
            self.waiting.append(value)

    def _overflow(self, where: str) -> BufferOverflow:
        return BufferOverflow(
            f"a source that cannot be slowed ran {self.limit} elements ahead (hot_source_limit): it pushes {where}; "
            f"use a dropping overflow policy, or subscribe_on='thread' for a cold source"
        )

    def _put_blocking(self, value: Any) -> None:
        with self.room:
            while len(self.waiting) >= self.capacity and not self.stopped:
                if _on_a_loop():  # another loop than ours: no loop is ever blocked
                    if len(self.waiting) >= self.limit:
                        self.loop.call_soon_threadsafe(self._failed, self._overflow("on the thread of another loop"))
                        return
                    break
                taken = self.taken
                if not self.room.wait(_PATIENCE) and taken == self.taken and not self.stopped:
                    error = StallError(
                        f"a producer was blocked for {_PATIENCE:.0f} s while nothing moved", self.scope.holding()
                    )
                    self.loop.call_soon_threadsafe(self._failed, error)
                    return
            if self.stopped or self.ending is not None:
                return
            self._enqueue(value)
            if not self.scheduled:
                self.scheduled = True
                self.loop.call_soon_threadsafe(self._pump)

    def _schedule(self) -> None:
        with self.room:
            if not self.scheduled:
                self.scheduled = True
                self.loop.call_soon(self._pump)

    def _deliver(self, value: Any) -> None:
        self.delivering = True
        try:
            self.entry.enter(value)
        except Exception as error:
            self._failed(error)
        finally:
            self.delivering = False

    def _pump(self) -> None:
        with self.room:
            self.scheduled = False
        for _ in range(BATCH):
            if self.closers or self.stopped:
                return
            if self.entry.pending:
                break
            with self.room:
                if not self.waiting:
                    break
                value = self.waiting.popleft()
                self.taken += 1
                if len(self.waiting) <= self.capacity // 2:
                    self.room.notify_all()
            self._deliver(value)
        if self.waiting or (self.ending is not None and self.entry.pending):
            self._schedule()
        elif self.ending is not None and not self.stopped:
            self.stopped = True
            self.ending()


class Observed(Inlet):
    """An Observable, subscribed on the loop's thread, or on the caller's where it is deferred."""

    def __init__(self, scope: Scope, entry: Entry, observable: abc.ObservableBase[Any], deferred: bool = False) -> None:
        super().__init__(scope, entry)
        self.observable = observable
        self.deferred = deferred
        self.cold = False
        self.subscription: abc.DisposableBase | None = None

    def start(self) -> None:
        if not self.deferred:
            self.subscribe()

    def subscribe(self, cold: bool = False) -> None:
        """Subscribe, on whatever thread calls.

        Args:
            cold: nobody else depends on the producer: once this has stopped, the producer is stopped by an error.
        """
        self.cold = cold
        scheduler = None if self.deferred else self.scope.scheduler
        try:
            subscription = self.observable.subscribe(
                self.put,
                lambda error: self.finish(lambda: self._failed(error)),
                lambda: self.finish(self.entry.end),
                scheduler=scheduler,
            )
        except _Stopped:
            return
        except Exception as raised:
            error = raised
            self.finish(lambda: self._failed(error))
            return
        self.subscription = subscription
        if self.stopped:
            subscription.dispose()

    def put(self, value: Any) -> None:
        if self.cold and self.stopped:
            raise _Stopped
        super().put(value)

    def stop(self) -> None:
        super().stop()
        subscription, self.subscription = self.subscription, None
        if subscription is not None:
            subscription.dispose()


class _Stopped(Exception):
    """Stops a cold producer that nobody can dispose of, because its `subscribe` has not returned yet."""


class OnThread(Inlet):
    """An iterable or Observable that is pulled or subscribed on a thread of its own."""

    def __init__(self, scope: Scope, entry: Entry, run: Callable[[OnThread], None]) -> None:
        super().__init__(scope, entry)
        self.run = run
        self.subscription: abc.DisposableBase | None = None

    def start(self) -> None:
        threading.Thread(target=self.run, args=(self,), name="rxstage:<source>", daemon=True).start()

    def stop(self) -> None:
        super().stop()
        subscription, self.subscription = self.subscription, None
        if subscription is not None:
            subscription.dispose()


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _content(value: Any) -> Any:
    """The content that a value will have, where that can be a control."""
    return value.content if isinstance(value, StreamElement) else value


def _outlives(value: Any) -> bool:
    """Whether an interrupt leaves what waits in its place; a raw value is an ordinary element, or a control."""
    if isinstance(value, StreamElement):
        return survives(value)
    return isinstance(value, (BaseException, Failure, EndOfStream, Interrupt))


def pulling(iterable: Iterable[Any]) -> Callable[[OnThread], None]:
    """What an `OnThread` does to pull an iterable."""

    def run(inlet: OnThread) -> None:
        try:
            for value in iterable:
                if inlet.stopped:
                    return
                inlet.put(value)
        except CAUGHT as raised:
            error = raised
            inlet.finish(lambda: inlet._failed(error))
        else:
            inlet.finish(inlet.entry.end)
        finally:
            close = getattr(iterable, "close", None)
            if close is not None and hasattr(iterable, "send"):
                close()

    return run


def observing(observable: abc.ObservableBase[Any]) -> Callable[[OnThread], None]:
    """What an `OnThread` does to subscribe to an Observable."""

    def run(inlet: OnThread) -> None:
        try:
            inlet.subscription = observable.subscribe(
                inlet.put,
                lambda error: inlet.finish(lambda: inlet._failed(error)),
                lambda: inlet.finish(inlet.entry.end),
            )
        except Exception as raised:
            error = raised
            inlet.finish(lambda: inlet._failed(error))
        else:
            if inlet.stopped and inlet.subscription is not None:
                inlet.subscription.dispose()

    return run
