"""Work of a whole-stream function that an `Interrupt` cuts short."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from rxstage.flow.gate import Gate

if TYPE_CHECKING:
    from rxstage.flow.scope import Scope

__all__ = ["Interruptible", "Interrupts"]

_T = TypeVar("_T")
_AHEAD: Final = 16  # items that wait to be taken before the iterator behind is slowed


class Interrupts:
    """The interrupts of one stage: whether one is on its way to it, and what it is to cut short."""

    __slots__ = ("pending", "stops")

    def __init__(self) -> None:
        self.pending = False  # from an interrupt's arrival till the function has been handed it
        self.stops: set[Callable[[], object]] = set()

    def arrive(self) -> None:
        """An interrupt has arrived: cut short what is under way."""
        self.pending = True
        for stop in tuple(self.stops):
            stop()


class Interruptible(AsyncIterator[_T], Generic[_T]):
    """Iterates something in a task of the execution, till it ends or an `Interrupt` arrives.

    Use it as an `async with` block, so that nothing is left behind where the loop is left early. The iterator is
    closed in the task that it runs in.

    Attributes:
        interrupted: whether an interrupt cut it short; the iteration then ends at once, and what was not taken yet
            is gone.
    """

    def __init__(self, items: AsyncIterator[_T], scope: Scope, stage: str, interrupts: Interrupts) -> None:
        assert scope.loop is not None
        self._items, self._scope, self._stage, self._interrupts = items, scope, stage, interrupts
        self._ready: deque[_T] = deque()
        self._arrived, self._room = Gate(scope.loop), Gate(scope.loop)
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.interrupted = False

    async def __aenter__(self) -> Interruptible[_T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[_T]:
        return self

    async def __anext__(self) -> _T:
        ready = self._ready
        if self._task is None:
            self._start()
        task = self._task
        while not ready:
            if self.interrupted or self._closed or task is None:
                raise StopAsyncIteration
            if task.done():
                self._interrupts.stops.discard(self.interrupt)
                if task.cancelled():
                    raise asyncio.CancelledError(f"the work of stage {self._stage!r} was cancelled")
                if (error := task.exception()) is not None:
                    raise error
                raise StopAsyncIteration
            await self._arrived.wait()
        item = ready.popleft()
        if not ready:
            self._room.wake()
        return item

    async def aclose(self) -> None:
        """Stop the iteration and wait until the iterator has closed."""
        self._closed = True
        self._interrupts.stops.discard(self.interrupt)
        task = self._task
        if task is not None and not task.done() and not self.interrupted:
            task.cancel()  # an interrupt has done that: what takes its time to end is left to the execution, its owner
            await asyncio.wait((task,))

    def _start(self) -> None:
        if self._closed or self._interrupts.pending:
            self.interrupted = self._interrupts.pending
            return
        scope = self._scope
        assert scope.loop is not None
        self._task = task = scope.loop.create_task(self._pump(), name=f"rxstage:{self._stage}")
        scope.tasks[task] = self._stage
        task.add_done_callback(self._ended)
        self._interrupts.stops.add(self.interrupt)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._scope.forget_quietly(task)
        self._arrived.wake()

    def interrupt(self) -> None:
        """Cut it short, as an `Interrupt` that arrives does."""
        self.interrupted = True
        self._ready.clear()
        self._interrupts.stops.discard(self.interrupt)
        if self._task is not None:
            self._task.cancel()
        self._arrived.wake()

    async def _pump(self) -> None:
        ready, items = self._ready, self._items
        try:
            async for item in items:
                ready.append(item)
                if len(ready) == 1:
                    self._arrived.wake()
                elif len(ready) >= _AHEAD:
                    await self._room.wait()
        finally:
            if (close := getattr(items, "aclose", None)) is not None:
                await close()
