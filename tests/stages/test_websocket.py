"""The bridge: a stage that stands for a pipeline elsewhere, and the source and sink of a graph behind a connection."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import reactivex as rx

from rxstage import (
    Audio,
    Data,
    EndOfTurn,
    Failure,
    Interrupt,
    MapStage,
    Message,
    PassthroughStage,
    Pipeline,
    PipelineConfig,
    Retry,
    StageError,
    StreamElement,
    Text,
)
from rxstage.stages.websocket import WebSocketBridgeStage
from rxstage.testing import assert_no_leaks
from rxstage.websocket.hosted import ServerSession
from rxstage.websocket.options import ServerOptions
from rxstage.websocket.server import WebSocketServer
from rxstage.websocket.session import Session

LIMIT = 30.0
UP = Pipeline.of(MapStage("up", str.upper, on=Text))


def live(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a real loop, bounded, and look for what it leaves behind."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with assert_no_leaks():
            asyncio.run(asyncio.wait_for(test(*args, **kwargs), LIMIT))

    return run


def contents(elements: Any) -> list[Any]:
    return [element.content for element in elements]


@live
async def test_a_pipeline_elsewhere() -> None:
    """What comes in is sent, what is received flows on, once and in order; each execution has its own session."""
    async with WebSocketServer(UP) as server:
        pipeline = Pipeline.of(
            PassthroughStage("before") >> WebSocketBridgeStage(server.url) >> PassthroughStage("after")
        )
        sound = Audio(bytes(640), 16_000)
        one, two = await asyncio.gather(
            pipeline.execute(["a", sound, Message.user("b"), StreamElement.end_of_turn(), "c"]),
            pipeline.execute(["x", StreamElement.end_of_turn()]),
        )
    assert contents(one.elements) == [Text("A"), sound, Message.user("b"), EndOfTurn(), Text("C")]
    assert contents(two.elements) == [Text("X"), EndOfTurn()]


@live
async def test_what_the_other_end_does_not_take_passes_by() -> None:
    """Data is no business of a server that takes none from strangers; a `Failure` stays here too."""
    error = ValueError("x")
    async with WebSocketServer(UP) as server:
        result = await Pipeline.of(WebSocketBridgeStage(server.url)).execute([Data(1), Failure(error, "s"), "a"])
    assert sorted(contents(result.elements), key=str) == sorted([Data(1), Failure(error, "s"), Text("A")], key=str)


@live
async def test_an_interrupt_goes_both_ways() -> None:
    """It passes here at once, cancels the answer there, and the next turn is answered."""
    begun = asyncio.Event()

    async def think(element: StreamElement) -> StreamElement:
        if element.text == "think":
            begun.set()
            await asyncio.Event().wait()
        return element

    async def speak() -> AsyncIterator[Any]:
        yield "think"
        await begun.wait()
        yield StreamElement.interrupt("enough")
        yield "next"

    async with WebSocketServer(Pipeline.of(MapStage("think", think, interruptible=True))) as server:
        result = await Pipeline.of(WebSocketBridgeStage(server.url)).execute(speak())
    assert {type(content) for content in contents(result.elements)} == {Interrupt, Text}
    assert contents(result.elements)[-1] == Text("next")


@live
async def test_an_interrupt_of_the_other_end_overtakes_its_sound() -> None:
    """Behind 64 frames that a slow consumer has not taken it comes next, and what was queued is gone."""
    go = asyncio.Event()
    sound = Audio(bytes(640), 16_000)

    async def answer(session: ServerSession) -> None:
        for _ in range(64):
            await session.send(sound)
        await go.wait()
        await session.send(StreamElement.interrupt("barge-in"))
        await session.send("next")
        async for _ in session:
            pass

    async def speak() -> AsyncIterator[Any]:
        await go.wait()
        await done.wait()
        yield "x"

    done = asyncio.Event()
    async with WebSocketServer(answer) as server:
        execution = Pipeline.of(WebSocketBridgeStage(server.url)).execute(speak())
        output = aiter(execution)
        assert (await anext(output)).audio == sound

        def depth() -> int:
            return sum(edge.depth for edge in execution.statistics().edges.values())

        while depth() < 14:
            await asyncio.sleep(0)
        go.set()
        while depth() > 2:
            await asyncio.sleep(0)
        assert (await anext(output)).content == Interrupt("barge-in")
        assert (await anext(output)).text == "next"
        done.set()
        assert [element async for element in output] == []


@live
async def test_the_answer_goes_back_over_the_same_connection() -> None:
    """`incoming` is the source and `outgoing` a sink of one session, and the graph has no cycle."""
    left: list[StreamElement] = []

    async def answer(session: ServerSession) -> None:
        bridge = WebSocketBridgeStage(session)
        graph = Pipeline.of(bridge.incoming >> MapStage("up", str.upper, on=Text) >> bridge.outgoing)
        left.extend([element async for element in graph.execute()])

    async with WebSocketServer(answer) as server:
        result = await Pipeline.of(WebSocketBridgeStage(server.url)).execute(["a", StreamElement.end_of_turn(), "b"])
    assert contents(result.elements) == [Text("A"), EndOfTurn(), Text("B")]
    assert left == []  # a sink has no output


@live
@pytest.mark.parametrize("fed", [False, True], ids=["pure source", "with an input"])
async def test_an_interrupt_overtakes_in_a_source(fed: bool) -> None:
    """Behind `incoming`, too, an interrupt acts at once: full buffers are emptied, work is cut short."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def think(text: str) -> str:
        if text == "next":
            return text
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return text

    session = Session()
    bridge = WebSocketBridgeStage(session)
    stages = bridge.incoming >> MapStage("think", think, on=Text, interruptible=True)
    source = rx.never() if fed else None
    async with Pipeline.of(stages, config=PipelineConfig(buffer_size=4)).execute(source) as execution:
        for number in range(20):
            session.incoming.offer(StreamElement.of(str(number)))
        output = aiter(execution)
        first = asyncio.ensure_future(anext(output))
        await begun.wait()
        for _ in range(100):  # turns of the loop, till the valve is closed
            await asyncio.sleep(0)
        assert len(session.incoming.items) > 10
        assert session.arrive(StreamElement.interrupt("stop"))
        assert session.arrive(StreamElement.of("next"))
        assert (await first).content == Interrupt("stop")
        assert cancelled.is_set()
        assert (await anext(output)).text == "next"


