"""Edges of their own: a buffer that a pump empties on the loop, and a trampoline where there is no loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rxstage.element import StreamElement
from rxstage.flow.buffer import BATCH, Buffer
from rxstage.flow.port import Port
from rxstage.flow.scope import Scope

__all__ = ["Trampoline", "open_pump"]


class _Pump:
    """Delivers what its buffer holds, in batches, while the valve behind it is open."""

    def __init__(self, scope: Scope, buffer: Buffer, down: Port) -> None:
        self.scope, self.buffer, self.down = scope, buffer, down
        self.scheduled = False
        self.finished = False
        down.valve.wakers.append(self.kick)
        buffer.on_interrupt = down.control
        buffer.park(self.kick)
        scope.workers.append(self)
        scope.holders.append(self.holding)

    @property
    def parked(self) -> bool:
        """Whether it waits for an element or for room."""
        return not self.scheduled

    def holding(self) -> str | None:
        """What it holds, in words."""
        if not self.buffer.queue:
            return None
        source, target = self.buffer.edge
        return f"edge {source!r} -> {target!r}: {len(self.buffer.queue)} queued"

    def kick(self) -> None:
        buffer = self.buffer
        if not self.scheduled and not self.down.valve.closers and (buffer.queue or buffer.ended):
            assert self.scope.loop is not None
            self.scheduled = True
            self.scope.loop.call_soon(self._deliver)
        elif not self.scheduled:
            buffer.park(self.kick)

    def _deliver(self) -> None:
        self.scheduled = False
        if self.scope.ended or self.finished:
            return
        buffer, queue, down = self.buffer, self.buffer.queue, self.down
        closers, push, control = down.valve.closers, down.push, down.control
        try:
            for _ in range(BATCH):
                if not queue or closers:
                    break
                element = queue.popleft()
                if buffer.full:
                    buffer.reopen()
                (push if element.__class__ is StreamElement else control)(element)
            if not queue and buffer.ended:
                self.finished = True
                down.done()
                return
        except Exception as error:
            self.scope.fail(error)
            return
        except BaseException as error:
            self.scope.fail(error)
            raise
        self.kick()


def open_pump(scope: Scope, buffer: Buffer, down: Port) -> Port:
    """The node of an edge with a buffer of its own."""
    _Pump(scope, buffer, down)
    return buffer.port()


class Trampoline:
    """Keeps the call stack of a deep inline graph flat: what is pushed is done once the outermost push is back.

    All trampolines of an execution share one queue, so everything keeps its order along each edge.
    """

    def __init__(self) -> None:
        self.queue: deque[tuple[Callable[..., object], tuple[StreamElement, ...]]] = deque()
        self.running = False

    def port(self, down: Port) -> Port:
        """A port in front of `down` that never nests."""

        def push(element: StreamElement) -> None:
            self._later(down.push, element)

        def control(element: StreamElement) -> None:
            self._later(down.control, element)

        def done() -> None:
            self._later(down.done)

        return Port(push, control, done, down.valve)

    def outermost(self, port: Port) -> Port:
        """The entry of the graph: runs what its pushes have left in the queue."""

        def push(element: StreamElement) -> None:
            self._run(port.push, element)

        def control(element: StreamElement) -> None:
            self._run(port.control, element)

        def done() -> None:
            self._run(port.done)

        return Port(push, control, done, port.valve)

    def _later(self, call: Callable[..., object], *args: StreamElement) -> None:
        self.queue.append((call, args))
        if not self.running:
            self._drain()

    def _run(self, call: Callable[..., object], *args: StreamElement) -> None:
        if self.running:
            call(*args)
            return
        self.running = True
        try:
            call(*args)
        except BaseException:
            self.queue.clear()
            raise
        finally:
            self.running = False
        if self.queue:
            self._drain()

    def _drain(self) -> None:
        self.running = True
        try:
            while self.queue:
                call, args = self.queue.popleft()
                call(*args)
        except BaseException:
            self.queue.clear()
            raise
        finally:
            self.running = False
