"""Calls of what an application brings, in a stage over the whole stream."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from rxstage.prompts.errors import PromptError
from rxstage.stage import StageContext, function_flags

__all__ = ["asked", "name_of", "until_interrupted"]

_T = TypeVar("_T")


async def until_interrupted(context: StageContext, work: Callable[[], Awaitable[_T]]) -> _T | None:
    """What `work()` comes to; None where an `Interrupt` cuts it short."""

    async def once() -> AsyncIterator[_T]:
        yield await work()

    async with context.interruptible(once()) as results:
        async for result in results:
            return result
    return None


async def asked(what: str, function: Callable[..., Any], *args: Any, context: StageContext) -> Any:
    """Call a function of the application, plain or async, with `context` if it asks for that.

    Raises:
        PromptError: it raised; the message names it. A cancellation that nobody asked for is such an error too.
    """
    try:
        result = function(*args, context=context) if function_flags(function)[0] else function(*args)
        return await result if inspect.isawaitable(result) else result
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise PromptError(f"{what} {name_of(function)!r} was cancelled from inside") from error
    except Exception as error:
        raise PromptError(f"{what} {name_of(function)!r} failed: {type(error).__name__}: {error}") from error


def name_of(function: Any) -> str:
    """What to call a function in an error."""
    return str(getattr(function, "__name__", type(function).__name__))
