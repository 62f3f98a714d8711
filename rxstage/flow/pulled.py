"""Sources that are pulled while the valve behind the entry is open: iterables and async iterables."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, Final

from msgspec.structs import replace as _replace

from rxstage.element import StreamElement
from rxstage.flow.buffer import BATCH
from rxstage.flow.callback import CAUGHT
from rxstage.flow.entry import Entry
from rxstage.flow.scope import Scope
from rxstage.flow.source import Source

__all__ = ["Awaited", "Iterated"]

_SLICE: Final = 0.001  # seconds for which a pump keeps the loop at most, between two elements


class Iterated(Source):
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


class Awaited(Source):
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


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return None
