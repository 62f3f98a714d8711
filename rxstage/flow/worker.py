"""Stages that treat one element at a time and take their time over it: a buffer and the task that empties it."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from rxstage.element import StreamElement
from rxstage.flow.buffer import BATCH, Buffer, describe
from rxstage.flow.callback import (
    CAUGHT,
    DROP,
    Callback,
    Kind,
    settle,
)
from rxstage.flow.concurrent import ConcurrentWorker
from rxstage.flow.gate import TURNS, Gate, relax
from rxstage.flow.invocation import Invocation, was_asked_for
from rxstage.flow.meter import due
from rxstage.flow.port import Port
from rxstage.flow.scope import Scope

__all__ = ["open_worker"]


def open_worker(callback: Callback, scope: Scope, buffer: Buffer, down: Port) -> Port:
    """The node of a callback that is asynchronous, threaded, timed, concurrent or interruptible."""
    meter = scope.meters[callback.name]
    call = Invocation(callback, scope, meter)
    if callback.concurrency == 1 and not callback.interruptible:
        return _Sequential(call, scope, buffer, down).port()
    return ConcurrentWorker(call, scope, buffer, down).port()


class _Sequential:
    """One task that takes an element, awaits the function, hands the result on, and takes the next."""

    def __init__(self, call: Invocation, scope: Scope, buffer: Buffer, down: Port) -> None:
        self.call, self.scope, self.buffer, self.down = call, scope, buffer, down
        self.name = call.callback.name
        assert scope.loop is not None
        self.arrived = Gate(scope.loop)
        self.opened = Gate(scope.loop)
        self.epoch = 0
        self.over = False
        self.late = False  # whether what is in the function belongs to a turn that was interrupted meanwhile

    def port(self) -> Port:
        down, buffer, scope = self.down, self.buffer, self.scope
        down.valve.wakers.append(self.opened.wake)
        buffer.on_interrupt = self._interrupted
        scope.workers.append(self)
        scope.holders.append(self.holding)
        plain = self.call.plain and self.call.meter.times is None
        scope.spawn(self._work_plain() if plain else self._work(), self.name)
        return buffer.port()

    @property
    def parked(self) -> bool:
        """Whether it waits for an element or for room, or has ended."""
        return self.arrived.waiting or self.opened.waiting or self.over

    def holding(self) -> str | None:
        """What it holds, in words."""
        return describe(self.name, self.buffer, int(not self.parked), self.opened.waiting)

    def _interrupted(self, element: StreamElement) -> None:
        self.epoch += 1
        self.late = True
        self.down.control(element)

    async def _work_plain(self) -> None:
        """`_work` for a function of every element whose errors end the execution: the usual case, and lean."""
        buffer, down, callback, meter, scope = self.buffer, self.down, self.call.callback, self.call.meter, self.scope
        queue, closers, push, function = buffer.queue, down.valve.closers, down.push, self.call.function
        take, select, parked, arrived = buffer.queue.popleft, callback.select, buffer.park, self.arrived
        behind = down.buffer  # filled right here, where a buffer follows at once
        append, waiting = (behind.queue.append, behind.queue) if behind is not None else (_never, ())
        everything, bare = select.everything, select.form == "element"
        taken = aside = 0  # elements that were taken, and those of them that did not go on

        def read() -> None:
            meter.received = taken
            meter.emitted = taken - aside - (not self.parked and not scope.ended and taken > aside)

        scope.readers.append(read)
        while True:
            while not queue:
                if buffer.ended:
                    self.over = True
                    down.done()
                    return
                for _ in range(TURNS):
                    if not queue:
                        await relax()
                if queue or buffer.ended:
                    continue
                parked(arrived.wake)
                await arrived.wait()
            element = take()
            if buffer.full:
                buffer.reopen()
            if element.__class__ is not StreamElement:
                down.control(element)
            else:
                taken += 1
                if everything or select.takes(element):
                    self.late = False
                    try:
                        result = await function(element if bare else select.argument(element))
                        if result.__class__ is not StreamElement:
                            result = settle(callback, scope, element, result)
                    except CAUGHT as error:
                        aside += 1
                        if isinstance(error, asyncio.CancelledError) and was_asked_for(scope):
                            raise
                        meter.errors += 1
                        raise callback.failed(error, element) from error
                else:
                    result = element
                if self.late or result.__class__ is not StreamElement:
                    aside += 1
                    if not self.late and result is not DROP:
                        down.control(result)
                elif behind is None:
                    push(result)
                else:
                    append(result)
                    if len(waiting) >= behind.trigger:
                        behind.crossed(result)
            if closers:
                meter.stalls += 1
                for _ in range(TURNS):
                    if closers:
                        await relax()
                while closers:
                    await self.opened.wait()

    async def _work(self) -> None:
        buffer, down, call = self.buffer, self.down, self.call
        queue, closers = buffer.queue, down.valve.closers
        push, control = down.push, down.control
        callback, meter = call.callback, call.meter
        run, everything, takes = call.run, callback.select.everything, callback.select.takes
        sink = callback.kind is Kind.SINK
        times = meter.times
        seen = 0
        while True:
            if not queue:
                if buffer.ended:
                    break
                buffer.park(self.arrived.wake)
                await self.arrived.wait()
                continue
            element = queue.popleft()
            if buffer.full:
                buffer.reopen()
            if element.__class__ is not StreamElement:
                control(element)
            else:
                meter.received += 1
                if not everything and not takes(element):
                    if not sink:
                        meter.emitted += 1
                        push(element)
                else:
                    epoch = self.epoch
                    seen += 1
                    begin = perf_counter() if times is not None and due(seen) else 0.0
                    if call.lasting:
                        await self._stream(element, epoch)
                        result: Any = DROP
                    else:
                        result = await run(element)
                    if begin:
                        times.add(perf_counter() - begin)  # type: ignore[union-attr]
                    if epoch != self.epoch:
                        pass  # late: the turn that it belongs to was interrupted
                    elif result.__class__ is StreamElement:
                        meter.emitted += 1
                        push(result)
                    elif result.__class__ is list:
                        for item in result:
                            if item.__class__ is StreamElement:
                                meter.emitted += 1
                                push(item)
                            elif item is not DROP:
                                control(item)
                    elif result is not DROP:
                        control(result)
            if closers:
                await self._room()
        self.over = True
        down.done()

    async def _stream(self, element: StreamElement, epoch: int) -> None:
        down, meter = self.down, self.call.meter
        items = self.call.items(element)
        count = 0
        try:
            async for item in items:
                if epoch != self.epoch:
                    break
                if item.__class__ is StreamElement:
                    meter.emitted += 1
                    down.push(item)
                elif item is not DROP:
                    down.control(item)
                count += 1
                if down.valve.closers:
                    await self._room()
                elif not count % BATCH:
                    await asyncio.sleep(0)  # a generator that never waits must not keep the loop
        finally:
            await items.aclose()

    async def _room(self) -> None:
        meter = self.call.meter
        meter.stalls += 1
        begin = self.scope.clock()
        while self.down.valve.closers:
            await self.opened.wait()
        meter.stalled += self.scope.clock() - begin


def _never(_: object) -> None:
    raise AssertionError("no buffer follows")
