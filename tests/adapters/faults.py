"""A server that does what it is told to, byte by byte: it breaks off, stalls, refuses, or sends nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["CLOSE", "CUT", "STALL", "Asked", "Fault", "FaultServer", "Step", "error", "events", "serving", "stream"]


class Fault(Enum):
    """What a script can do but send bytes."""

    STALL = "say nothing more, until the client goes away"
    CUT = "reset the connection"
    CLOSE = "end the connection as if all had been said"


STALL: Final = Fault.STALL
CUT: Final = Fault.CUT
CLOSE: Final = Fault.CLOSE

Step: TypeAlias = bytes | Fault


class Asked(NamedTuple):
    """A request that came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class FaultServer:
    """What the tests see of the server.

    Attributes:
        url: its address.
        asked: the requests that followed a script, oldest first.
        early: the requests that ask for nothing and only open a connection.
        connections: how many were opened.
        waiting: is set once a script stalls.
        gone: is set once a client has gone away from a script that stalls.
    """

    def __init__(self, scripts: Sequence[Sequence[Step]]) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.early: list[Asked] = []
        self.connections = 0
        self.waiting = asyncio.Event()
        self.gone = asyncio.Event()
        self._scripts = scripts
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Treat one connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            del self._open[task]
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "HEAD":
            self.early.append(Asked(method, path, headers, None))
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return True
        script = self._scripts[min(len(self.asked), len(self._scripts) - 1)]
        told = json.loads(body) if "json" in headers.get("content-type", "json") else body
        self.asked.append(Asked(method, path, headers, told if body else None))
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif step is STALL:
                self.waiting.set()
                await reader.read()  # gives nothing, once the client has gone away
                self.gone.set()
                return False
            else:
                if step is CUT:
                    writer.transport.abort()
                return False
        return True

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._open.values():
            writer.transport.abort()

    async def aclose(self) -> None:
        """Reset all connections, and wait until they are done with."""
        self.cut()
        if self._open:
            await asyncio.wait(list(self._open))


@asynccontextmanager
async def serving(*scripts: Sequence[Step]) -> AsyncIterator[FaultServer]:
    """A server that answers the first request by the first script, the next by the next, and so on by the last."""
    server = FaultServer(scripts)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        await server.aclose()
        await listening.wait_closed()


def stream(*pieces: bytes, end: bool = True, headers: str = "") -> list[Step]:
    """The answer of a model: each piece a chunk of HTTP; without `end`, the body is left open."""
    first = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return [first.encode(), *chunks, *([b"0\r\n\r\n"] if end else [])]


def error(status: int, body: object, headers: str = "") -> list[Step]:
    """An answer with this status, and JSON or text as its body."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "text/html" if isinstance(body, str) else "application/json"
    head = f"HTTP/1.1 {status} No\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    return [head.encode() + data]


def events(*data: object) -> list[bytes]:
    """Server-sent events with this data, with the name that it gives itself where it has a `type`."""
    made = []
    for each in data:
        name = f"event: {each['type']}\n" if isinstance(each, dict) and "type" in each else ""
        text = each if isinstance(each, str) else json.dumps(each)
        made.append(f"{name}data: {text}\n\n".encode())
    return made
