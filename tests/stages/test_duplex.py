"""A conversation with a realtime model, against a scripted service and against aimock."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from rxstage import (
    Audio,
    Data,
    Failure,
    Message,
    Pipeline,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from rxstage.audiospec import AudioSpec
from rxstage.conversation import TRANSCRIPT, conversations
from rxstage.stages.duplex import DuplexProviderStage
from rxstage.testing import assert_no_leaks
from rxstage.voice.speech import SpeechEnded, SpeechStarted

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))

LIMIT: Final = 30.0
SOUND: Final = Audio(bytes(960), 24_000)
CODED: Final = base64.b64encode(SOUND.samples).decode()


def live(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a real loop, bounded, and look for what it leaves behind."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with assert_no_leaks():
            asyncio.run(asyncio.wait_for(test(*args, **kwargs), LIMIT))

    return run


class Service:
    """The service's end of a conversation."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.heard: list[dict[str, Any]] = []

    async def expect(self, kind: str) -> dict[str, Any]:
        """Take events till one of this kind comes."""
        while True:
            event: dict[str, Any] = json.loads(await self.connection.recv())
            self.heard.append(event)
            if event["type"] == kind:
                return event

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def set_up(self) -> dict[str, Any]:
        """Greet, and take the settings."""
        await self.tell("session.created")
        update = await self.expect("session.update")
        await self.tell("session.updated", session=update["session"])
        return update

    async def answer(self, id: str, *words: str, sound: int = 1, **response: Any) -> None:
        """Give a whole answer."""
        await self.tell("response.created", response={"id": id})
        for word in words:
            await self.tell("response.output_audio_transcript.delta", response_id=id, delta=word)
        for _ in range(sound):
            await self.tell(
                "response.output_audio.delta", response_id=id, delta=base64.b64encode(SOUND.samples).decode()
            )
        await self.tell("response.done", response={"id": id, "status": "completed", **response})


@asynccontextmanager
async def service(script: Callable[[Service], Awaitable[None]]) -> AsyncGenerator[str]:
    """A service that follows a script; what the script raises fails the test."""
    failed: list[BaseException] = []

    async def handle(connection: ServerConnection) -> None:
        try:
            await script(Service(connection))
            with suppress(ConnectionClosed):
                await connection.wait_closed()
        except ConnectionClosed:
            pass
        except BaseException as error:
            failed.append(error)
            raise

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime"
    if failed:
        raise failed[0]


def told(elements: Any) -> list[Any]:
    """What came out, in short."""
    short: list[Any] = []
    for element in elements:
        content = element.content
        if isinstance(content, Text):
            state = element.metadata.get(TRANSCRIPT)
            short.append(content.text if state is None else (state, content.text))
        elif isinstance(content, Message):
            short.append((content.role, content.text))
        else:
            short.append(type(content).__name__ if not isinstance(content, Data) else content.value)
    return short


