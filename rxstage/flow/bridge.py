"""From what users have to the entry of a graph, and from its output to an async iterator.

Iterables and async iterables are pulled while the valve behind the entry is open. An Observable is slowed
by blocking the thread that it pushes from; one that pushes on the loop's own thread cannot be slowed.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace as _replace
from pydantic import BaseModel
from reactivex import abc

from rxstage.content import EndOfStream, Failure, Interrupt
from rxstage.element import StreamElement
from rxstage.errors import BufferOverflow, StallError
from rxstage.flow.buffer import BATCH, survives
from rxstage.flow.entry import Entry
from rxstage.flow.scope import Scope

__all__ = ["Inlet", "Observed", "Source", "is_file", "is_single", "lines_of", "open_source"]

CAUGHT: Final = (Exception, asyncio.CancelledError)
_SLICE: Final = 0.001  # seconds for which a pump keeps the loop at most, between two elements
_PATIENCE: Final = 3600.0  # seconds without progress after which a blocked producer gives up
_CHUNK: Final = 65536  # bytes of a binary file that make one element


def is_single(value: Any) -> bool:
    """Whether a source is one element, though it may be iterable."""
    return isinstance(value, (str, bytes, bytearray, memoryview, Struct, BaseModel, Mapping, BaseException)) or not (
        isinstance(value, abc.ObservableBase) or hasattr(value, "__iter__") or hasattr(value, "__aiter__")
    )


def is_file(value: Any) -> bool:
    """Whether a source is an open file."""
    return isinstance(value, io.IOBase) or (hasattr(value, "readline") and hasattr(value, "read"))


def lines_of(file: Any) -> Iterator[Any]:
    """The elements of a file: lines of text without their ends, or chunks of 64 KiB of a binary one.

    A file of elements or other values gives those.
    """
    if isinstance(file, (io.RawIOBase, io.BufferedIOBase)):
        while chunk := file.read(_CHUNK):
            yield chunk
        return
    for line in file:
        yield line.rstrip("\r\n") if isinstance(line, str) else line


class Source:
    """What feeds an entry. `stop` ends it for good; `paused` tells whether a valve keeps it waiting.

    `accept` takes what is sent out of band, where that does not go straight to the entry.
    """

    accept: Callable[[Any], object] | None = None

    def __init__(self, scope: Scope, entry: Entry) -> None:
        self.scope = scope
        self.entry = entry
        self.closers = entry.port.valve.closers
        self.stopped = False
        entry.port.valve.wakers.append(self.wake)

    @property
    def paused(self) -> bool:
        """Whether it has more and may not give it."""
        return bool(self.closers) and not self.stopped

    def start(self) -> None:
        """Begin."""

    def wake(self) -> None:
        """The valve has opened."""

    def stop(self) -> None:
        """Take nothing more and close what was opened."""
        self.stopped = True

    def _failed(self, error: BaseException) -> None:
        self.stop()
        self.scope.fail(error)


class _Iterated(Source):
    """An iterable, pulled in batches on the loop."""

    def __init__(self, scope: Scope, entry: Entry, iterable: Iterable[Any]) -> None:
        super().__init__(scope, entry)
        self.iterable: Any = iterable
        self.items: Iterator[Any] | None = None
        self.scheduled = False

    def start(self) -> None:
        try:
            self.items = iter(self.iterable)
        except Exception as error:
            self._failed(error)
            return
        self.iterable = None
        self.wake()

    def wake(self) -> None:
        if not self.scheduled and not self.stopped and not self.closers and self.items is not None:
            assert self.scope.loop is not None
            self.scheduled = True
            self.scope.loop.call_soon(self._pump)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            items, self.items = self.items, None
            close = getattr(items, "close", None)
            if close is not None and hasattr(items, "send"):
                try:
                    close()
                except (ValueError, RuntimeError):
                    pass  # a generator that stops its own pipeline is running right now: it ends by itself
                except Exception as error:
                    self.scope.late.append(error)

    def _pump(self) -> None:
        self.scheduled = False
        entry, closers = self.entry, self.closers
        if self.items is None or self.stopped:
            return
        pull, enter, push = self.items.__next__, entry.enter, entry.port.push
        number, clock = self.scope.next_sequence, self.scope.clock
        assert self.scope.loop is not None
        time = self.scope.loop.time
        end = time() + _SLICE
        try:
            for count in range(BATCH):
                if closers or self.stopped:
                    return
                try:
                    value = pull()
                except StopIteration:
                    self.stopped = True
                    entry.end()
                    return
                if value.__class__ is StreamElement:
                    if self.stopped:
                        return
                    entry.received += 1
                    push(_replace(value, sequence=number(), timestamp=clock()))
                else:
                    enter(value)
                if count & 7 == 7 and time() > end:
                    break
        except CAUGHT as error:
            self._failed(error)
        except BaseException as error:
            self._failed(error)
            raise
        self.wake()


class _Awaited(Source):
    """An async iterable, pulled by a task."""

    def __init__(self, scope: Scope, entry: Entry, stream: Any) -> None:
        super().__init__(scope, entry)
        self.stream = stream
        self.gate: asyncio.Future[None] | None = None
        self.task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        self.task = self.scope.spawn(self._work(), "<source>")

    def wake(self) -> None:
        gate, self.gate = self.gate, None
        if gate is not None and not gate.done():
            gate.set_result(None)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            if self.task is None:
                return
            if self.task is _current_task():  # it pushes right now: it sees that it is stopped, and closes in peace
                self.scope.dismissed.add(self.task)
            else:
                self.scope.dismiss(self.task)

    async def _room(self) -> None:
        assert self.scope.loop is not None
        while self.closers or self.entry.pending:
            if self.closers:
                self.gate = self.scope.loop.create_future()
                await self.gate
            else:
                await asyncio.sleep(0)  # what was sent before enters at the loop's next turn

    async def _work(self) -> None:
        items = aiter(self.stream)
        count = 0
        try:
            while not self.stopped:
                await self._room()
                try:
                    value = await anext(items)
                except StopAsyncIteration:
                    self.stopped = True
                    self.entry.end()
                    return
                await self._room()
                self.entry.enter(value)
                count += 1
                if not count % BATCH:
                    await asyncio.sleep(0)  # a source that never waits must not keep the loop
        except asyncio.CancelledError:
            if not self.stopped:
                raise
        finally:
            self.stopped = True
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()


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


class _OnThread(Inlet):
    """An iterable or Observable that is pulled or subscribed on a thread of its own."""

    def __init__(self, scope: Scope, entry: Entry, run: Callable[[_OnThread], None]) -> None:
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


def _current_task() -> asyncio.Task[Any] | None:
    return asyncio.current_task() if _on_a_loop() else None


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


def _pull(iterable: Iterable[Any]) -> Callable[[_OnThread], None]:
    def run(inlet: _OnThread) -> None:
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


def _observe(observable: abc.ObservableBase[Any]) -> Callable[[_OnThread], None]:
    def run(inlet: _OnThread) -> None:
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


def open_source(source: Any, scope: Scope, entry: Entry, subscribe_on: str = "loop") -> Source:
    """What feeds `entry` from any kind of source, not started yet; the execution lives on a loop."""
    if isinstance(source, abc.ObservableBase):
        if subscribe_on == "thread":
            return _OnThread(scope, entry, _observe(source))
        return Observed(scope, entry, source)
    if is_single(source):
        return _Iterated(scope, entry, (source,))
    if hasattr(source, "__aiter__"):
        return _Awaited(scope, entry, source)
    if is_file(source):
        return _OnThread(scope, entry, _pull(lines_of(source)))
    if subscribe_on == "thread":
        return _OnThread(scope, entry, _pull(source))
    return _Iterated(scope, entry, source)
