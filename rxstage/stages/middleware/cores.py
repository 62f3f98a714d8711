"""What an adapter can wrap, recognised by its looks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from rxstage.element import StreamElement
from rxstage.stage import Series, Stage
from rxstage.stages.middleware.layers import Flow, nature
from rxstage.stages.middleware.nested import stage_flow
from rxstage.stages.middleware.processor import is_processor, processor_flow
from rxstage.stages.middleware.runnable import is_runnable, runnable_flow
from rxstage.stages.middleware.turn import MiddlewareContext

__all__ = ["core_of", "is_core", "middleware_of"]


def is_core(value: Any) -> bool:
    """Whether it makes an answer by itself, where a middleware wraps what does."""
    return isinstance(value, Stage) or is_runnable(value) or is_processor(value) or _is_generator(value)


def core_of(around: Any, make_input: Callable[[MiddlewareContext], Any] | None = None) -> Flow:
    """What `call_next` of the innermost middleware comes to.

    Raises:
        TypeError: it is nothing that could be called.
        GraphError: what is wrong with a series of stages.
    """
    if is_runnable(around):
        return runnable_flow(around, make_input)
    if make_input is not None:
        raise TypeError(f"make_input= is for a LangChain Runnable, and {around!r} is none")
    if around is None:
        return _as_it_came
    if isinstance(around, (list, tuple)):
        around = Series.of(*around)
    if isinstance(around, Stage):
        return stage_flow(around)
    if is_processor(around):
        return processor_flow(around)
    if _is_generator(around):
        return functools.partial(_generated, around, "StreamElement" in str(_parameters(around)[0].annotation))
    raise TypeError(
        f"around= takes a stage, a list of stages, a pipeline, a LangChain Runnable, a Processor of genai-processors "
        f"or an async generator function of one argument, got {around!r}"
    )


def middleware_of(value: Any) -> Any:
    """The function of a middleware: itself, or the `process` method of an object.

    Raises:
        TypeError: it is no middleware.
    """
    function = value if callable(value) else getattr(value, "process", None)
    if not callable(function) or isinstance(value, type) or len(_parameters(function)) != 2:
        raise TypeError(
            f"wrap_middleware takes a middleware (a function of `context` and `call_next`, or an object with a method "
            f"`process` of that kind), a list of such, a LangChain Runnable, a Processor of genai-processors or an "
            f"async generator function of one argument, got {value!r}"
        )
    return function


async def _as_it_came(context: MiddlewareContext) -> AsyncGenerator[StreamElement, None]:
    """Nothing is wrapped: what came in is what `call_next` gives."""
    for element in context._sent():
        yield element


async def _generated(
    function: Callable[[Any], Any], bare: bool, context: MiddlewareContext
) -> AsyncGenerator[StreamElement, None]:
    """What an async generator function makes of the elements of a turn, or of their payloads."""

    async def items() -> AsyncIterator[Any]:
        for element in context._sent():
            yield element if bare else element.payload

    async with aclosing(function(items())) as made:
        async for item in made:
            yield context._one(item)


def _is_generator(value: Any) -> bool:
    return callable(value) and nature(value) == (True, True) and len(_parameters(value)) == 1


def _parameters(function: Any) -> list[inspect.Parameter]:
    """Those that have to be given."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each for each in signature.parameters.values() if each.kind in kinds and each.default is each.empty]
