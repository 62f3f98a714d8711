"""What holds elements and frames: bounded, and nothing is left out but what may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talking import live, raw

from rxstage import Audio, Data, PassthroughStage, Pipeline, Priority, StreamElement
from rxstage.testing import run_virtual
from rxstage.voice.speech import Spoken
from rxstage.websocket.limits import Bucket, known_secret, reason_of
from rxstage.websocket.options import ServerOptions
from rxstage.websocket.protocol import HEAD
from rxstage.websocket.queue import LinkQueue
from rxstage.websocket.replay import Replay
from rxstage.websocket.server import WebSocketServer

SOUND = Audio(bytes(640), 16_000)


def element(kind: str, number: int) -> StreamElement:
    made: dict[str, Callable[[], Any]] = {
        "sound": lambda: StreamElement.of(Audio(number.to_bytes(2, "little") * 4, 16_000)),
        "level": lambda: StreamElement(Data(number), priority=Priority.LOW),
        "text": lambda: StreamElement.of(str(number)),
        "end": StreamElement.end_of_turn,
        "mark": lambda: StreamElement.of(Data(Spoken(str(number)))),
        "interrupt": StreamElement.interrupt,
    }
    result: StreamElement = made[kind]()
    return result


_KINDS = st.sampled_from(["sound", "sound", "sound", "level", "text", "end", "mark", "interrupt", "take"])


@given(st.lists(_KINDS, max_size=60), st.integers(1, 8))
def test_only_sound_gives_way(kinds: list[str], capacity: int) -> None:
    """Whatever comes and goes, the queue is bounded, in order, and has lost nothing but sound, levels and marks."""

    async def run() -> None:
        queue = LinkQueue(capacity, 100, "drop_oldest")
        kept: list[StreamElement] = []
        taken: list[StreamElement] = []
        for number, kind in enumerate(kinds):
            if kind == "take":
                if queue.items:
                    taken.append(queue.take())
                continue
            made = element(kind, number)
            if queue.offer(made):
                kept.append(made)
            else:
                assert kind not in ("sound", "level", "interrupt")
                assert len(queue.items) >= capacity
            assert len(queue.items) <= capacity + kinds.count("interrupt")
            assert queue.bytes == sum(len(each.content.samples) for each in queue.items if each.audio is not None)
        taken += queue.items
        assert taken == [each for each in kept if any(each is other for other in taken)]
        for each in kept:
            may_go = each.audio is not None or isinstance(each.content, Data)
            assert may_go or any(each is other for other in taken)

    run_virtual(run)


def test_waiting_for_room() -> None:
    """With `"wait"` a sender goes on when something was taken, and several senders each in its turn."""

    async def run() -> list[str | None]:
        queue = LinkQueue(2, 10_000, "wait")
        senders = [asyncio.create_task(queue.put(StreamElement.of(str(number)))) for number in range(6)]
        await asyncio.sleep(0)
        assert len(queue.items) == 2
        taken: list[str | None] = []
        while len(taken) < 6:
            found = await queue.get()
            assert found is not None
            taken.append(found.text)
        await asyncio.gather(*senders)
        queue.end()
        assert await queue.get() is None
        return taken

    assert sorted(filter(None, run_virtual(run))) == list("012345")


def test_a_queue_that_has_failed() -> None:
    """What is in it can still be taken; then its error is raised."""

    async def run() -> None:
        queue = LinkQueue(2, 10_000, "wait")
        await queue.put(StreamElement.of("a"))
        queue.end(ValueError("broken"))
        assert (await queue.get()) == StreamElement.of("a")
        with pytest.raises(ValueError, match="broken"):
            await queue.get()

    run_virtual(run)


def test_replay_keeps_text_longest() -> None:
    """Where it is full sound goes first; a session cannot go on from before text that is gone."""
    replay = Replay(3, 1000)
    frames: list[str | bytes] = ["text", b"sound", b"sound", "text", "text"]
    for number, frame in enumerate(frames, 1):
        replay.add(number, frame)
    assert list(replay.after(0)) == ["text", "text", "text"]
    assert (replay.lost, replay.reaches(0)) == (2, True)
    replay.add(6, "text")
    assert (replay.lost, replay.reaches(0), replay.reaches(1)) == (3, False, True)
    replay.acknowledge(5)
    assert list(replay.after(0)) == ["text"]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=60))
def test_replay_is_bounded(frames: list[tuple[bool, int]]) -> None:
    """It holds at most so many frames, and so many bytes."""
    replay = Replay(5, 1000)
    for number, (sound, size) in enumerate(frames, 1):
        replay.add(number, bytes(size) if sound else "x" * size)
        kept = list(replay.after(0))
        assert len(kept) <= 5
        assert sum(map(len, kept)) <= 1000


def test_buckets() -> None:
    """What was not used is saved up, to a limit; what is too early says by how much."""
    bucket = Bucket(10, 2.0, 0.0)
    assert [bucket.take(20, 0.0), bucket.take(5, 0.0)] == [0.0, 0.5]
    assert bucket.take(0, 0.5) == 0.0
    assert bucket.take(20, 100.0) == 0.0
    assert bucket.take(1, 100.0) == pytest.approx(0.1)
    assert Bucket(None, 2.0, 0.0).take(1e9, 0.0) == 0.0


def test_secrets_and_reasons() -> None:
    """A secret is found by its place; a reason is cut where a close frame ends, between two characters."""
    assert known_secret("b", ("a", "b")) == 1
    assert known_secret("\ud800", ("a",)) is None
    assert len(reason_of("é" * 100).encode()) == 122


@live
async def test_with_wait_what_comes_in_is_not_lost() -> None:
    """`overflow_in="wait"` leaves a client's sound in the network till the pipeline takes it."""
    from rxstage.websocket.bounds import SessionOptions
    from rxstage.websocket.protocol import Limits

    go = asyncio.Event()
    heard: list[int] = []

    async def listen(session: Any) -> None:
        await go.wait()
        heard.extend([int.from_bytes(each.audio.samples[:4], "little") async for each in session])

    options = ServerOptions(session=SessionOptions(buffer=8, overflow_in="wait"), limits=Limits())
    async with WebSocketServer(listen, options) as server, raw(server) as client:
        await client.hello()

        async def speak() -> None:
            for number in range(3000):
                await client.sound(number.to_bytes(4, "little") * 160)
            await client.say("end")

        speaking = asyncio.create_task(speak())
        while not (session := next(iter(server.sessions.values()))).incoming.full:
            await asyncio.sleep(0)
        go.set()
        await client.rest()
        await speaking
        assert session.statistics().incoming.peak == 8
    assert heard == list(range(3000))


@live
async def test_a_session_that_waits_gives_way() -> None:
    """Where a server is full, the session of a lost client is given up for one that is there."""
    options = ServerOptions(max_sessions=1)
    async with WebSocketServer(Pipeline.of(PassthroughStage("echo")), options) as server:
        async with raw(server) as lost:
            await lost.hello()
            await lost.connection.send(HEAD.pack(1, 0, 0, 1) + SOUND.samples)
            await lost.hear()
            lost.connection.transport.abort()
        while next(iter(server.sessions.values())).expiry is None:
            await asyncio.sleep(0)
        async with raw(server) as client:
            assert (await client.hello())["resumed"] is False
            await client.say("text", text="a")
            assert (await client.hear())["text"] == "a"
            assert len(server.sessions) == 1
