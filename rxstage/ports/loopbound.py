"""Things that belong to an event loop, such as connections: one for each loop, closed with it."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar

__all__ = ["LoopBound"]

_T = TypeVar("_T")


class LoopBound(Generic[_T]):
    """One object for each event loop that asks for it.

    It is closed by `aclose()`, or when its loop is: `asyncio.run` and its like close the asynchronous generators that
    are still open before they close the loop, and each object is kept by one.

    Args:
        make: makes the object, on the loop.
        close: closes it, on the same loop.
    """

    def __init__(self, make: Callable[[], Awaitable[_T]], close: Callable[[_T], Awaitable[Any]]) -> None:
        self._make, self._close = make, close
        self._kept: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Kept[_T]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    async def get(self) -> _T:
        """The object of the running loop; made where there is none."""
        loop = asyncio.get_running_loop()
        with self._lock:
            kept = self._kept.get(loop)
            if kept is None:
                kept = self._kept[loop] = _Kept()
        async with kept.making:
            if kept.keeper is None:
                keeper = self._keep()
                kept.value = await anext(keeper)  # raises what `make` raises, and the next call tries again
                kept.keeper = keeper
        value: _T = kept.value  # type: ignore[assignment]
        return value

    async def aclose(self) -> None:
        """Close the object of the running loop, if there is one."""
        with self._lock:
            kept = self._kept.pop(asyncio.get_running_loop(), None)
        if kept is None:
            return
        async with kept.making:
            if kept.keeper is not None:
                await kept.keeper.aclose()

    async def _keep(self) -> AsyncGenerator[_T, None]:
        value = await self._make()
        try:
            yield value
        finally:
            await self._close(value)


class _Kept(Generic[_T]):
    __slots__ = ("keeper", "making", "value")

    def __init__(self) -> None:
        self.making = asyncio.Lock()
        self.keeper: AsyncGenerator[_T, None] | None = None
        self.value: _T | None = None
