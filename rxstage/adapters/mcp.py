"""Tools of MCP servers, through the official SDK (extra `mcp`)."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

from rxstage.adapters._mcp_content import tools_of
from rxstage.adapters._mcp_session import Link, Transport, http, stdio
from rxstage.errors import require
from rxstage.tools.source import ToolSource
from rxstage.tools.tool import Tool, ToolOptions

__all__ = ["MCPServer"]


class MCPServer(ToolSource):
    """An MCP server whose tools a model may call: a program that is started, or a URL.

        MCPServer("files", command=["npx", "-y", "@modelcontextprotocol/server-filesystem", "/data"])
        MCPServer("docs", url="https://docs.example.com/mcp", headers={"Authorization": "Bearer ..."})

    Each event loop has a connection of its own, which is there while a toolbox is open. The tools stay those that the
    server offered at the start. A server that dies is started again at the next call; the call that it died in is
    answered with an error. A program is ended with the connection, and killed if it does not end; of the environment
    it gets PATH, HOME and a few more, and `env`: no keys of yours.

    A program runs with your rights, and what a server says of its tools is read by the model: connect to those that
    you trust, and name the tools that you want with `only`.

    Args:
        name: what to call it; of letters, digits, `_` and `-`.
        command: the program and its arguments.
        url: of a server that speaks streamable HTTP.
        env: environment variables for the program, beside the few that it gets anyway.
        cwd: folder that the program runs in.
        stderr: file that what the program says on stderr is appended to; None: nowhere.
        headers: HTTP headers for the URL.
        only: names of the tools that are wanted, as the server has them; None: all.
        start_timeout: seconds that the server may take till it is ready.
        **options: of its tools, as in `Tool`: `timeout` [s], `schedule`, `approval`, `interruptible`.

    Raises:
        ValueError: neither or both of `command` and `url` are given, or the name has other characters.
    """

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str] | None = None,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stderr: Path | None = None,
        headers: Mapping[str, str] | None = None,
        only: Collection[str] | None = None,
        start_timeout: float = 30.0,
        **options: Unpack[ToolOptions],
    ) -> None:
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,32}", name):
            raise ValueError(f"an MCP server's name has 1 to 32 letters, digits, '_' and '-', got {name!r}")
        if (command is None) is (url is None) or isinstance(command, str) or command == []:
            raise ValueError(
                f"MCP server {name!r} needs either command=['program', 'argument', ...] or url='https://...'"
            )
        self.name = name
        self.command = tuple(command or ())
        self.url = url
        self.only = only
        self.start_timeout = start_timeout
        self.options = options
        self._env, self._cwd, self._stderr = dict(env or {}), cwd, stderr
        self._headers = dict(headers or {})
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._lock = threading.Lock()

    async def open(self) -> list[Tool]:
        """Connect on the running loop, or use what is connected there; gives the tools.

        Raises:
            ToolSourceError: it cannot be reached in time, or offers what cannot be used.
            MissingExtra: the SDK is not installed (extra `mcp`).
        """
        link = self._link()
        offered = await link.open()
        try:
            return tools_of(self.name, offered, self.only, link.call, **self.options)
        except BaseException:
            await link.aclose()
            raise

    async def aclose(self) -> None:
        """Disconnect on the running loop, once everybody who opened there has closed."""
        await self._link().aclose()

    def _link(self) -> Link:
        loop = asyncio.get_running_loop()
        with self._lock:
            link = self._links.get(loop)
            if link is None:
                for each in [each for each in self._links if each.is_closed()]:
                    del self._links[each]
                link = self._links[loop] = Link(self.name, self._transport(), self.start_timeout)
            return link

    def _transport(self) -> Transport:
        if self.url is not None:
            return partial(http, self.url, self._headers)
        parameters = require("mcp", "mcp").StdioServerParameters(
            command=self.command[0], args=list(self.command[1:]), env=self._env, cwd=self._cwd
        )
        return partial(stdio, parameters, self._stderr)

    def __repr__(self) -> str:
        return f"MCPServer({self.name!r})"
