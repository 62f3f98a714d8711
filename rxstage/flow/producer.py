"""Stages that produce."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rxstage.config import ErrorPolicy, Retry
from rxstage.element import StreamElement
from rxstage.flow.buffer import BATCH
from rxstage.flow.callback import CAUGHT, Callback
from rxstage.flow.gate import Gate
from rxstage.flow.meter import Meter
from rxstage.flow.port import Port
from rxstage.flow.scope import DROP, Scope
from rxstage.flow.streamer import raised
from rxstage.flow.threads import StageThreads

__all__ = ["open_generator"]


class _Generator:
    """The task of one producer; what comes in passes by it."""

    def __init__(self, callback: Callback, function: Callable[..., Any], scope: Scope, down: Port) -> None:
        assert scope.loop is not None
        self.callback, self.function, self.scope, self.down = callback, function, scope, down
        self.name = callback.name
        self.meter: Meter = scope.meters[callback.name]
        self.opened = Gate(scope.loop)
        self.open_ends = 2
        self.stopping = False
        down.valve.wakers.append(self.opened.wake)
        scope.workers.append(self)
        scope.holders.append(self.holding)
        self.task = scope.spawn(self._produce(), self.name)
        self.task.add_done_callback(self._produced)
        scope.drainers.append(self.stop)

    @property
    def parked(self) -> bool:
        """Whether it waits for room, or has ended."""
        return self.opened.waiting or self.task.done()

    def holding(self) -> str | None:
        """What it holds, in words."""
        return f"stage {self.name!r}: waiting for room behind it" if self.opened.waiting else None

    def port(self) -> Port:
        meter, push = self.meter, self.down.push

        def pass_by(element: StreamElement) -> None:
            meter.received += 1
            meter.emitted += 1
            push(element)

        return Port(pass_by, self.down.control, self._end, self.down.valve)

    def stop(self) -> None:
        """Produce nothing more."""
        if not self.task.done():
            self.stopping = True
            self.scope.dismiss(self.task)

    def _end(self) -> None:
        self.open_ends -= 1
        if not self.open_ends:
            self.down.done()

    def _produced(self, task: asyncio.Task[Any]) -> None:
        """Its own end has come, or it was stopped, perhaps before it had begun."""
        if self.stopping if task.cancelled() else task.exception() is None:
            try:
                self._end()
            except Exception as error:
                self.scope.fail(error)

    async def _produce(self) -> None:
        policy, tries = self.callback.policy, 0
        while True:
            tries += 1
            stream: Any = None
            try:
                try:
                    stream = self.function()
                    if hasattr(stream, "__await__"):
                        stream = await stream
                    pull = self._puller(stream)
                except CAUGHT as error:
                    self._raised(error, policy, tries)
                else:
                    if await self._pump(pull, policy, tries):
                        return
            finally:
                if hasattr(stream, "aclose"):
                    await stream.aclose()
                elif hasattr(stream, "close") and hasattr(stream, "throw"):
                    stream.close()
            assert isinstance(policy, Retry)
            await asyncio.sleep(policy.delay(tries))

    def _puller(self, stream: Any) -> Callable[[], Any]:
        if hasattr(stream, "__aiter__"):
            pull: Callable[[], Any] = aiter(stream).__anext__
            return pull
        items = iter(stream)
        if self.callback.blocking:
            threads = StageThreads(self.name, 1)
            self.scope.release.append(threads.shutdown)
            loop = self.scope.loop
            assert loop is not None

            async def blocking() -> Any:
                item = await loop.run_in_executor(threads, next, items, DROP)
                if item is DROP:
                    raise StopAsyncIteration
                return item

            return blocking

        async def plain() -> Any:
            try:
                return next(items)
            except StopIteration:
                raise StopAsyncIteration from None

        return plain

    async def _pump(self, pull: Callable[[], Any], policy: ErrorPolicy, tries: int) -> bool:
        scope, down, meter, closers = self.scope, self.down, self.meter, self.down.valve.closers
        count = 0
        while True:
            while closers:
                await self.opened.wait()
            try:
                item = await pull()
            except StopAsyncIteration:
                return True
            except CAUGHT as error:
                self._raised(error, policy, tries)
                return False
            element = item if isinstance(item, StreamElement) else StreamElement.of(item)
            while closers:  # it may have been closed while the producer took its time
                await self.opened.wait()
            if element.__class__ is StreamElement:
                meter.emitted += 1
                down.push(
                    element.replace(
                        sequence=scope.next_sequence(),
                        timestamp=scope.clock(),
                        source=element.source or self.name,
                    )
                )
            else:
                control = scope.born(element, self.callback.node)
                if control is DROP:
                    return True
                down.control(control.replace(sequence=scope.next_sequence(), source=self.name))
            count += 1
            if not count % BATCH:
                await asyncio.sleep(0)

    def _raised(self, error: BaseException, policy: ErrorPolicy, tries: int) -> None:
        raised(self.callback, self.scope, self.meter, error, policy, tries)


def open_generator(callback: Callback, function: Callable[..., Any], scope: Scope, down: Port) -> Port:
    """The node of a producer."""
    return _Generator(callback, function, scope, down).port()
