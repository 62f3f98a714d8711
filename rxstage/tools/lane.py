"""The calls of one toolbox on one event loop: how many at once, their threads, and those that do not end."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from rxstage.flow.threads import StageThreads
from rxstage.stage import function_flags
from rxstage.tools.context import Progress, ToolContext
from rxstage.tools.tool import Tool

__all__ = ["Lane"]

_GRACE: Final = 0.5  # seconds that a cancelled tool gets to end
_NOTHING: Final = object()


class Lane:
    """Runs the functions of tools on one loop.

    Args:
        loop: the loop.
        concurrency: calls at once, at most.

    Attributes:
        turns: what a call has to hold while it runs.
        waiting: calls that wait for their turn.
        running: calls that have it.
        abandoned: calls that were given up and did not end, ever.
        stuck: those of them that have not ended yet.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, concurrency: int) -> None:
        self.loop = loop
        self.turns = asyncio.Semaphore(concurrency)
        self.waiting = self.running = self.abandoned = 0
        self._concurrency = concurrency
        self._threads: StageThreads | None = None
        self._end_threads: Callable[[], object]
        self._strays: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()
        self._stuck_threads = 0

    @property
    def stuck(self) -> int:
        """Calls that were given up and have not ended yet."""
        return len(self._strays) + self._stuck_threads

    def close(self) -> None:
        """Let the threads end: the idle ones at once, the others when they can."""
        if self._threads is not None:
            self._threads = None
            self._end_threads()

    async def call(self, tool: Tool, arguments: dict[str, Any], context: ToolContext) -> Any:
        """Call a tool's function, wherever it belongs, and give its result."""
        function: Callable[..., Any] = tool.function  # type: ignore[assignment]
        if tool.arguments is None:
            function = partial(function, arguments, context)
        elif tool.arguments.context:
            function = partial(function, **arguments, **{tool.arguments.context: context})
        else:
            function = partial(function, **arguments)
        result = function() if function_flags(function)[1] else await self._on_thread(function, context)
        if hasattr(result, "__aiter__"):
            return await _result_of(result, context)
        return await result if hasattr(result, "__await__") else result

    async def within(self, work: asyncio.Task[Any], seconds: float | None, context: ToolContext) -> bool:
        """Wait for work, and cancel it if it takes too long or if who waits is cancelled; whether it is done."""
        try:
            done, _ = await asyncio.wait((work,), timeout=seconds)
        except asyncio.CancelledError:
            await self._give_up(work, context)
            raise
        if not done:
            await self._give_up(work, context)
        return bool(done)

    async def _give_up(self, work: asyncio.Task[Any], context: ToolContext) -> None:
        context.close()
        work.cancel()
        try:
            await asyncio.wait((work,), timeout=_GRACE)
        finally:
            if not work.done():
                self.abandoned += 1
                self._strays.add(work)
                work.add_done_callback(self._strays.discard)

    async def _on_thread(self, function: Callable[[], Any], context: ToolContext) -> Any:
        threads = self._threads
        if threads is None:
            threads = self._threads = StageThreads("tools", self._concurrency)
            self._end_threads = weakref.finalize(self, threads.shutdown)  # also where nobody closes the toolbox
        begun = ended = given_up = False

        def work() -> Any:
            nonlocal begun, ended
            with self._lock:
                if given_up:
                    return None
                begun = True
            try:
                result = function()
                return _returned_by(result, context) if isinstance(result, Generator) else result
            except StopIteration as error:  # which no future can carry
                raise RuntimeError("it raised StopIteration") from error
            finally:
                with self._lock:
                    ended = True
                    self._stuck_threads -= given_up

        try:
            return await self.loop.run_in_executor(threads, work)
        except asyncio.CancelledError:
            with self._lock:
                given_up = True
                lost = begun and not ended
                self._stuck_threads += lost
            if lost:
                self.abandoned += 1
                threads.abandon()
            raise


async def _result_of(items: AsyncGenerator[Any, None], context: ToolContext) -> Any:
    result: Any = _NOTHING
    async with aclosing(items):
        async for item in items:
            result = _next(item, result, context)
    return None if result is _NOTHING else result


def _returned_by(items: Generator[Any, Any, Any], context: ToolContext) -> Any:
    result: Any = _NOTHING
    try:
        while not context.cancelled:
            result = _next(next(items), result, context)
    except StopIteration as end:
        if end.value is not None:
            result = _next(end.value, result, context)
    finally:
        items.close()
    return None if result is _NOTHING else result


def _next(item: Any, result: Any, context: ToolContext) -> Any:
    if isinstance(item, Progress):
        context.report(item)
        return result
    if result is not _NOTHING:
        raise TypeError("it gave two results; a generator yields Progress(...) as often as it likes, its result once")
    return item
