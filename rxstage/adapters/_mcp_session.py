"""The connection to an MCP server: a task of its own that opens and closes it, and another one after it has died."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rxstage.adapters._mcp_content as content
from rxstage.errors import require
from rxstage.tools.context import ToolContext, ToolError
from rxstage.tools.result import in_words
from rxstage.tools.source import ToolSourceError

if TYPE_CHECKING:
    from mcp import Client, MCPError, StdioServerParameters, types

__all__ = ["Link", "Session", "http", "stdio"]

_CLOSING: Final = 10.0  # seconds for a server to end; the SDK kills its process well before
_LONGEST_PAUSE: Final = 30.0  # seconds between two tries to start a server that does not
_MOST_PAGES: Final = 100
_MOST_TOOLS: Final = 512

Transport = Callable[[Callable[[], object]], AbstractAsyncContextManager[Any]]
"""Opens the way to a server; what it is given is called when the server has closed it."""


class _Watched:
    """A stream of the SDK that says when it has ended."""

    def __init__(self, stream: Any, ended: Callable[[], object]) -> None:
        self._stream, self._ended = stream, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> _Watched:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except BaseException:
            self._ended()
            raise


@asynccontextmanager
async def stdio(
    parameters: StdioServerParameters, stderr: Path | None, ended: Callable[[], object]
) -> AsyncGenerator[Any, None]:
    """A server that is a process of ours; what it says on stderr goes to a file, or nowhere."""
    client = require("mcp.client.stdio", "mcp")
    with open(stderr or os.devnull, "a", encoding="utf-8") as log:  # noqa: ASYNC230 - once, at the start
        async with client.stdio_client(parameters, errlog=log) as (read, write):
            yield _Watched(read, ended), write


@asynccontextmanager
async def http(url: str, headers: Mapping[str, str], ended: Callable[[], object]) -> AsyncGenerator[Any, None]:
    """A server that is reached over streamable HTTP."""
    httpx, client = require("httpx2", "mcp"), require("mcp.client.streamable_http", "mcp")
    limits = httpx.Timeout(30.0, read=300.0)  # as the SDK has them: a server may hold a response open
    async with (
        httpx.AsyncClient(headers=dict(headers), timeout=limits) as requests,
        client.streamable_http_client(url, http_client=requests) as (read, write),
    ):
        yield _Watched(read, ended), write


class Session:
    """One life of a connection, in a task that enters and leaves all that belongs to it.

    Attributes:
        tools: what the server offered at the start.
    """

    def __init__(self, name: str, transport: Transport) -> None:
        self.name = name
        self.tools: list[types.Tool] = []
        self._client: Client | None = None
        self._transport = transport
        self._scope = require("anyio", "mcp").CancelScope()
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(), name=f"rxstage:mcp:{name}")

    @property
    def client(self) -> Client | None:
        """The SDK's client; None where the connection has ended or is about to."""
        return None if self._stop.is_set() else self._client

    async def start(self, seconds: float) -> None:
        """Wait till the server is ready.

        Raises:
            ToolSourceError: it is not, in time, or not at all.
        """
        try:
            done, _ = await asyncio.wait((self._ready,), timeout=seconds)
        finally:
            if self._client is None:
                self._scope.cancel()
                await self.aclose()
        if self._client is None:
            error = self._ready.exception() if done else None
            if isinstance(error, ToolSourceError):
                raise error
            why = f"did not start: {in_words(error)}" if error else f"was not ready within {seconds:g} s"
            raise ToolSourceError(
                f"MCP server {self.name!r} {why}; stderr= writes to a file what a command says"
            ) from error

    def give_up(self) -> None:
        """The connection is of no use any more."""
        self._stop.set()

    async def aclose(self) -> None:
        """Close the connection; a server that is a process is ended, and killed if it does not end."""
        self._stop.set()
        if not self._task.done():
            await asyncio.wait((self._task,), timeout=_CLOSING)
        if not self._task.done():
            self._scope.cancel()
            await asyncio.wait((self._task,), timeout=_CLOSING)

    async def _live(self) -> None:
        mcp = require("mcp", "mcp")
        try:
            with self._scope:
                async with mcp.Client(self._transport(self._stop.set), cache=None) as client:
                    self.tools = await _listed(client, self.name)
                    self._client = client
                    self._ready.set_result(None)
                    await self._stop.wait()
        except Exception as error:
            while isinstance(error, ExceptionGroup):  # of the SDK's task groups
                error = error.exceptions[0]
            if not self._ready.done():
                self._ready.set_exception(error)
        finally:
            self._stop.set()
            if not self._ready.done():
                self._ready.set_exception(ConnectionError("the connection was closed"))
            self._ready.exception()  # taken: who waits is told, and there may be nobody any more


