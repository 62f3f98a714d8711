"""The server: a session for each client, files, and who is let in."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from talking import Raw, live, raw
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rxstage import (
    Audio,
    Data,
    Failure,
    FlatMapStage,
    MapStage,
    PassthroughStage,
    Pipeline,
    Stage,
    StageFunc,
    StageType,
    StreamElement,
    Text,
)
from rxstage.websocket.bounds import SessionOptions
from rxstage.websocket.hosted import ServerSession
from rxstage.websocket.options import ServerOptions
from rxstage.websocket.protocol import GAP, HEAD, SUBPROTOCOL, CloseCode, Limits, Sound
from rxstage.websocket.server import WebSocketServer

FRAME = bytes(range(256)) * 2 + bytes(128)
ECHO = Pipeline.of(PassthroughStage("echo"))


def pipeline(*stages: Stage) -> Pipeline:
    series: Any = stages[0]
    for stage in stages[1:]:
        series = series >> stage
    return Pipeline.of(series)


@live
async def test_each_client_has_an_execution_of_its_own() -> None:
    """What a client sends goes through the pipeline and comes back to it, and to nobody else."""
    async with WebSocketServer(pipeline(MapStage("up", str.upper, on=Text))) as server:
        async with raw(server) as one, raw(server) as other:
            welcome = await one.hello()
            await other.hello()
            assert one.connection.subprotocol == SUBPROTOCOL
            assert welcome["session"] != other.welcome["session"]
            assert len(server.sessions) == 2
            await one.say("text", text="a")
            await other.say("text", text="b")
            await one.sound(FRAME)
            await one.say("message", role="user", text="hello")
            await one.say("end_of_turn")
            assert await one.hear() == {"type": "text", "sequence": 1, "text": "A"}
            assert await one.hear() == FRAME
            assert await one.hear() == {"type": "message", "sequence": 3, "role": "user", "text": "hello"}
            assert await one.hear() == {"type": "end_of_turn", "sequence": 4}
            assert await other.hear() == {"type": "text", "sequence": 1, "text": "B"}


@live
async def test_the_end_of_what_comes_in_lets_the_answer_out() -> None:
    """After `end` the execution drains, the server says goodbye and closes with 1000."""

    async def count(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        number = 0
        async for element in elements:
            number += element.audio is not None
        yield f"{number} frames"

    async with WebSocketServer(pipeline(StageFunc("count", StageType.ACCUMULATE, count))) as server:
        async with raw(server) as client:
            await client.hello()
            for _ in range(5):
                await client.sound(FRAME)
            await client.say("end")
            assert await client.rest() == [
                {"type": "text", "sequence": 1, "text": "5 frames"},
                {"type": "bye", "reason": ""},
            ]
            assert (await client.closed())[0] == CloseCode.NORMAL
        assert server.sessions == {}


@live
async def test_a_client_that_leaves_ends_its_execution() -> None:
    """Where a client closes, its execution is cancelled and nothing of it is kept."""
    async with WebSocketServer(ECHO) as server:
        async with raw(server) as client:
            await client.hello()
            await client.say("text", text="a")
            await client.hear()
            assert len(ECHO.executions) == 1
        async with asyncio.timeout(5):
            while ECHO.executions:
                await asyncio.sleep(0)
        assert server.sessions == {}


@live
async def test_a_pipeline_that_fails_closes_its_session_only() -> None:
    """The client gets 4500 and the name of the stage, not what it worked on; other clients go on."""

    def check(text: str) -> str:
        if text == "bad":
            raise ValueError("secret")
        return text

    async with WebSocketServer(pipeline(MapStage("check", check, on=Text))) as server:
        async with raw(server) as bad, raw(server) as good:
            await bad.hello()
            await good.hello()
            await bad.say("text", text="bad")
            assert await bad.closed() == (CloseCode.FAILED, "stage 'check' failed")
            await good.say("text", text="good")
            assert (await good.hear())["text"] == "good"


@live
async def test_an_async_function_may_do_everything_itself() -> None:
    """It iterates the session and sends; with its end the session ends."""

    async def greet(session: ServerSession) -> None:
        await session.send(f"hello {session.client}")
        async for element in session:
            await session.send(element)
            return

    async with WebSocketServer(greet) as server, raw(server) as client:
        await client.hello(client="test")
        await client.say("text", text="x")
        assert [frame.get("text") for frame in await client.rest()] == ["hello test", "x", None]


@live
async def test_a_function_may_give_each_client_its_pipeline() -> None:
    """It is called with the session."""

    def choose(session: ServerSession) -> Pipeline:
        return pipeline(MapStage("name", lambda text: f"{session.client}: {text}", on=Text))

    async with WebSocketServer(choose) as server, raw(server) as client:
        await client.hello(client="me")
        await client.say("text", text="x")
        assert (await client.hear())["text"] == "me: x"


@live
async def test_sound_is_converted_to_what_the_client_wants() -> None:
    """Sound of another rate and format goes out in the settled form."""
    second = Audio(bytes(4 * 48_000), 48_000, 1, "float32")  # type: ignore[arg-type]

    def answer(element: StreamElement) -> Any:
        return [second, StreamElement.end_of_turn()] if element.text == "go" else [element]

    async with WebSocketServer(pipeline(FlatMapStage("answer", answer))) as server, raw(server) as client:
        welcome = await client.hello(wants=Sound(sample_rate=24_000))
        assert (welcome["takes"]["sample_rate"], welcome["sends"]["sample_rate"]) == (16_000, 24_000)
        await client.say("text", text="go")
        frames = []
        while isinstance(frame := await client.hear(), bytes):
            frames.append(frame)
        assert abs(sum(map(len, frames)) // 2 - 24_000) <= 1
        assert max(map(len, frames)) <= 4_800  # 100 ms


@live
async def test_failures_and_values_reach_the_client() -> None:
    """A failure comes as type and message, a value of a registered class with its name, another not at all."""

    def answer(element: StreamElement) -> Any:
        if element.text is None:
            return [element]
        return [Data({"a": 1}), Data(object()), Failure(ValueError("bad"), "stt"), "done"]

    async with WebSocketServer(pipeline(FlatMapStage("answer", answer))) as server, raw(server) as client:
        await client.hello()
        await client.say("text", text="go")
        value, failure, text = [await client.hear() for _ in range(3)]
        assert (value["type"], value["value"]) == ("data", {"a": 1})
        assert (failure["error"], failure["message"], failure["stage"], failure["traceback"]) == (
            "ValueError",
            "bad",
            "stt",
            "",
        )
        assert text["text"] == "done"
        assert next(iter(server.sessions.values())).statistics().unsendable == 1


@live
async def test_a_ping_is_answered_ahead_of_what_waits() -> None:
    """`pong` has the time of its `ping`."""
    async with WebSocketServer(ECHO) as server, raw(server) as client:
        await client.hello()
        await client.connection.send('{"type":"ping","time":12.5}')
        assert await client.hear() == {"type": "pong", "time": 12.5}


@live
async def test_frames_are_acknowledged() -> None:
    """Every 32 frames the other end is told that they have come."""
    async with WebSocketServer(pipeline(FlatMapStage("none", lambda _: []))) as server, raw(server) as client:
        await client.hello()
        for _ in range(64):
            await client.sound(FRAME)
        assert await client.hear() in ({"type": "ack", "received": 32}, {"type": "ack", "received": 64})


# --- bounds -----------------------------------------------------------------------------------------------------------


@live
async def test_a_client_that_does_not_read_loses_its_oldest_sound_only() -> None:
    """The queue to it is bounded, text is not left out, and another client is served meanwhile."""
    go = asyncio.Event()

    async def flood(session: ServerSession) -> None:
        await session.send("first")
        if session.client == "slow":
            for number in range(20_000):
                await session.send(Audio(number.to_bytes(4, "little") * 160, 16_000))
            await session.send("last")
            go.set()
        async for element in session:
            await session.send(element)

    bounds = SessionOptions(buffer=50, replay=50)
    async with WebSocketServer(flood, ServerOptions(session=bounds)) as server:
        async with raw(server, max_queue=1) as slow, raw(server) as quick:
            await slow.hello(client="slow")
            await quick.hello(client="quick")
            assert (await quick.hear())["text"] == "first"
            await go.wait()
            await quick.say("text", text="still there")
            assert (await quick.hear())["text"] == "still there"
            session = next(each for each in server.sessions.values() if each.client == "slow")
            statistics = session.statistics()
            assert statistics.outgoing.dropped > 1000
            assert statistics.outgoing.peak <= 50
            texts: list[str] = []
            numbers: list[int] = []
            gaps = 0
            while len(texts) < 2:
                frame = await slow.connection.recv()
                if isinstance(frame, bytes):
                    numbers.append(int.from_bytes(frame[8:12], "little"))
                    gaps += HEAD.unpack_from(frame)[1] & GAP
                elif '"text"' in frame:
                    texts.append(frame)
            assert numbers == sorted(numbers)
            assert numbers[-1] == 19_999
            assert gaps >= 1


@live
async def test_with_wait_nothing_is_lost() -> None:
    """`overflow_out="wait"` slows the pipeline down to what the client reads."""

    async def flood(session: ServerSession) -> None:
        for number in range(5000):
            await session.send(Audio(number.to_bytes(4, "little") * 160, 16_000))

    bounds = SessionOptions(buffer=8, overflow_out="wait")
    async with WebSocketServer(flood, ServerOptions(session=bounds)) as server, raw(server) as client:
        await client.hello()
        frames = [frame for frame in await client.rest() if isinstance(frame, bytes)]
        assert [int.from_bytes(frame[:4], "little") for frame in frames] == list(range(5000))


@live
async def test_an_interrupt_overtakes_queued_sound() -> None:
    """The sound and the marks that wait are taken away; text stays, in order; the client is told to flush."""
    sent = asyncio.Event()

    async def answer(session: ServerSession) -> None:
        for _ in range(64):  # none of which lets the writer run
            await session.send(Audio(FRAME, 16_000))
        await session.send("words")
        await session.send(StreamElement.interrupt("barge-in"))
        assert session.statistics().outgoing.flushed == 64
        await session.send("next")
        sent.set()
        async for _ in session:
            pass

    async with WebSocketServer(answer) as server, raw(server) as client:
        await client.hello()
        await sent.wait()
        kinds = [(await client.hear()) for _ in range(3)]
        assert [frame["type"] if isinstance(frame, dict) else "audio" for frame in kinds] == [
            "text",
            "interrupt",
            "text",
        ]
        await client.connection.close()


@live
async def test_an_interrupt_of_the_client_does_not_wait() -> None:
    """It cancels what is under way, though the pipeline takes nothing in meanwhile."""
    begun = asyncio.Event()

    async def think(element: StreamElement) -> StreamElement:
        if element.text == "think":
            begun.set()
            await asyncio.Event().wait()
        return element

    async with WebSocketServer(pipeline(MapStage("think", think, interruptible=True))) as server, raw(server) as client:
        await client.hello()
        await client.say("text", text="think")
        await begun.wait()
        for _ in range(100):
            await client.sound(FRAME)
        await client.say("interrupt")
        await client.say("text", text="next")
        frames = [frame async for frame in _until_text(client)]
        assert frames[0]["type"] == "interrupt"


async def _until_text(client: Raw) -> AsyncIterator[Any]:
    while True:
        frame = await client.hear()
        if isinstance(frame, dict) and frame["type"] != "ack":
            yield frame
            if frame["type"] == "text":
                return


# --- who is let in ----------------------------------------------------------------------------------------------------


@live
async def test_a_token_in_the_head() -> None:
    """A program shows its token as a bearer; a wrong one is answered with 401 before there is a WebSocket."""
    async with WebSocketServer(ECHO, ServerOptions(tokens=("one", "two"))) as server:
        async with raw(server, additional_headers={"Authorization": "Bearer two"}) as client:
            await client.hello()
            assert [session.user for session in server.sessions.values()] == [1]
        for wrong in ("Bearer three", "Basic two", "two", "Bearer "):
            with pytest.raises(InvalidStatus) as refused:
                async with raw(server, additional_headers={"Authorization": wrong}):
                    pass
            assert refused.value.response.status_code == 401


@live
async def test_a_token_in_hello() -> None:
    """A page shows its token in `hello`; without one, or with a wrong one, it is closed with 4401."""
    async with WebSocketServer(ECHO, ServerOptions(tokens=("one",))) as server:
        async with raw(server) as client:
            await client.hello(token="one")
            assert client.welcome["type"] == "welcome"
        for token, why in ((None, "no token"), ("onf", "not the right token")):
            async with raw(server) as client:
                with pytest.raises(ConnectionClosed):
                    await client.hello(token=token)
                assert await client.closed() == (CloseCode.UNAUTHORIZED, why)


@pytest.mark.parametrize(
    ("origins", "origin", "welcome"),
    [
        (None, None, True),
        (None, "http://{host}", True),
        (None, "https://evil.example", False),
        (None, "null", False),
        (None, "http://[", False),
        (("https://good.example",), "https://good.example", True),
        (("https://good.example",), "https://good.example.evil", False),
        (("https://good.example",), None, True),
        (("*",), "https://any.example", True),
    ],
    ids=range(9),
)
@live
async def test_origins(origins: tuple[str, ...] | None, origin: str | None, welcome: bool) -> None:
    """A page of another origin is answered with 403, unless it is on the list."""
    async with WebSocketServer(ECHO, ServerOptions(origins=origins)) as server:
        headers = {} if origin is None else {"Origin": origin.format(host=f"127.0.0.1:{server.port}")}
        if welcome:
            async with raw(server, additional_headers=headers) as client:
                assert (await client.hello())["type"] == "welcome"
        else:
            with pytest.raises(InvalidStatus) as refused:
                async with raw(server, additional_headers=headers):
                    pass
            assert refused.value.response.status_code == 403


@live
async def test_files() -> None:
    """A plain HTTP request gets a file, what a function makes, or 404."""
    calls = []

    def made() -> tuple[str, bytes]:
        calls.append(1)
        return "application/json", b"{}"

    files: Any = {"/": ("text/html", b"<p>hi</p>"), "/state": made}

    def get(url: str) -> tuple[int, str | None, bytes]:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read()

    async with WebSocketServer(ECHO, ServerOptions(files=files, path="/ws")) as server:
        base = f"http://127.0.0.1:{server.port}"
        assert await asyncio.to_thread(get, f"{base}/?a=b") == (200, "text/html", b"<p>hi</p>")
        assert await asyncio.to_thread(get, f"{base}/state") == (200, "application/json", b"{}")
        assert calls == [1]
        assert (await asyncio.to_thread(get, f"{base}/../etc/passwd"))[0] == 404
        async with raw(server) as client:
            assert (await client.hello())["type"] == "welcome"
        with pytest.raises(InvalidStatus):
            async with raw(f"ws://127.0.0.1:{server.port}/other"):
                pass


@pytest.mark.needs("openssl")
def test_tls(tmp_path: Path) -> None:
    """With a certificate the server speaks TLS, and its address says so."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )

    @live
    async def talk() -> None:
        async with WebSocketServer(ECHO, ServerOptions(tls=(certificate, key))) as server:
            assert server.url.startswith("wss://")
            async with raw(server, ssl=ssl.create_default_context(cafile=str(certificate))) as client:
                await client.hello()
                await client.say("text", text="hi")
                assert (await client.hear())["text"] == "hi"
            with pytest.raises(ssl.SSLCertVerificationError):
                async with raw(server):
                    pass

    talk()


