"""One element through a user's function that takes its time: threads, timeout and error policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rxstage.config import Fallback
from rxstage.element import StreamElement
from rxstage.errors import StageError
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
from rxstage.flow.scope import Scope
from rxstage.flow.threads import StageThreads

__all__ = ["Invocation", "was_asked_for"]


class Invocation:
    """One element through the user's function: threads, timeout and error policy."""

    def __init__(self, callback: Callback, scope: Scope, meter: Meter) -> None:
        self.callback = callback
        self.scope = scope
        self.meter = meter
        self.function = bind(callback, scope)
        self.loop = scope.loop
        self.spares = [Invocation(stage.callback(callback.name), scope, meter) for stage in fallbacks(callback.policy)]
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
