"""Stages that work on several elements at a time, or can be interrupted in their work on one."""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import Any

from rxstage.content import EndOfTurn
from rxstage.element import StreamElement
from rxstage.flow.buffer import Buffer, describe
from rxstage.flow.callback import DROP, Kind
from rxstage.flow.gate import Gate
from rxstage.flow.invocation import Invocation
from rxstage.flow.meter import due
from rxstage.flow.port import Port
from rxstage.flow.scope import Scope

__all__ = ["ConcurrentWorker"]


class _Slot:
    __slots__ = ("done", "element", "out", "room", "stale", "task")

    def __init__(self, element: StreamElement) -> None:
        self.element = element
        self.out: deque[Any] = deque()
        self.done = False
        self.stale = False
        self.task: asyncio.Task[Any] | None = None
        self.room: Gate | None = None


class ConcurrentWorker:
    """One task that takes elements and starts a task for each, and a window that puts their results in order.

    The window holds at most `concurrency` elements, those that wait for their turn included.
    """

    def __init__(self, call: Invocation, scope: Scope, buffer: Buffer, down: Port) -> None:
        self.call, self.scope, self.buffer, self.down = call, scope, buffer, down
        self.name = call.callback.name
        self.ordered = call.callback.ordered
        self.limit = call.callback.concurrency
        assert scope.loop is not None
        self.loop = scope.loop
        self.arrived = Gate(scope.loop)
        self.slot_free = Gate(scope.loop)
        self.window: deque[_Slot] = deque()
        self.seen = 0
        self.flushing = False
        self.over = False

    def port(self) -> Port:
        """Start its task; gives its input."""
        buffer, scope = self.buffer, self.scope
        self.down.valve.wakers.append(self._flush)
        buffer.on_interrupt = self._interrupted
        scope.workers.append(self)
        scope.holders.append(self.holding)
        scope.spawn(self._work(), self.name)
        return buffer.port()

    @property
    def parked(self) -> bool:
        """Whether it waits for an element or for room and no call is running, or has ended."""
        return self.over or (
            (self.arrived.waiting or self.slot_free.waiting) and all(slot.done for slot in self.window)
        )

    def holding(self) -> str | None:
        """What it holds, in words."""
        return describe(self.name, self.buffer, len(self.window), bool(self.down.valve.closers))

    def _interrupted(self, element: StreamElement) -> None:
        for slot in tuple(self.window):
            if not slot.element.is_control:
                slot.stale = True
            elif slot.element.content.__class__ is EndOfTurn:
                slot.stale = slot.done = True
            else:
                continue
            slot.out.clear()
            if slot.room is not None:
                slot.room.wake()
            if self.call.callback.interruptible and slot.task is not None:
                self.scope.dismiss(slot.task)
        if self.call.callback.interruptible:  # cancelled work no longer fills the window
            self.window = deque(slot for slot in self.window if not slot.stale)
            self.slot_free.wake()
        self.down.control(element)
        self._flush()

    async def _work(self) -> None:
        buffer, queue, callback = self.buffer, self.buffer.queue, self.call.callback
        meter = self.call.meter
        while True:
            if not queue:
                if buffer.ended:
                    break
                buffer.park(self.arrived.wake)
                await self.arrived.wait()
                continue
            while len(self.window) >= self.limit:
                await self.slot_free.wait()
            if not queue:  # emptied by an interrupt meanwhile
                continue
            element = queue.popleft()
            if buffer.full:
                buffer.reopen()
            slot = _Slot(element)
            if element.__class__ is not StreamElement:
                while not self.ordered and self.window:  # what came before a control leaves before it
                    await self.slot_free.wait()
                slot.out.append(element)
                slot.done = True
            else:
                meter.received += 1
                if callback.select.takes(element):
                    slot.task = self.scope.spawn(self._one(slot), self.name)
                else:
                    slot.done = True
                    if callback.kind is not Kind.SINK:
                        slot.out.append(element)
            self.window.append(slot)
            self._flush()
        while self.window:
            await self.slot_free.wait()
        self.over = True
        self.down.done()

    async def _one(self, slot: _Slot) -> None:
        call, times = self.call, self.call.meter.times
        self.seen += 1
        begin = perf_counter() if times is not None and due(self.seen) else 0.0
        try:
            if call.lasting:
                await self._stream(slot)
            else:
                result = await call.run(slot.element)
                if not slot.stale:
                    slot.out.extend(result if result.__class__ is list else (result,))
        except asyncio.CancelledError:
            if not slot.stale:
                raise
        if begin:
            times.add(perf_counter() - begin)  # type: ignore[union-attr]
        slot.done = True
        self._flush()

    async def _stream(self, slot: _Slot) -> None:
        items = self.call.items(slot.element)
        slot.room = Gate(self.loop)
        try:
            async for item in items:
                if slot.stale:
                    break
                slot.out.append(item)
                self._flush()
                while slot.out and not slot.stale:
                    await slot.room.wait()
        finally:
            await items.aclose()

    def _flush(self) -> None:
        """Hand on what may leave now: of the head of the window, or of all of it where order does not matter."""
        if self.flushing:
            return
        self.flushing = True
        down, meter, closers = self.down, self.call.meter, self.down.valve.closers
        freed = False
        try:
            while self.window and not closers:
                moved = False
                for slot in (self.window[0],) if self.ordered else tuple(self.window):
                    while slot.out and not closers:
                        item = slot.out.popleft()
                        moved = True
                        if item.__class__ is StreamElement:
                            meter.emitted += 1
                            down.push(item)
                        elif item is not DROP:
                            down.control(item)
                    if slot.room is not None and not slot.out:
                        slot.room.wake()
                    if slot.done and not slot.out:
                        if slot in self.window:
                            self.window.remove(slot)
                        moved = freed = True
                if not moved:
                    break
        except Exception as error:  # what lies behind raised: this was called by a valve or a task of ours
            self.scope.fail(error)
        finally:
            self.flushing = False
        if freed:
            self.slot_free.wake()
