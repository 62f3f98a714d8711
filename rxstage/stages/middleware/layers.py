"""Middlewares as layers: each wraps the flow behind it, and is a flow of elements itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing
from typing import Any, Final, TypeAlias

from msgspec import Struct

from rxstage.element import StreamElement
from rxstage.errors import RxStageError
from rxstage.flow.threads import StageThreads
from rxstage.stage import function_flags
from rxstage.stages.middleware.relay import Put, relayed
from rxstage.stages.middleware.threaded import END, Kind, Steps, called, iterated
from rxstage.stages.middleware.turn import MiddlewareContext, MiddlewareResult

__all__ = ["Flow", "Rules", "nature", "onion", "plain_functions"]

Flow: TypeAlias = Callable[[MiddlewareContext], AsyncGenerator[StreamElement, None]]
"""What comes out of a turn."""


class Rules(Struct, frozen=True):
    """What holds for all layers of an adapter.

    Attributes:
        stage: its name.
        threads: where plain functions run.
        most: elements that a result may have.
        streaming: whether what a function waits for flows on meanwhile.
    """

    stage: str
    threads: StageThreads
    most: int
    streaming: bool


def nature(function: Any) -> tuple[bool, bool]:
    """Whether a function is asynchronous, and whether it is a generator; of one with a decorator, what is inside."""
    _, asynchronous, generator = function_flags(inspect.unwrap(function))
    return asynchronous, generator


def plain_functions(middlewares: tuple[Any, ...]) -> int:
    """How many of them need a thread."""
    return sum(not nature(middleware)[0] for middleware in middlewares)


def onion(middlewares: tuple[Any, ...], core: Flow, rules: Rules) -> Flow:
    """Middlewares round a core, the first one outermost."""
    flow = core
    for middleware in reversed(middlewares):
        flow = functools.partial(_LAYERS[nature(middleware)], middleware, flow, rules)
    return flow


# ------------------------------------------------------------------------------------------ call_next


class _Call:
    """What `call_next(context)` gives an async middleware: await it for the result, or iterate over it."""

    def __init__(self, next_: _Next, context: MiddlewareContext) -> None:
        self._next, self._context = next_, context
        self.taken = False

    def __await__(self) -> Generator[Any, None, MiddlewareResult]:
        self.taken = True
        return self._next.result(self._context).__await__()

    def __aiter__(self) -> AsyncIterator[StreamElement]:
        self.taken = True
        return self._next.open(self._context)


class _Next:
    """`call_next` of one middleware in one turn, and what it has begun with it."""

    def __init__(self, flow: Flow, rules: Rules, context: MiddlewareContext) -> None:
        self._flow, self._rules, self._context = flow, rules, context
        self._calls: list[_Call] = []
        self._open: list[AsyncGenerator[StreamElement, None]] = []
        self._results = 0
        self.put: Put | None = None  # where the elements of a result go on to meanwhile
        self.went = 0  # number of the call whose elements went on
        self.last: MiddlewareResult | None = None

    def __call__(self, context: MiddlewareContext | None = None) -> _Call:
        call = _Call(self, self.checked(context))
        self._calls.append(call)
        return call

    def checked(self, context: Any) -> MiddlewareContext:
        """The context to go on with."""
        if context is None:
            return self._context
        if not isinstance(context, MiddlewareContext):
            raise TypeError(
                f"a middleware of stage {self._rules.stage!r} called call_next({context!r}); call it with the context "
                f"that it got, or without an argument; set context.text or context.elements to change what goes on"
            )
        return context

    def open(self, context: MiddlewareContext) -> AsyncGenerator[StreamElement, None]:
        """Begin a call whose elements are taken as they come."""
        context.result = None
        flow = self._flow(context)
        self._open.append(flow)
        return flow

    async def result(self, context: MiddlewareContext) -> MiddlewareResult:
        """Make a call and wait for its end."""
        context.result = None
        self._results += 1
        number, most = self._results, self._rules.most
        elements: list[StreamElement] = []
        async with aclosing(self._flow(context)) as flow:
            async for element in flow:
                if len(elements) >= most:
                    raise RxStageError(
                        f"stage {self._rules.stage!r}: the result of call_next has more than {most} elements; raise "
                        f"max_elements, or make the middleware a generator, which holds none"
                    )
                elements.append(element)
                if self.put is not None:
                    if self.went not in (0, number):
                        raise RxStageError(
                            f"a middleware of stage {self._rules.stage!r} called call_next again after its first "
                            f"answer had gone on; with streaming=False it may"
                        )
                    self.went = number
                    await self.put(element)
        context.result = self._context.result = self.last = MiddlewareResult(elements)
        return self.last

    def check(self, returned: Any = None) -> None:
        """Raise where a call was made and forgotten."""
        if any(not call.taken and call is not returned for call in self._calls):
            raise RxStageError(
                f"a middleware of stage {self._rules.stage!r} called call_next without waiting for it; write "
                f"`await call_next(context)`, or iterate over it with `async for`"
            )

    async def aclose(self) -> None:
        """Close what is still open."""
        for flow in reversed(self._open):
            await flow.aclose()


# ------------------------------------------------------------------------------------------ functions


def _coroutine(
    middleware: Any, flow: Flow, rules: Rules, context: MiddlewareContext
) -> AsyncGenerator[StreamElement, None]:
    """`async def middleware(context, call_next)`."""

    async def call(call_next: _Next) -> Any:
        returned = middleware(context, call_next)
        if hasattr(returned, "__await__") and not isinstance(returned, _Call):
            returned = await returned
        call_next.check(returned)
        return returned

    return _function(call, flow, rules, context)


def _plain(
    middleware: Any, flow: Flow, rules: Rules, context: MiddlewareContext
) -> AsyncGenerator[StreamElement, None]:
    """`def middleware(context, call_next)`, on a thread."""

    async def call(call_next: _Next) -> Any:
        steps = Steps(rules.threads, called(middleware, context))
        try:
            step = await steps.advance()
            while step.kind is Kind.CALL:
                step = await steps.answer(call_next.result(call_next.checked(step.value)))
        finally:
            steps.close()
        if hasattr(step.value, "__await__"):
            if hasattr(step.value, "close"):
                step.value.close()
            raise TypeError(
                f"the plain middleware of stage {rules.stage!r} returned an awaitable; make it an `async def` function"
            )
        return step.value

    return _function(call, flow, rules, context)


async def _function(
    call: Callable[[_Next], Awaitable[Any]], flow: Flow, rules: Rules, context: MiddlewareContext
) -> AsyncGenerator[StreamElement, None]:
    """A middleware that waits for the result and returns."""
    call_next = _Next(flow, rules, context)
    returned: Any = None

    async def work(put: Put) -> None:
        nonlocal returned
        call_next.put = put
        returned = await call(call_next)

    try:
        if rules.streaming:
            async with aclosing(relayed(work, f"rxstage:{rules.stage}")) as elements:
                async for element in elements:
                    yield element
            if call_next.went:
                _must_stand(call_next.last, returned, rules, context)
                return
        else:
            returned = await call(call_next)
        async with aclosing(_outcome(context, returned)) as elements:
            async for element in elements:
                yield element
    finally:
        await call_next.aclose()


async def _outcome(context: MiddlewareContext, returned: Any) -> AsyncGenerator[StreamElement, None]:
    """What goes out of a function: what it returned, else the result that is set."""
    value = context.result if returned is None or returned is context else returned
    if not isinstance(value, AsyncIterable):
        for element in context._settled(value):
            yield element
        return
    items = aiter(value)
    try:
        async for item in items:
            yield context._one(item)
    finally:
        if (close := getattr(items, "aclose", None)) is not None:
            await close()


def _must_stand(result: MiddlewareResult | None, returned: Any, rules: Rules, context: MiddlewareContext) -> None:
    """Raise where a function wants something else to go out than what has gone."""
    if context.result is not result or not any(returned is each for each in (None, context, result)):
        raise RxStageError(
            f"a middleware of stage {rules.stage!r} changed the result after its elements had gone on; use "
            f"streaming=False, or make it a generator that changes each element"
        )


# ------------------------------------------------------------------------------------------ generators


async def _async_generator(
    middleware: Any, flow: Flow, rules: Rules, context: MiddlewareContext
) -> AsyncGenerator[StreamElement, None]:
    """`async def middleware(context, call_next)` with `yield`."""
    call_next = _Next(flow, rules, context)
    try:
        async with aclosing(middleware(context, call_next)) as items:
            async for item in items:
                yield context._one(item)
        call_next.check()
    finally:
        await call_next.aclose()


async def _generator(
    middleware: Any, flow: Flow, rules: Rules, context: MiddlewareContext
) -> AsyncGenerator[StreamElement, None]:
    """`def middleware(context, call_next)` with `yield`, on a thread."""
    call_next = _Next(flow, rules, context)
    steps = Steps(rules.threads, iterated(middleware, context))
    try:
        step = await steps.advance()
        while step.kind is not Kind.RETURN:
            if step.kind is Kind.NEXT:
                step = await steps.answer(anext(step.value, END))
            elif step.kind is Kind.OPEN:
                step = await steps.advance(call_next.open(call_next.checked(step.value)))
            else:
                yield context._one(step.value)
                step = await steps.advance()
    finally:
        steps.close()
        await call_next.aclose()


_LAYERS: Final = {
    (True, False): _coroutine,
    (False, False): _plain,
    (True, True): _async_generator,
    (False, True): _generator,
}
