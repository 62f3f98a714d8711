"""Stages that treat one element at a time and take their time over it: a buffer and the task that empties it."""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, Final

from rxstage.config import Fallback
from rxstage.content import EndOfTurn
from rxstage.element import StreamElement
from rxstage.errors import StageError
from rxstage.flow.buffer import BATCH, Buffer
from rxstage.flow.callback import (
    CAUGHT,
    DROP,
    Abandoned,
    Callback,
    Kind,
    bind,
    calls_again,
    fallbacks,
    final,
    gather,
    resolve,
    settle,
)
from rxstage.flow.meter import Meter
from rxstage.flow.port import Port
from rxstage.flow.scope import Scope
from rxstage.flow.threads import StageThreads

__all__ = ["Gate", "describe", "open_worker", "was_asked_for"]


_TURNS: Final = 2  # of the loop that a worker gives its neighbours before it waits in earnest, which costs more


@types.coroutine
def relax() -> Generator[None, None, None]:
    """Let the loop take one turn: what `asyncio.sleep(0)` does, without its way there."""
    yield


class Gate:
    """Where a task waits for one of several wake-ups, in front of a valve or behind a buffer."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether somebody waits here."""
        return self._future is not None and not self._future.done()

    def wake(self) -> None:
        """Let go whoever waits."""
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        """What to await for the next wake-up."""
        self._future = future = self._loop.create_future()
        return future


def open_worker(callback: Callback, scope: Scope, buffer: Buffer, down: Port) -> Port:
    """The node of a callback that is asynchronous, threaded, timed, concurrent or interruptible."""
    meter = scope.meters[callback.name]
    call = _Call(callback, scope, meter)
    if callback.concurrency == 1 and not callback.interruptible:
        return _Sequential(call, scope, buffer, down).port()
    return _Concurrent(call, scope, buffer, down).port()


# ------------------------------------------------------------------------------------------ one call


