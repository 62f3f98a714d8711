"""Threads for engines that block, and how what they make gets to an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, Future
from typing import Any, Generic, ParamSpec, TypeVar

__all__ = ["EngineThreads", "Making"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class EngineThreads(Executor):
    """Up to `limit` threads; first come, first served, whichever loop asks.

    A thread ends when nothing is left to do, so that there is nothing to close. They are no daemons: an interpreter
    that ends waits for them, as a library of C must not be torn down while it calls back.

    Args:
        name: of the engine, which is in the names of the threads.
        limit: threads at a time.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads = 0

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Run `fn` on a thread, when its turn comes."""
        future: Future[_T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._threads < self._limit:
                threading.Thread(target=self._run, args=(work,), name=f"rxstage:{self._name}", daemon=False).start()
                self._threads += 1
            else:
                self._waiting.append(work)
        return future

    def _run(self, work: Callable[[], None] | None) -> None:
        while work is not None:
            work()
            with self._lock:
                work = self._waiting.popleft() if self._waiting else None
                if work is None:
                    self._threads -= 1


class Making(Generic[_T]):
    """What a function on a thread makes, piece by piece, for a coroutine.

    Args:
        threads: where it runs.
        function: gets this object before its own arguments; it calls `give` for each piece, and returns soon once that
            is False, or `stopped` is true.
        args: of the function.
    """

    def __init__(self, threads: EngineThreads, function: Callable[..., None], *args: Any) -> None:
        self._threads = threads
        self._function, self._args = function, args
        self._pieces: asyncio.Queue[_T | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for more: the coroutine has gone away, or the program ends."""
        return self._stopped or not threading.main_thread().is_alive()

    def give(self, piece: _T) -> bool:
        """Hand over a piece, from the thread; False where nobody wants more."""
        if self.stopped:
            return False
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:  # the loop is closed
            self._stopped = True
        return not self._stopped

    async def pieces(self) -> AsyncGenerator[_T, None]:
        """Start it, and give the pieces as they come; closing this stops it. Raises what the function raises."""
        # As work of the loop's, so that a loop in virtual time waits for it.
        done = self._loop.run_in_executor(self._threads, self._function, self, *self._args)
        done.add_done_callback(lambda _: self._pieces.put_nowait(None))
        try:
            while (piece := await self._pieces.get()) is not None:
                yield piece
            done.result()
        finally:
            self._stopped = True
            done.cancel()
