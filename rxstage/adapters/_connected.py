"""How the stores are reached: connections for each event loop, limits of time, one kind of error."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from rxstage.ports.loopbound import LoopBound
from rxstage.ports.store import StoreError

__all__ = ["Connected", "answering", "without_password"]

_T = TypeVar("_T")

_open: Final[set[Any]] = set()


class Connected(LoopBound[_T]):
    """As `LoopBound`, for connections, which complain where they are collected before they are closed.

    Where the store that they belong to is collected, they are closed on their loop right after.
    """

    def __init__(self, make: Callable[[], Awaitable[_T]], close: Callable[[_T], Awaitable[Any]]) -> None:
        async def made() -> _T:
            value = await make()
            _open.add(value)
            return value

        async def closed(value: _T) -> None:
            try:
                await close(value)
            finally:
                _open.discard(value)

        super().__init__(made, closed)


@asynccontextmanager
async def answering(store: str, timeout: float, *failures: type[Exception], hint: str = "") -> AsyncIterator[None]:
    """Give a store so many seconds, and make a `StoreError` of what its library raises.

    Args:
        store: what to call it in an error.
        timeout: seconds.
        failures: kinds of errors of its library.
        hint: what may be the matter where it does not answer.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise StoreError(f"{store} did not answer within {timeout:g} s{hint}") from error
    except failures as error:
        raise StoreError(f"{store}: {str(error) or type(error).__name__}") from error
    finally:
        if task.cancelling() > cancelling and not isinstance(sys.exception(), asyncio.CancelledError):
            raise asyncio.CancelledError(f"cancelled, which the library of {store} has swallowed")


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    return re.sub(r"(://[^:/@]*:)[^/@]*(?=@)|([?&]password=)[^&]*", r"\1\2…", url)
