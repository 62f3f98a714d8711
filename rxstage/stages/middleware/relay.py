"""Items that a task puts, taken as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

from rxstage.flow.gate import Gate

__all__ = ["Put", "relayed"]

_T = TypeVar("_T")

Put: TypeAlias = Callable[[Any], Awaitable[None]]
"""Hands an item over; waits while too many have not been taken yet."""

_AHEAD: Final = 16


async def relayed(work: Callable[[Put], Awaitable[Any]], name: str) -> AsyncGenerator[Any, None]:
    """What `work(put)` puts, as it comes. The work runs in a task of its own, at most 16 items ahead.

    The task ends with the iteration: it is cancelled and awaited where that is left early. One puts at a time.

    Raises:
        Exception: what the work raised, after the items that it has put.
    """
    loop = asyncio.get_running_loop()
    ready: deque[Any] = deque()
    arrived, room = Gate(loop), Gate(loop)

    async def put(item: Any) -> None:
        ready.append(item)
        arrived.wake()
        while len(ready) >= _AHEAD:
            await room.wait()

    async def run() -> None:
        await work(put)

    task = loop.create_task(run(), name=name)
    task.add_done_callback(lambda _: arrived.wake())
    try:
        while True:
            while ready:
                item = ready.popleft()
                room.wake()
                yield item
            if task.done():
                break
            await arrived.wait()
        task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