@live
async def test_a_client_that_answers() -> None:
    """A graph between `incoming` and `outgoing` of an address serves the other end, over one connection."""
    asked: list[str | None] = []

    async def ask(session: ServerSession) -> None:
        await session.send("what?")
        asked.append((await anext(session)).text)

    async with WebSocketServer(ask, ServerOptions(trusted=True)) as server:
        bridge = WebSocketBridgeStage("bridge", server.url)
        graph = Pipeline.of(bridge.incoming >> MapStage("up", str.upper, on=Text) >> bridge.outgoing)
        assert contents((await graph.execute()).elements) == []
        assert server.sessions == {}
    assert asked == ["WHAT?"]


@live
async def test_metadata_goes_between_trusted_ends() -> None:
    """A server that trusts its clients gets all kinds of elements, with metadata, and gives them back."""
    async with WebSocketServer(UP, ServerOptions(trusted=True)) as server:
        sent = [StreamElement(Text("a"), {"lang": "en"}), StreamElement.of(Data({"n": 1}))]
        await asyncio.sleep(0)
        result = await Pipeline.of(WebSocketBridgeStage(server.url)).execute(sent)
    assert (Text("A"), {"lang": "en"}) in [(element.content, element.metadata) for element in result.elements]


@live
async def test_nobody_there() -> None:
    """Without a server the execution fails, and the error names stage and address."""
    stage = WebSocketBridgeStage("far", "ws://127.0.0.1:9/", reconnect=Retry(attempts=2, wait=0.001))
    with pytest.raises(StageError, match=r"stage 'far'.*ws://127\.0\.0\.1:9/ is lost"):
        await Pipeline.of(stage).execute(["a"])


@live
async def test_the_other_end_fails() -> None:
    """A pipeline that fails there fails the stage here, with the name of the stage there."""

    def check(text: str) -> str:
        raise ValueError(text)

    async with WebSocketServer(Pipeline.of(MapStage("check", check, on=Text))) as server:
        with pytest.raises(StageError, match="4500: stage 'check' failed"):
            await Pipeline.of(WebSocketBridgeStage(server.url)).execute(["a"])


@live
async def test_cancelling_leaves_nothing() -> None:
    """A consumer that goes away ends the session there too."""
    async with WebSocketServer(UP) as server:

        async def speak() -> AsyncIterator[Any]:
            yield "a"
            await asyncio.Event().wait()

        async with Pipeline.of(WebSocketBridgeStage(server.url)).execute(speak()) as execution:
            assert (await anext(aiter(execution))).text == "A"
        while server.sessions:
            await asyncio.sleep(0)


def test_what_it_needs() -> None:
    """Neither an address nor a session is an error that says so."""
    with pytest.raises(TypeError, match="must be an address"):
        WebSocketBridgeStage("name")
    assert WebSocketBridgeStage("ws://localhost:1").name == "web_socket_bridge_stage"
    assert WebSocketBridgeStage("name", "ws://localhost:1").name == "name"