class _Call:
    """One element through the user's function: threads, timeout and error policy."""

    def __init__(self, callback: Callback, scope: Scope, meter: Meter) -> None:
        self.callback = callback
        self.scope = scope
        self.meter = meter
        self.function = bind(callback, scope)
        self.loop = scope.loop
        self.spares = [_Call(stage.callback(callback.name), scope, meter) for stage in fallbacks(callback.policy)]
        if callback.threaded:
            self._threaded()
        self.plain = (
            callback.policy == "fail" and callback.timeout is None and callback.kind is Kind.MAP
        )  # the fast path: nothing to do but to await the function
        self.lasting = callback.kind is Kind.FLAT and callback.policy == "fail" and callback.timeout is None

    def _threaded(self) -> None:
        callback, function, loop = self.callback, self.function, self.loop
        assert loop is not None
        threads = StageThreads(callback.name, callback.concurrency) if callback.executor is None else None
        executor = callback.executor if threads is None else threads
        if threads is not None:
            self.scope.release.append(threads.shutdown)
            if callback.kind is Kind.FLAT:  # a generator runs on the thread, too
                function = _listed(function)

        async def on_thread(argument: Any) -> Any:
            try:
                return await loop.run_in_executor(executor, function, argument)
            except asyncio.CancelledError:
                if threads is not None and not self.scope.ended:
                    threads.abandon()
                    self.meter.abandoned += 1
                raise

        self.function = on_thread

    async def run(self, element: StreamElement) -> Any:
        """The settled result: an element, a control element or DROP; of a flat callback, a list of such."""
        callback, policy, meter = self.callback, self.callback.policy, self.meter
        tries = 0
        while True:
            tries += 1
            try:
                if callback.timeout is None:
                    return await self._once(element)
                return await self._in_time(element, callback.timeout)
            except CAUGHT as error:
                meter.errors += 1
                if isinstance(error, asyncio.CancelledError) and was_asked_for(self.scope):
                    raise
                if calls_again(policy, error, tries):
                    await asyncio.sleep(policy.delay(tries))  # type: ignore[union-attr]
                    continue
                last = final(policy)
                if isinstance(last, Fallback) and not isinstance(error, asyncio.CancelledError):
                    return await self.spares[0].run(element)
                resolved = resolve(callback, "fail" if isinstance(last, Fallback) else last, error, element)
                return settle(callback, self.scope, element, resolved)

    async def _in_time(self, element: StreamElement, seconds: float) -> Any:
        scope, name = self.scope, self.callback.name
        assert self.loop is not None
        task = self.loop.create_task(self._once(element), name=f"rxstage:{name}")
        scope.tasks[task] = name
        task.add_done_callback(scope.forget_quietly)
        try:
            done, _ = await asyncio.wait((task,), timeout=seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            return task.result()
        task.cancel()
        await asyncio.wait((task,), timeout=0)  # one that obeys ends here; another one is left behind
        if not task.done():
            self.meter.abandoned += not self.callback.threaded
            scope.tasks[task] = f"{name} (abandoned after {seconds} s)"
        raise Abandoned(f"stage {name!r} took longer than its timeout of {seconds} s")

    async def _once(self, element: StreamElement) -> Any:
        callback, scope = self.callback, self.scope
        result = self.function(callback.select.argument(element))
        if callback.kind is Kind.FLAT:
            if not hasattr(result, "__aiter__") and hasattr(result, "__await__"):
                result = await result
            return [settle(callback, scope, element, item) async for item in gather(result)]
        if hasattr(result, "__await__"):
            result = await result
        if callback.kind is Kind.FILTER:
            return element if result else DROP
        if callback.kind is Kind.SINK:
            return DROP
        return settle(callback, scope, element, result)

    async def items(self, element: StreamElement) -> Any:
        """The settled items of a flat callback, as they come."""
        callback, scope = self.callback, self.scope
        stream: Any = None
        try:
            stream = self.function(callback.select.argument(element))
            if not hasattr(stream, "__aiter__") and hasattr(stream, "__await__"):
                stream = await stream
            async for item in gather(stream):
                yield settle(callback, scope, element, item)
        except StageError:
            raise
        except CAUGHT as error:
            if isinstance(error, asyncio.CancelledError) and was_asked_for(scope):
                raise
            self.meter.errors += 1
            raise callback.failed(error, element) from error
        finally:
            if hasattr(stream, "aclose"):
                await stream.aclose()


def _listed(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda argument: list(function(argument))


def was_asked_for(scope: Scope) -> bool:
    """Whether a cancellation that the current task sees was meant for it, not raised by what it awaits."""
    task = asyncio.current_task()
    return scope.ended or (task is not None and task.cancelling() > 0)


# ------------------------------------------------------------------------------------------ one at a time


class _Sequential:
    """One task that takes an element, awaits the function, hands the result on, and takes the next."""

    def __init__(self, call: _Call, scope: Scope, buffer: Buffer, down: Port) -> None:
        self.call, self.scope, self.buffer, self.down = call, scope, buffer, down
        self.name = call.callback.name
        assert scope.loop is not None
        self.arrived = Gate(scope.loop)
        self.opened = Gate(scope.loop)
        self.epoch = 0
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
        """Whether it waits for an element or for room."""
        return self.arrived.waiting or self.opened.waiting

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
        ended = False
        over = False

        def read() -> None:
            meter.received = taken
            meter.emitted = taken - aside - (not over and not self.parked and not scope.ended and taken > aside)

        scope.readers.append(read)
        while True:
            while not queue:
                if buffer.ended:
                    over = True
                    down.done()
                    return
                for _ in range(_TURNS):
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
                for _ in range(_TURNS):
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
                    begin = perf_counter() if times is not None and (seen <= BATCH or not seen % BATCH) else 0.0
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


# ------------------------------------------------------------------------------------------ several at a time


class _Slot:
    __slots__ = ("done", "element", "out", "room", "stale", "task")

    def __init__(self, element: StreamElement) -> None:
        self.element = element
        self.out: deque[Any] = deque()
        self.done = False
        self.stale = False
        self.task: asyncio.Task[Any] | None = None
        self.room: Gate | None = None


class _Concurrent:
    """One task that takes elements and starts a task for each, and a window that puts their results in order.

    The window holds at most `concurrency` elements, those that wait for their turn included.
    """

    def __init__(self, call: _Call, scope: Scope, buffer: Buffer, down: Port) -> None:
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

    def port(self) -> Port:
        buffer, scope = self.buffer, self.scope
        self.down.valve.wakers.append(self._flush)
        buffer.on_interrupt = self._interrupted
        scope.workers.append(self)
        scope.holders.append(self.holding)
        scope.spawn(self._work(), self.name)
        return buffer.port()

    @property
    def parked(self) -> bool:
        """Whether it waits for an element or for room, and no call is running."""
        return (self.arrived.waiting or self.slot_free.waiting) and all(slot.done for slot in self.window)

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
        self.down.done()

    async def _one(self, slot: _Slot) -> None:
        call, times = self.call, self.call.meter.times
        self.seen += 1
        begin = perf_counter() if times is not None and (self.seen <= BATCH or not self.seen % BATCH) else 0.0
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
