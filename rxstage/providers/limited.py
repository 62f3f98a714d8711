"""A provider of which not too much is asked at once, by all executions together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from rxstage.ports.provider import ModelEvent, ModelRequest, Provider
from rxstage.providers.called import called
from rxstage.providers.wrapper import ProviderWrapper

__all__ = ["LimitedProvider"]


class _Slots:
    """A semaphore for tasks on any loops, first come first served. That of asyncio belongs to one loop."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lock = threading.Lock()

    async def acquire(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            with self._lock:
                waits = turn in self._waiting
                if waits:
                    self._waiting.remove(turn)
            if not waits:  # the slot was on its way here
                self.release()
            raise

    def release(self) -> None:
        with self._lock:
            while self._waiting:
                turn = self._waiting.popleft()
                with suppress(RuntimeError):  # its loop is closed: nobody waits there any more
                    turn.get_loop().call_soon_threadsafe(_give, turn)
                    return
            self._free += 1


def _give(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


class LimitedProvider(ProviderWrapper):
    """Bounds how many calls run at once and how many begin in a minute, over all executions that share it.

    What comes too early waits for its turn, in order.

    Args:
        provider: what is called.
        concurrency: calls that run at once; None is no limit.
        per_minute: calls that begin in a minute, evenly spread; None is no limit.
        burst: calls that may begin at once after a pause.
    """

    def __init__(
        self, provider: Provider, *, concurrency: int | None = None, per_minute: float | None = None, burst: int = 1
    ) -> None:
        super().__init__(provider)
        for name, value in (("concurrency", concurrency), ("per_minute", per_minute), ("burst", burst)):
            if value is not None and value <= 0:
                raise ValueError(f"LimitedProvider: {name} must be above 0, got {value!r}")
        self._slots = _Slots(concurrency) if concurrency is not None else None
        self._interval = 60.0 / per_minute if per_minute is not None else 0.0
        self._slack = self._interval * (burst - 1)
        self._next = float("-inf")  # when a call may begin, if there were no burst
        self._lock = threading.Lock()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer, once it is this call's turn."""
        slots = self._slots
        if slots is not None:
            await slots.acquire()
        try:
            if self._interval:
                await self._turn()
            async with called(self.provider, request) as events:
                async for event in events:
                    yield event
        finally:
            if slots is not None:
                slots.release()

    async def _turn(self) -> None:
        """Wait until this call may begin (the generic cell rate algorithm)."""
        now = asyncio.get_running_loop().time()
        with self._lock:
            before, at = self._next, max(self._next, now)
            self._next = mine = at + self._interval
        try:
            await asyncio.sleep(max(at - self._slack - now, 0.0))
        except asyncio.CancelledError:
            with self._lock:
                if self._next == mine:  # it never began: the next one may begin in its place
                    self._next = before
            raise
