"""A client that says exactly what a test tells it to, and a loop with a limit of real time."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from rxstage.testing import assert_no_leaks
from rxstage.websocket.protocol import HEAD, SUBPROTOCOL, Hello
from rxstage.websocket.server import WebSocketServer

__all__ = ["LIMIT", "Raw", "live", "raw"]

LIMIT: Final = 30.0
"""Real seconds after which a test is taken for a hang."""


def live(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a real loop, with real sockets, and look for what it leaves behind."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(LIMIT):
                before = asyncio.all_tasks()
                await test(*args, **kwargs)
                for _ in range(50):  # what is being closed
                    if asyncio.all_tasks() <= before:
                        break
                    await asyncio.sleep(0)
                left = asyncio.all_tasks() - before
                assert not left, left

        with assert_no_leaks():
            asyncio.run(bounded())

    return run


class Raw:
    """A connection on which anything can be said."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.welcome: dict[str, Any] = {}
        self.sequence = 0

    async def hello(self, **fields: Any) -> dict[str, Any]:
        """Introduce itself, and give the answer."""
        await self.connection.send(Hello(**fields).model_dump_json())
        self.welcome = await self.hear()
        return self.welcome

    async def say(self, type: str, **fields: Any) -> None:
        """Send a numbered message."""
        self.sequence += 1
        await self.connection.send(json.dumps({"type": type, "sequence": self.sequence, **fields}))

    async def sound(self, samples: bytes, sequence: int | None = None) -> None:
        """Send sound."""
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        await self.connection.send(HEAD.pack(1, 0, 0, sequence) + samples)

    async def hear(self) -> Any:
        """The next frame: a message as a dict, sound as bytes without its head."""
        frame = await self.connection.recv()
        return json.loads(frame) if isinstance(frame, str) else frame[HEAD.size :]

    async def rest(self) -> list[Any]:
        """All frames till it is closed."""
        frames = []
        try:
            while True:
                frames.append(await self.hear())
        except ConnectionClosed:
            return frames

    async def closed(self) -> tuple[int, str]:
        """Code and reason with which the server has closed it; what comes before is skipped."""
        await self.rest()
        assert self.connection.close_code is not None
        return self.connection.close_code, self.connection.close_reason or ""


@asynccontextmanager
async def raw(server: WebSocketServer | str, **options: Any) -> AsyncGenerator[Raw]:
    """A connection to a server."""
    url = server if isinstance(server, str) else server.url
    options = {"subprotocols": [SUBPROTOCOL], "compression": None, "proxy": None, **options}
    async with connect(url, **options) as connection:
        yield Raw(connection)
