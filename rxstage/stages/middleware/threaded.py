"""Plain functions that call back: they run on a thread, step by step, and between two steps the loop has the word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing
from enum import Enum
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

from msgspec import Struct

from rxstage.element import StreamElement
from rxstage.flow.threads import StageThreads
from rxstage.stages.middleware.turn import MiddlewareContext

__all__ = ["END", "Kind", "Step", "Steps", "called", "iterated"]

END: Final = object()
"""Answers NEXT where nothing more comes."""


class Kind(Enum):
    """What a step ends with."""

    CALL = "call"  # the function wants the whole result of call_next
    OPEN = "open"  # it begins to iterate over it
    NEXT = "next"  # it wants the next element of what it has opened
    YIELD = "yield"  # it gives an element
    RETURN = "return"  # it has returned


class Step(Struct, frozen=True):
    """How far a function has come."""

    kind: Kind
    value: Any = None


Ask: TypeAlias = Callable[[Kind, Any], Any]
"""Ends a step, on the thread; gives what the loop answers, or raises it."""


class Steps(Executor):
    """One call of a plain function.

    The steps are run with `loop.run_in_executor`, for which this is the executor: a loop in virtual time knows by it
    when the thread is busy, and when it waits for the loop.

    Args:
        threads: where it runs.
        function: is called with what it can ask with.
    """

    def __init__(self, threads: StageThreads, function: Callable[[Ask], Any]) -> None:
        self._threads, self._function = threads, function
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._step: Future[Any] | None = None
        self._closed = False

    # ---------------------------------------------------------------- on the loop

    async def advance(self, answer: Any = None, error: BaseException | None = None) -> Step:
        """Let it go on with an answer, or an error that its question raises, till it asks again or ends.

        Raises:
            Exception: what the function raised.
        """
        loop = asyncio.get_running_loop()
        go_on: Callable[..., Any] = self._answers.put
        step: Step = await loop.run_in_executor(self, go_on, (answer, error))
        return step

    async def answer(self, work: Awaitable[Any]) -> Step:
        """Let it go on with what comes of `work`."""
        try:
            value = await work
        except Exception as error:
            return await self.advance(error=error)
        return await self.advance(value)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin the next step."""
        begun, self._step = self._step is not None, Future()
        self._step.set_running_or_notify_cancel()  # one that is given up goes on, and finds that nobody listens
        if begun:
            fn(*args, **kwargs)
        else:
            self._threads.submit(self._run)
        return self._step

    def close(self) -> None:
        """Nobody waits for it any more: what it asks raises `CancelledError` on the thread."""
        if self._closed:
            return
        self._closed = True
        self._answers.put((None, _over()))
        if self._step is not None and not self._step.done():
            self._threads.abandon()  # it is in the middle of something: another thread may take its place

    # ---------------------------------------------------------------- on the thread

    def _run(self) -> None:
        if self._closed:  # before there was a thread for it
            return
        error: BaseException | None = None
        value: Any = None
        try:
            value = self._function(self._ask)
        except StopIteration as stop:  # no future takes one
            error = RuntimeError("a plain middleware raised StopIteration")
            error.__cause__ = stop
        except BaseException as raised:
            error = raised
        step = self._step
        assert step is not None
        if step.done():
            return  # it was closed while it waited for an answer
        if error is not None:
            step.set_exception(error)
        else:
            step.set_result(Step(Kind.RETURN, value))

    def _ask(self, kind: Kind, value: Any) -> Any:
        assert self._step is not None
        if self._closed:
            raise _over()
        self._step.set_result(Step(kind, value))
        answer, error = self._answers.get()
        if error is not None:
            raise error
        return answer


def _over() -> BaseException:
    """Not an `Exception`: a middleware that tries again after any error must not go on."""
    return asyncio.CancelledError("the turn is over")


def called(middleware: Callable[..., Any], context: MiddlewareContext) -> Callable[[Ask], Any]:
    """A plain middleware as a function that asks."""

    def function(ask: Ask) -> Any:
        def call_next(context: Any = None) -> Any:
            return ask(Kind.CALL, context)

        return middleware(context, call_next)

    return function


def iterated(middleware: Callable[..., Any], context: MiddlewareContext) -> Callable[[Ask], Any]:
    """A plain middleware that is a generator as a function that asks."""

    def function(ask: Ask) -> Any:
        def call_next(context: Any = None) -> Iterator[StreamElement]:
            opened = ask(Kind.OPEN, context)
            while (element := ask(Kind.NEXT, opened)) is not END:
                yield element

        with closing(middleware(context, call_next)) as items:
            for item in items:
                ask(Kind.YIELD, item)

    return function
