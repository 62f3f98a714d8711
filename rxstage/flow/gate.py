"""Where tasks wait for one another, and the short wait before the long one."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator
from typing import Final

__all__ = ["TURNS", "Gate", "relax"]

TURNS: Final = 2  # of the loop that a worker gives its neighbours before it waits in earnest, which costs more


@types.coroutine
def relax() -> Generator[None, None, None]:
    """Let the loop take one turn: what `asyncio.sleep(0)` does, without its way there."""
    yield


class Gate:
    """Where a task waits for one of several wake-ups, in front of a valve or behind a buffer."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether somebody waits here."""
        return self._future is not None and not self._future.done()

    def wake(self) -> None:
        """Let go whoever waits."""
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        """What to await for the next wake-up."""
        self._future = future = self._loop.create_future()
        return future