class Link:
    """What one event loop has of a server: a session while somebody uses it, and a new one when that has died.

    Args:
        name: name of the server.
        transport: opens the way to it.
        start_timeout: seconds that it may take to be ready.
    """

    def __init__(self, name: str, transport: Transport, start_timeout: float) -> None:
        self.name = name
        self._transport = transport
        self._start_timeout = start_timeout
        self._users = 0
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        self._tries = 0  # to start it again, since it last answered
        self._not_before = 0.0

    async def open(self) -> Sequence[types.Tool]:
        """Connect, or use what is connected; gives the tools that the server offers.

        Raises:
            ToolSourceError: it cannot be reached.
        """
        async with self._opening:
            if self._session is None:
                self._session = await self._started()
            self._users += 1
            return self._session.tools

    async def aclose(self) -> None:
        """Disconnect, once everybody who opened has closed."""
        async with self._opening:
            self._users = max(0, self._users - 1)
            if not self._users and self._session is not None:
                session, self._session = self._session, None
                await session.aclose()

    async def call(self, tool: str, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Call a tool of the server.

        Raises:
            ToolError: it failed, the server died, or is down.
        """
        mcp, types = require("mcp", "mcp"), require("mcp.types", "mcp")
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=tool, arguments=dict(arguments)))
        session, client = await self._connected()

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            context.progress(progress / total if total else None, message or "")

        try:
            # Not client.call_tool, which holds the answer against the schema that the server gave for it: a pattern in
            # that can be made to take for ever. What the answer is good for is the model's to judge.
            result = await client.session.send_request(request, types.CallToolResult, progress_callback=progress)
        except mcp.MCPError as error:
            if not _broken(error) and session.client is not None:
                raise ToolError(f"The server {self.name!r} refused the call: {error.message[:500]}") from error
            session.give_up()
            raise ToolError(
                f"The connection to the server {self.name!r} broke while it worked on this, and whether it was done is "
                f"not known. It is connected again at the next call."
            ) from error
        self._tries = 0
        return content.value_of(result)

    async def _connected(self) -> tuple[Session, Client]:
        async with self._opening:
            session = self._session
            if session is None:
                raise ToolError(f"The server {self.name!r} is closed.")
            if (client := session.client) is not None:
                return session, client
            loop = asyncio.get_running_loop()
            if self._tries and (pause := self._not_before - loop.time()) > 0:
                raise ToolError(f"The server {self.name!r} is down. It is tried again in {pause:.0f} s.")
            await session.aclose()
            try:
                session = self._session = await self._started()
            except ToolSourceError as error:
                raise ToolError(f"The server {self.name!r} is down and could not be started again.") from error
            finally:
                self._not_before = loop.time() + min(_LONGEST_PAUSE, 2.0**self._tries)
                self._tries += 1
            if (client := session.client) is None:
                raise ToolError(f"The server {self.name!r} has died right after its start.")
            return session, client

    async def _started(self) -> Session:
        session = Session(self.name, self._transport)
        await session.start(self._start_timeout)
        return session


async def _listed(client: Client, server: str) -> list[types.Tool]:
    tools: list[types.Tool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None or len(tools) > _MOST_TOOLS:
            break
    if len(tools) > _MOST_TOOLS or cursor is not None:
        raise ToolSourceError(f"MCP server {server!r} offers more than {_MOST_TOOLS} tools, or has no end of them")
    return tools


def _broken(error: MCPError) -> bool:
    closed: int = require("mcp_types", "mcp").CONNECTION_CLOSED
    return error.code == closed or error.message == "Session terminated"


logging.getLogger("mcp").addHandler(logging.NullHandler())  # what a server sends amiss is not the terminal's