# --- its own end ------------------------------------------------------------------------------------------------------


@live
async def test_a_graceful_close_lets_the_answer_out() -> None:
    """What is under way is answered, then the connection is closed with 1001; nobody new is taken."""
    begun = asyncio.Event()

    async def slowly(text: str) -> str:
        begun.set()
        for _ in range(20):
            await asyncio.sleep(0)
        return text.upper()

    server = WebSocketServer(pipeline(MapStage("slowly", slowly, on=Text)))
    await server.start()
    async with raw(server) as client, raw(server) as silent:
        await client.hello()
        await client.say("text", text="a")
        await begun.wait()
        closing = asyncio.create_task(server.close())
        assert [frame["type"] for frame in await client.rest()] == ["text", "bye"]
        assert await client.closed() == (CloseCode.GOING_AWAY, "the server stops")
        assert (await silent.closed())[0] == CloseCode.GOING_AWAY
        await closing
    await server.serve_forever()


@live
async def test_a_close_does_not_wait_for_ever() -> None:
    """An answer that does not come is cut off after the time to drain."""
    begun = asyncio.Event()

    async def never(text: str) -> str:
        begun.set()
        await asyncio.Event().wait()
        return text

    server = WebSocketServer(pipeline(MapStage("never", never, on=Text)))
    await server.start()
    async with raw(server) as client:
        await client.hello()
        await client.say("text", text="a")
        await begun.wait()
        await asyncio.gather(server.close(drain=0.01), client.closed())
        assert client.connection.close_code == CloseCode.GOING_AWAY
    assert server.sessions == {}


@live
async def test_a_dead_client_is_noticed() -> None:
    """Without an answer to the heartbeat the connection is given up, and the session after `resume_for`."""
    options = ServerOptions(heartbeat=0.05, heartbeat_timeout=0.05, close_timeout=0.05, resume_for=0.0)
    async with WebSocketServer(ECHO, options) as server:
        async with raw(server) as client:
            await client.hello()
            client.connection.transport.pause_reading()  # it hears no ping
            while server.sessions:
                await asyncio.sleep(0.01)
            client.connection.transport.abort()


@live
async def test_limits_are_told() -> None:
    """The welcome says what may be sent, how fast, and how long the session waits."""
    options = ServerOptions(limits=Limits(message_bytes=1000, messages_per_second=5), resume_for=7)
    async with WebSocketServer(ECHO, options) as server, raw(server) as client:
        welcome = await client.hello()
        assert welcome["limits"] == {"message_bytes": 1000, "messages_per_second": 5.0}
        assert welcome["resume_for"] == 7.0
        assert welcome["accepts"] == ["audio", "end", "end_of_turn", "interrupt", "message", "text"]
