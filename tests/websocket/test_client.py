"""The client's end of a session: connecting, connecting again, going on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from talking import live, raw

from rxstage import (
    Audio,
    Message,
    PassthroughStage,
    Pipeline,
    Retry,
    SinkStage,
    StageFunc,
    StageType,
    StreamElement,
    Text,
)
from rxstage.websocket.bounds import SessionOptions
from rxstage.websocket.client import ClientSession, ConnectionRefused, SessionLost
from rxstage.websocket.hosted import ServerSession
from rxstage.websocket.options import ServerOptions
from rxstage.websocket.protocol import CloseCode, Limits, Sound
from rxstage.websocket.server import WebSocketServer

ECHO = Pipeline.of(PassthroughStage("echo"))
AGAIN = Retry(attempts=20, wait=0.01)


class Proxy:
    """A wire that can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.bytes = 0
        self.cut_after: int | None = None

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        mine = {writer, far_writer}
        self._writers |= mine
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer)),
            asyncio.ensure_future(self._pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for each in mine:
                each.transport.abort()
            self._writers -= mine
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2000):
                self.bytes += len(data)
                if self.cut_after is not None and self.bytes > self.cut_after:
                    self.bytes = 0
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()


def numbered(session: ServerSession) -> Pipeline:
    """Tells for each element how many came before it."""

    async def count(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        number = 0
        async for element in elements:
            if not element.is_control:
                yield element if element.text is None else f"{number}:{element.text}"
                number += 1

    return Pipeline.of(StageFunc("count", StageType.TRANSFORM, count))


@live
async def test_what_is_sent_before_there_is_a_connection_arrives() -> None:
    """Elements wait, in order, till the server has said welcome."""
    async with WebSocketServer(ECHO, ServerOptions(trusted=True)) as server:
        async with ClientSession(server.url) as client:
            await client.send("a")
            await client.send(Audio(bytes(640), 16_000))
            await client.send(StreamElement(Message.user("b"), {"lang": "en"}))
            await client.say_end()
            arrived = [element async for element in client]
    assert [element.content for element in arrived] == [Text("a"), Audio(bytes(640), 16_000), Message.user("b")]
    assert arrived[2].metadata == {"lang": "en"}


@live
async def test_a_session_goes_on_over_a_new_connection() -> None:
    """Where the wire is cut again and again, everything arrives once and in order, in the same session."""
    async with WebSocketServer(numbered, ServerOptions(limits=Limits())) as server, Proxy(server.port) as wire:
        bounds = SessionOptions(buffer=2000, replay=2000)
        async with ClientSession(wire.url, reconnect=AGAIN, options=bounds) as client:
            wire.cut_after = 40_000
            for number in range(600):
                await client.send(str(number))
                if number % 20 == 0:
                    await asyncio.sleep(0.001)
            await client.say_end()
            texts = [element.text async for element in client]
            assert texts == [f"{number}:{number}" for number in range(600)]
            assert client.resumed >= 1
            assert wire.connections == client.resumed + 1


@live
async def test_copies_are_dropped() -> None:
    """What the server has got already and is sent again counts once."""
    async with WebSocketServer(numbered) as server:
        async with raw(server) as one:
            session = (await one.hello())["session"]
            await one.say("text", text="a")
            await one.say("text", text="b")
            assert [(await one.hear())["text"] for _ in range(2)] == ["0:a", "1:b"]
            one.connection.transport.abort()
        async with raw(server) as two:
            welcome = await two.hello(session=session, received=1)
            assert (welcome["resumed"], welcome["received"]) == (True, 2)
            assert (await two.hear())["text"] == "1:b"  # which it said it has not got
            two.sequence = 1
            await two.say("text", text="b")
            await two.say("text", text="c")
            assert (await two.hear())["text"] == "2:c"
            assert next(iter(server.sessions.values())).duplicates == 1


@live
async def test_a_new_connection_takes_the_session_from_a_half_open_one() -> None:
    """The old connection, which the server still believed in, is closed with 4409."""
    async with WebSocketServer(ECHO) as server, raw(server) as old, raw(server) as new:
        session = (await old.hello())["session"]
        assert (await new.hello(session=session))["resumed"] is True
        assert (await old.closed())[0] == CloseCode.REPLACED
        await new.say("text", text="a")
        assert (await new.hear())["text"] == "a"
        assert len(server.sessions) == 1


@live
async def test_a_session_waits_for_its_client_only_so_long() -> None:
    """After `resume_for` the execution is ended, and the name leads to a new session."""
    async with WebSocketServer(ECHO, ServerOptions(resume_for=0.02)) as server:
        async with raw(server) as one:
            session = (await one.hello())["session"]
            one.connection.transport.abort()
        while server.sessions:
            await asyncio.sleep(0.01)
        async with raw(server) as two:
            assert (await two.hello(session=session))["resumed"] is False


@pytest.mark.parametrize("restart", [False, True])
@live
async def test_a_forgotten_session(restart: bool) -> None:
    """Where the server has forgotten the session the client fails, or goes on in a new one if it may."""
    async with WebSocketServer(numbered, ServerOptions(resume_for=0)) as server, Proxy(server.port) as wire:
        async with ClientSession(wire.url, reconnect=AGAIN, restart=restart) as client:
            await client.send("a")
            assert (await anext(client)).text == "0:a"
            wire.cut()
            if restart:
                await asyncio.sleep(0)
                while client.connected:
                    await asyncio.sleep(0)
                await client.send("b")
                assert (await anext(client)).text == "0:b"
            else:
                with pytest.raises(SessionLost, match="forgotten the session"):
                    await anext(client)


@live
async def test_nobody_answers() -> None:
    """Without a server it tries as often as it was told, then fails and says what."""
    async with ClientSession("ws://127.0.0.1:9/", reconnect=Retry(attempts=3, wait=0.001)) as client:
        with pytest.raises(SessionLost, match=r"127\.0\.0\.1:9/ is lost"):
            await anext(client)


@live
async def test_a_wrong_token_is_not_tried_again() -> None:
    """Where another try would not help, the client fails at once, with the server's reason."""
    async with WebSocketServer(ECHO, ServerOptions(tokens=("one",))) as server:
        async with ClientSession(server.url, token="two", reconnect=AGAIN) as client:
            with pytest.raises(ConnectionRefused, match="not the right token"):
                await anext(client)
        async with ClientSession(server.url, token="one") as client:
            await client.send("a")
            assert (await anext(client)).text == "a"


@live
async def test_it_keeps_to_the_limits_of_the_server() -> None:
    """A client that has more to send than the server allows sends it more slowly, and is not closed."""
    limits = Limits(messages_per_second=500)
    options = ServerOptions(limits=limits, session=SessionOptions(buffer=3000))
    async with WebSocketServer(ECHO, options) as server:
        async with ClientSession(server.url, reconnect=None, options=SessionOptions(buffer=3000)) as client:
            for number in range(1050):
                await client.send(str(number))
            await client.say_end()
            assert [element.text async for element in client] == [str(number) for number in range(1050)]


@live
async def test_a_client_says_goodbye() -> None:
    """On leaving, what waits is sent and the session is over at once."""
    heard: list[str] = []
    async with WebSocketServer(Pipeline.of(SinkStage("hear", heard.append, on=Text))) as server:
        async with ClientSession(server.url) as client:
            while not client.connected:
                await asyncio.sleep(0)
            await client.send("last words")
        while server.sessions:
            await asyncio.sleep(0)


@live
async def test_sound_is_sent_in_the_settled_form() -> None:
    """The client converts what it sends, and gets what it asked for."""
    async with WebSocketServer(ECHO) as server:
        async with ClientSession(server.url, sends=Sound(sample_rate=16_000), wants=Sound(sample_rate=8_000)) as client:
            await client.send(Audio(bytes(2 * 48_000 * 2), 48_000, 2))
            await client.say_end()
            audios = [element.audio async for element in client]
    assert {audio.sample_rate for audio in audios if audio} == {8_000}
    assert abs(sum(audio.frames for audio in audios if audio) - 8_000) <= 2
