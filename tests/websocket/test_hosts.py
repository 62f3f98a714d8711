"""The names that a server is asked by, and the headers that it answers with."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError
from talking import live, raw
from websockets.exceptions import InvalidStatus

from rxstage import PassthroughStage, Pipeline
from rxstage.websocket.hosts import host_of, is_loopback, knows
from rxstage.websocket.options import ServerOptions
from rxstage.websocket.server import WebSocketServer

ECHO = Pipeline.of(PassthroughStage("echo"))
FILES: Any = {"/": ("text/plain", b"hi")}


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("a:1", "a"),
        ("A.example.", "a.example"),
        ("[::1]:1", "::1"),
        ("[::1", None),
        ("[::1]x", None),
        ("a:x", None),
        (":1", None),
        ("", None),
    ],
)
def test_the_host_of_a_header(header: str, host: str | None) -> None:
    """It is the name or the address, without port, case and final dot; what is malformed has none."""
    assert host_of(header) == host


@pytest.mark.parametrize(
    ("host", "only_here"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("", False), ("talk.example", False)],
)
def test_loopback(host: str, only_here: bool) -> None:
    """Only what listens on a loopback address is out of the reach of other machines."""
    assert is_loopback(host) is only_here
    assert ServerOptions(host=host).is_open is not only_here


@pytest.mark.parametrize(
    ("header", "listens", "known"),
    [
        ("localhost:1", "0.0.0.0", True),
        ("talk.example", "127.0.0.1", True),
        ("evil.example", "0.0.0.0", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("192.168.1.7:8765", "0.0.0.0", True),
        ("192.168.1.7:8765", "127.0.0.1", False),
        ("127.0.0.2", "127.0.0.1", True),
    ],
)
def test_which_hosts_are_known(header: str, listens: str, known: bool) -> None:
    """Names that are listed are, and addresses, but none of other machines where only this one can reach it."""
    assert knows(header, ("Talk.Example.",), listens) is known


async def head(port: int, *hosts: str) -> list[str]:
    """The lines of the head of the response to a plain request, in lower case."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    told = "".join(f"Host: {host}\r\n" for host in hosts)
    writer.write(f"GET / HTTP/1.1\r\n{told}\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")


@live
async def test_a_name_of_somebody_else() -> None:
    """With `hosts` it is refused with 421 before anything is served or opened; without, every name will do."""
    async with WebSocketServer(ECHO, ServerOptions(files=FILES, hosts=("talk.example",))) as server:
        assert (await head(server.port, "talk.example"))[0] == "http/1.1 200 ok"
        for hosts in (("evil.example",), (), ("localhost", "evil.example")):
            assert (await head(server.port, *hosts))[0] == "http/1.1 421 misdirected request"
        with pytest.raises(InvalidStatus) as refused:
            async with raw(server, additional_headers={"Host": "evil.example"}):
                pass
        assert refused.value.response.status_code == 421
        async with raw(server) as client:
            assert (await client.hello())["type"] == "welcome"
    async with WebSocketServer(ECHO, ServerOptions(files=FILES)) as server:
        assert (await head(server.port, "any.example"))[0] == "http/1.1 200 ok"


@live
async def test_headers_of_its_own() -> None:
    """Every plain response has them, once, instead of the usual ones of that name; a WebSocket has none."""
    headers = {"X-Frame-Options": "DENY", "cache-control": "max-age=60"}
    async with WebSocketServer(ECHO, ServerOptions(files=FILES, headers=headers, hosts=())) as server:
        for host in ("localhost", "evil.example"):
            lines = await head(server.port, host)
            assert [line for line in lines if line.startswith("x-frame")] == ["x-frame-options: deny"]
            assert [line for line in lines if line.startswith("cache-")] == ["cache-control: max-age=60"]
        async with raw(server) as client:
            assert (await client.hello())["type"] == "welcome"
            response: Any = client.connection.response
            assert "X-Frame-Options" not in response.headers


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("X-One", "a\r\nX-Two: b", "a value one line"),
        ("X One", "a", "a name is one word"),
        ("Content-Length", "1", "leave it out"),
    ],
)
def test_headers_that_cannot_be_sent(name: str, value: str, problem: str) -> None:
    """One that would break the response is an error when the options are made."""
    with pytest.raises(ValidationError, match=problem):
        ServerOptions(headers={name: value})
