"""Stages that are one function over the whole stream, and stages that produce."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from rxstage.config import ErrorPolicy, Retry
from rxstage.content import Interrupt
from rxstage.element import ControlElement, Metadata, StreamElement
from rxstage.errors import RxStageError, StageError
from rxstage.events import StageRestarted
from rxstage.flow.buffer import BATCH, Buffer, describe, survives
from rxstage.flow.callback import CAUGHT, Callback, calls_again, settle
from rxstage.flow.gate import Gate
from rxstage.flow.interruptible import Interrupts
from rxstage.flow.invocation import was_asked_for
from rxstage.flow.meter import Meter
from rxstage.flow.port import Port
from rxstage.flow.scope import DROP, Scope

__all__ = ["Streamer", "open_streamer", "raised"]

_REMEMBERED: Final = 64  # controls that a function which reads ahead may yet yield


class Streamer:
    """The task of one whole-stream function, and what it was handed last."""

    def __init__(self, callback: Callback, function: Callable[..., Any], scope: Scope, buffer: Buffer, down: Port):
        assert scope.loop is not None
        self.callback, self.function, self.scope, self.buffer, self.down = callback, function, scope, buffer, down
        self.name = callback.name
        self.meter = scope.meters[callback.name]
        self.arrived = Gate(scope.loop)
        self.opened = Gate(scope.loop)
        self.handed: StreamElement | None = None  # a control that has not been passed on yet
        self.went: deque[Any] = deque(maxlen=_REMEMBERED)  # contents of controls that went ahead of the function
        self.over = False
        self.interrupts = Interrupts()
        self.held: list[StreamElement] = []  # controls that the function keeps till it yields them
        scope.streamers[callback.name] = self
        self.envelope = StreamElement.of("", source=callback.name)
        self.metadata: Any = None
        self.task: asyncio.Task[Any] | None = None
        self.reader: asyncio.Task[Any] | None = None
        down.valve.wakers.append(self.opened.wake)
        buffer.on_interrupt = self._interrupted
        scope.workers.append(self)
        scope.holders.append(self.holding)

    @property
    def parked(self) -> bool:
        """Whether it waits for an element or for room, in the stage's own task, or has ended."""
        return self.over or self.opened.waiting or (self.arrived.waiting and self.reader is self.task)

    def holding(self) -> str | None:
        """What it holds, in words."""
        return describe(self.name, self.buffer, int(not self.parked and not self.arrived.waiting), self.opened.waiting)

    def _interrupted(self, element: StreamElement) -> None:
        self.buffer.queue.appendleft(element)
        self.went.extend(control.content for control in self.held if not survives(control))  # gone: not to be yielded
        self.held = [control for control in self.held if survives(control)]
        self.interrupts.arrive()
        self.down.control(element)
        self.arrived.wake()

    def post(self, element: StreamElement) -> bool:
        """Put an element into the input, behind what waits there; False where it went on: an interrupt past the end."""
        if element.content.__class__ is Interrupt and self.buffer.ended and not self.over:
            self.down.control(element if element.sequence else self.scope.born(element, self.callback.node))
            return False
        if self.over or self.buffer.ended:
            raise RxStageError(f"stage {self.name!r} gets nothing more: its input has ended")
        if element.__class__ is StreamElement:
            self.buffer.push(element)
        else:
            self.buffer.control(element)
        return True

    def hold(self, control: StreamElement) -> None:
        """Keep a control that was handed out from going on before the function yields it."""
        if control is self.handed:
            self.handed = None
            self.held.append(control)

    # -- the function's input

    def __aiter__(self) -> AsyncIterator[StreamElement]:
        return self

    async def __anext__(self) -> StreamElement:
        self._pass_on()
        buffer = self.buffer
        queue = buffer.queue
        while not queue:
            if buffer.ended:
                raise StopAsyncIteration
            if self.arrived.waiting:
                raise RuntimeError(f"stage {self.name!r} asks for the next element twice at the same time")
            buffer.park(self.arrived.wake)
            self.reader = asyncio.current_task()
            await self.arrived.wait()
        element = queue.popleft()
        if buffer.full:
            buffer.reopen()
        if element.__class__ is StreamElement:
            self.meter.received += 1
            self.envelope = element
            if element.metadata:
                self.metadata = (
                    element.metadata if self.metadata is None else Metadata({**self.metadata, **element.metadata})
                )
        elif element.content.__class__ is Interrupt:
            self.interrupts.pending = False
            self.went.append(element.content)
        else:
            self.handed = element
        return element

    def _pass_on(self) -> None:
        handed, self.handed = self.handed, None
        if handed is not None:
            self.went.append(handed.content)
            self.down.control(handed)

    def _let_go(self) -> None:
        for control in self.held:
            self.down.control(control)
        self.held.clear()

    # -- the function's output

    async def work(self) -> None:
        """Run the function to its end, and again where a `Retry` says so."""
        self.task = asyncio.current_task()
        policy, tries = self.callback.policy, 0
        while True:
            tries += 1
            stream: Any = None
            try:
                stream = self.function(self)
                if hasattr(stream, "__await__"):
                    stream = await stream
                items = aiter(stream)
            except CAUGHT as error:
                self._raised(error, policy, tries)
            else:
                try:
                    if await self._pump(items, policy, tries):
                        break
                finally:
                    if hasattr(stream, "aclose"):
                        await stream.aclose()
            assert isinstance(policy, Retry)
            await asyncio.sleep(policy.delay(tries))
        self._pass_on()
        self._let_go()
        self.over = True
        self.down.done()
        while not self.buffer.ended:  # it ended before its input: what still comes is dropped
            self.buffer.clear()
            self.buffer.park(self.arrived.wake)
            await self.arrived.wait()

    async def _pump(self, items: AsyncIterator[Any], policy: ErrorPolicy, tries: int) -> bool:
        """Hand on what the function yields; True at its end, False where it is to be started again."""
        down, meter, closers = self.down, self.meter, self.down.valve.closers
        interrupts = self.interrupts
        count = 0
        while True:
            try:
                item = await anext(items)
                item = self._settled(item)
            except StopAsyncIteration:
                return True
            except CAUGHT as error:
                self._raised(error, policy, tries)
                return False
            if item.__class__ is StreamElement:
                if not interrupts.pending:
                    meter.emitted += 1
                    down.push(item)
            elif item is not DROP:
                down.control(item)
            count += 1
            if closers:
                meter.stalls += 1
                begin = self.scope.clock()
                while closers:
                    await self.opened.wait()
                meter.stalled += self.scope.clock() - begin
            elif not count % BATCH:
                await asyncio.sleep(0)  # a function that never waits must not keep the loop

    def _settled(self, item: Any) -> Any:
        if item.__class__ is StreamElement:
            self.metadata = None
            return item
        if item.__class__ is ControlElement:
            if item is self.handed or (self.handed is not None and item.content is self.handed.content):
                self.handed = None
                return item
            for control in self.held:
                if item.content is control.content:
                    self.held.remove(control)
                    return item
            if any(item.content is content for content in self.went):
                return DROP  # it went ahead already
            return item if item.sequence else self.scope.born(item, self.callback.node)
        if item is None:
            raise TypeError(f"the function of stage {self.name!r} yielded None; yield elements or payloads")
        envelope = self.envelope
        if self.metadata is not None and self.metadata is not envelope.metadata:
            envelope = envelope.replace(metadata=self.metadata)
        self.metadata = None
        return settle(self.callback, self.scope, envelope, item)

    def _raised(self, error: BaseException, policy: ErrorPolicy, tries: int) -> None:
        raised(self.callback, self.scope, self.meter, error, policy, tries)
        self.envelope, self.metadata = StreamElement.of("", source=self.name), None
        self._pass_on()
        self._let_go()


def open_streamer(callback: Callback, function: Callable[..., Any], scope: Scope, buffer: Buffer, down: Port) -> Port:
    """The node of a function over the whole stream."""
    streamer = Streamer(callback, function, scope, buffer, down)
    scope.spawn(streamer.work(), callback.name)
    return buffer.port()


def raised(
    callback: Callback, scope: Scope, meter: Meter, error: BaseException, policy: ErrorPolicy, tries: int
) -> None:
    """A function over the whole stream raised: returns where it may begin again.

    Raises:
        StageError: it may not.
    """
    if isinstance(error, StageError):
        raise error
    if isinstance(error, asyncio.CancelledError) and was_asked_for(scope):
        raise error
    meter.errors += 1
    if not calls_again(policy, error, tries):
        raise callback.failed(error, None) from error
    scope.tell(StageRestarted, stage=callback.name, stage_type=callback.stage_type, error=error, attempt=tries + 1)