@live
async def test_a_turn_of_text() -> None:
    """A user's message is sent and answered: deltas at once, then message and end of turn."""

    async def script(it: Service) -> None:
        update = await it.set_up()
        assert update["session"]["instructions"] == "be brief"
        assert update["session"]["audio"]["output"]["voice"] == "marin"
        item = (await it.expect("conversation.item.create"))["item"]
        assert item == {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        await it.expect("response.create")
        await it.answer("r1", "he", "llo", usage={"input_tokens": 3, "output_tokens": 5})

    async with service(script) as url:
        stage = DuplexProviderStage(url=url, instructions="be brief", voice="marin")
        result = await Pipeline.of(stage).execute([Message.user("hi"), StreamElement.end_of_turn()])
    assert told(result.elements) == [("user", "hi"), "he", "llo", "Audio", ("assistant", "hello"), "EndOfTurn"]
    assert result.usage == Usage(3, 5)
    assert result.elements[3].audio == SOUND
    assert str(stage.audio_out(AudioSpec(8_000))) == "24000 Hz mono pcm16"


@live
async def test_a_turn_of_sound_with_a_late_transcript() -> None:
    """Sound is never held for the transcript; user, assistant, end of turn come in this order (CASE 48)."""
    heard = asyncio.Event()

    async def script(it: Service) -> None:
        await it.set_up()
        await it.expect("input_audio_buffer.commit")
        assert sum(len(base64.b64decode(e["audio"])) for e in it.heard if "audio" in e) == 3 * 960
        await it.tell("input_audio_buffer.committed", item_id="i1")
        await it.expect("response.create")
        await it.answer("r1", "fine", sound=2)
        await heard.wait()  # the sound has come out of the pipeline, before there is a transcript
        await it.tell("conversation.item.input_audio_transcription.delta", item_id="i1", delta="how")
        await it.tell("conversation.item.input_audio_transcription.completed", item_id="i1", transcript="how are you")

    async with service(script) as url:
        stage = DuplexProviderStage(url=url, turns="control", transcript_timeout=20)
        out = []
        async for element in Pipeline.of(stage).execute([SOUND, SOUND, SOUND, StreamElement.end_of_turn()]):
            out.append(element)
            if told(out).count("Audio") == 2:
                heard.set()
    assert told(out) == [
        "fine",
        "Audio",
        "Audio",
        ("partial", "how"),
        ("final", "how are you"),
        ("user", "how are you"),
        ("assistant", "fine"),
        "EndOfTurn",
    ]


@live
async def test_a_transcript_that_does_not_come() -> None:
    """After `transcript_timeout` the answer is told without it."""

    async def script(it: Service) -> None:
        await it.set_up()
        await it.expect("input_audio_buffer.commit")
        await it.tell("input_audio_buffer.committed", item_id="i1")
        await it.answer("r1", "fine", sound=0)

    async with service(script) as url:
        stage = DuplexProviderStage(url=url, turns="control", transcript_timeout=0.02)
        result = await Pipeline.of(stage).execute([SOUND, StreamElement.end_of_turn()])
    assert told(result.elements) == ["fine", ("assistant", "fine"), "EndOfTurn"]


@live
async def test_slow_session_setup() -> None:
    """While the session is set up the newest sound is kept, in bounds, and no text or control is lost (CASE 49)."""
    sent = asyncio.Event()
    kept: list[bytes] = []

    async def script(it: Service) -> None:
        await sent.wait()
        await it.set_up()
        while (event := json.loads(await it.connection.recv()))["type"] == "input_audio_buffer.append":
            kept.append(base64.b64decode(event["audio"]))
        assert event["item"]["content"][0]["text"] == "and this"
        await it.expect("input_audio_buffer.commit")
        await it.tell("input_audio_buffer.committed", item_id="i1")
        await it.answer("r1", "ok", sound=0)

    async def unpaced() -> AsyncIterator[Any]:
        for number in range(5000):
            yield Audio(number.to_bytes(2, "little") * 480, 24_000)
            if not number % 50:
                await asyncio.sleep(0)
        yield "and this"
        yield StreamElement.end_of_turn()
        sent.set()

    async with service(script) as url:
        stage = DuplexProviderStage(url=url, turns="control", transcription=None, buffer=64)
        result = await Pipeline.of(stage).execute(unpaced())
    numbers = [int.from_bytes(sound[:2], "little") for sound in kept]
    assert numbers == list(range(5000 - len(numbers), 5000))
    assert 50 <= len(numbers) <= 64
    assert told(result.elements) == ["ok", ("assistant", "ok"), "EndOfTurn"]


@live
@pytest.mark.parametrize("whose", ["service", "ours"])
async def test_the_service_forgets_what_was_not_played(whose: str) -> None:
    """What an interrupt cuts off is cut off at the service, too, where no more can have been played; its refusal is no
    error."""
    playing, go = asyncio.Event(), asyncio.Event()
    second = {"delta": base64.b64encode(bytes(48_000)).decode(), "content_index": 0}
    cuts: list[dict[str, Any]] = []

    async def script(it: Service) -> None:
        await it.set_up()
        await it.expect("response.create")
        await it.tell("response.created", response={"id": "r1"})
        for item in ("i1", "i1", "i2"):
            await it.tell("response.output_audio.delta", response_id="r1", item_id=item, **second)
        await playing.wait()
        if whose == "service":
            await it.tell("input_audio_buffer.speech_started", audio_start_ms=0)
        cuts.extend([await it.expect("conversation.item.truncate") for _ in range(2)])
        await it.tell("error", error={"code": "item_not_found", "message": "no", "event_id": cuts[0]["event_id"]})
        await it.tell("response.done", response={"id": "r1", "status": "cancelled"})
        go.set()

    async def speak() -> AsyncIterator[Any]:
        yield Message.user("tell me a story")
        await go.wait()

    async with service(script) as url:
        execution = Pipeline.of(DuplexProviderStage(url=url, on_error="fail")).execute(speak())
        async for element in execution:
            if element.audio is not None and not playing.is_set():
                playing.set()
                if whose == "ours":
                    for _ in range(3):
                        await asyncio.sleep(0)
                    execution.interrupt()
    assert [(cut["item_id"], cut["content_index"]) for cut in cuts] == [("i1", 0), ("i2", 0)]
    assert 0 <= cuts[0]["audio_end_ms"] < 2000
    assert cuts[1]["audio_end_ms"] == 0


@live
async def test_the_user_speaks_while_it_answers() -> None:
    """The service's detection of speech interrupts: what is queued of the answer is gone, the next turn is heard."""
    playing, go = asyncio.Event(), asyncio.Event()

    async def script(it: Service) -> None:
        await it.set_up()
        await it.expect("response.create")
        await it.tell("response.created", response={"id": "r1"})
        for _ in range(200):
            await it.tell(
                "response.output_audio.delta", response_id="r1", delta=base64.b64encode(SOUND.samples).decode()
            )
        await playing.wait()
        await it.tell("input_audio_buffer.speech_started", audio_start_ms=1500)
        await it.tell("response.output_audio.delta", response_id="r1", delta="AAAA")
        await it.tell("response.done", response={"id": "r1", "status": "cancelled"})
        await it.tell("input_audio_buffer.speech_stopped", audio_end_ms=2500)
        await it.tell("input_audio_buffer.committed", item_id="i2")
        await it.tell("conversation.item.input_audio_transcription.completed", item_id="i2", transcript="stop")
        await it.answer("r2", "yes", sound=0)
        go.set()

    async def speak() -> AsyncIterator[Any]:
        yield Message.user("tell me a story")
        await go.wait()

    async with service(script) as url:
        out = []
        async for element in Pipeline.of(DuplexProviderStage(url=url)).execute(speak()):
            out.append(element)
            if element.audio is not None:
                playing.set()
                await asyncio.sleep(0.0001)
    short = told(out)
    cut = short.index("Interrupt")
    assert 1 <= short[:cut].count("Audio") <= 200
    assert "Audio" not in short[cut:]
    assert short[cut + 1 :] == [
        SpeechStarted(1.5),
        SpeechEnded(2.5, 1.0),
        ("final", "stop"),
        ("user", "stop"),
        "yes",
        ("assistant", "yes"),
        "EndOfTurn",
    ]


@live
async def test_an_interrupt_cancels_the_answer() -> None:
    """An `Interrupt` that comes in is told to the service; the next turn is answered."""
    begun = asyncio.Event()

    async def script(it: Service) -> None:
        await it.set_up()
        await it.expect("response.create")
        await it.tell("response.created", response={"id": "r1"})
        await it.tell("response.output_text.delta", response_id="r1", delta="once")
        await it.expect("response.cancel")
        await it.tell("response.output_text.delta", response_id="r1", delta="upon")
        await it.tell("response.done", response={"id": "r1", "status": "cancelled"})
        await it.expect("response.create")
        await it.answer("r2", "yes", sound=0)

    async def speak() -> AsyncIterator[Any]:
        yield Message.user("tell me a story")
        await begun.wait()
        yield StreamElement.interrupt()
        yield Message.user("stop")

    async with service(script) as url:
        out = []
        async for element in Pipeline.of(DuplexProviderStage(url=url)).execute(speak()):
            out.append(element)
            if element.text == "once":
                begun.set()
    assert told(out) == [
        ("user", "tell me a story"),
        "once",
        "Interrupt",
        ("user", "stop"),
        "yes",
        ("assistant", "yes"),
        "EndOfTurn",
    ]


@live
async def test_a_call_of_a_tool() -> None:
    """A call goes out as `ToolCall`; its result comes in, goes to the service, and is answered in the same turn."""
    call = {"type": "function_call", "name": "add", "arguments": '{"a": 1}', "call_id": "c1"}

    async def script(it: Service) -> None:
        update = await it.set_up()
        assert update["session"]["tools"] == [{"type": "function", "name": "add"}]
        await it.expect("response.create")
        await it.answer("r1", sound=0, output=[call])
        item = (await it.expect("conversation.item.create"))["item"]
        assert item == {"type": "function_call_output", "call_id": "c1", "output": "2"}
        await it.expect("response.create")
        await it.answer("r2", "two", sound=0)

    ready: asyncio.Queue[Any] = asyncio.Queue()

    async def speak() -> AsyncIterator[Any]:
        yield Message.user("one and one")
        yield await ready.get()

    async with service(script) as url:
        stage = DuplexProviderStage(url=url, tools=({"type": "function", "name": "add"},))
        out = []
        async for element in Pipeline.of(stage).execute(speak()):
            out.append(element)
            if element.tool_call is not None:
                assert element.tool_call == ToolCall("add", {"a": 1}, "c1")
                ready.put_nowait(ToolResult("c1", 2, "add"))
    assert told(out) == [
        ("user", "one and one"),
        ("assistant", ""),
        "ToolCall",
        "two",
        ("assistant", "two"),
        "EndOfTurn",
    ]


@pytest.mark.parametrize("policy", ["emit", "skip", "fail"])
@live
async def test_errors_of_the_service(policy: Any) -> None:
    """An error is a `Failure`, nothing, or the end; after it the next turn is answered."""

    async def script(it: Service) -> None:
        await it.set_up()
        await it.expect("response.create")
        await it.tell("error", error={"message": "too many", "code": "rate_limit"})
        await it.expect("response.create")
        await it.answer("r2", "yes", sound=0)

    async with service(script) as url:
        stage = DuplexProviderStage(url=url, on_error=policy)
        execution = Pipeline.of(stage).execute([Message.user("a"), Message.user("b")])
        if policy == "fail":
            with pytest.raises(StageError, match=r"too many \(rate_limit\)"):
                await execution
            return
        result = await execution
    failures = [element.content for element in result.elements if isinstance(element.content, Failure)]
    assert [str(failure.error) for failure in failures] == (["too many (rate_limit)"] if policy == "emit" else [])
    assert told(result.elements)[-3:] == ["yes", ("assistant", "yes"), "EndOfTurn"]


@live
async def test_a_lost_connection_is_the_end() -> None:
    """Where the service hangs up the execution fails, and the error says where."""

    async def script(it: Service) -> None:
        await it.set_up()
        await it.expect("response.create")
        it.connection.transport.abort()

    async with service(script) as url:
        with pytest.raises(StageError, match="is lost"):
            await Pipeline.of(DuplexProviderStage(url=url)).execute([Message.user("a")])


@live
async def test_a_session_that_is_never_set_up() -> None:
    """A service that says nothing is given up after `open_timeout`."""

    async def script(it: Service) -> None:
        await it.tell("session.created")

    async with service(script) as url:
        with pytest.raises(StageError, match=r"no session within 0\.05 s"):
            await Pipeline.of(DuplexProviderStage(url=url, open_timeout=0.05)).execute([Message.user("a")])


@live
async def test_nonsense_of_the_service() -> None:
    """Frames that are no events, or lack what they should have, are failures; the conversation goes on."""

    async def script(it: Service) -> None:
        await it.set_up()
        await it.expect("response.create")
        for frame in ("{", "[]", '{"type":"response.output_audio.delta"}', '{"type":"response.done"}', '{"type":7}'):
            await it.connection.send(frame)
        await it.answer("r2", "yes", sound=0)

    async with service(script) as url:
        result = await Pipeline.of(DuplexProviderStage(url=url)).execute([Message.user("a")])
    assert told(result.elements).count("Failure") == 4
    assert told(result.elements)[-2:] == [("assistant", "yes"), "EndOfTurn"]


@live
async def test_the_conversation_knows_both() -> None:
    """User and assistant are in the history that the stages of the execution share."""
    history: list[Any] = []

    async def script(it: Service) -> None:
        await it.set_up()
        await it.expect("response.create")
        await it.answer("r1", "hello", sound=0)

    async def look(elements: AsyncIterator[StreamElement], context: Any) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield element
        history.extend((message.role, message.text) for message in conversations(context).of(None).messages)

    async with service(script) as url:
        await Pipeline.of(DuplexProviderStage(url=url) >> StageFunc("look", StageType.TRANSFORM, look)).execute(
            [Message.user("hi")]
        )
    assert history == [("user", "hi"), ("assistant", "hello")]


def test_against_aimock(tmp_path: Path) -> None:
    """Text and sound are answered by a server that others wrote, twice in one session."""
    from aimock import running

    fixtures = [
        {"match": {"userMessage": "weather"}, "response": {"content": "It is sunny."}},
        {"match": {"userMessage": "thanks"}, "response": {"content": "You are welcome."}},
    ]
    with running(fixtures, tmp_path) as mock:

        @live
        async def talk() -> None:
            url = mock.url.replace("http", "ws") + "/v1/realtime"
            stage = DuplexProviderStage(url=url, api_key=mock.key, transcription=None)
            out: list[StreamElement] = []
            turn = asyncio.Event()

            async def speak() -> AsyncIterator[Any]:
                for words in ("how is the weather", "thanks"):
                    yield SOUND
                    yield Message.user(words)
                    yield StreamElement.end_of_turn()
                    await turn.wait()
                    turn.clear()

            async for element in Pipeline.of(stage).execute(speak()):
                out.append(element)
                if told([element]) == ["EndOfTurn"]:
                    turn.set()
            assert [each for each in told(out) if isinstance(each, tuple)] == [
                ("user", "how is the weather"),
                ("assistant", "It is sunny."),
                ("user", "thanks"),
                ("assistant", "You are welcome."),
            ]
            assert "".join(each for each in told(out) if isinstance(each, str) and each != "EndOfTurn") == (
                "It is sunny.You are welcome."
            )

        talk()
