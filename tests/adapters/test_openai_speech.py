"""`OpenAITts` and `OpenAIStt`: what they send, what they make of it, and what goes wrong."""

from __future__ import annotations

import array
import asyncio
import base64
import io
import wave
from collections.abc import Iterator
from typing import Any, Final

import pytest
from aimock import Mock, running
from asking import on_a_loop
from faults import CLOSE, CUT, STALL, Step, error, serving, stream

from rxstage import Audio
from rxstage.adapters.openai_speech import OpenAIStt, OpenAITts
from rxstage.content import AudioFormat
from rxstage.ports import SpeechError, Transcript

pytestmark = pytest.mark.needs("module:openai")

SOUND: Final = array.array("h", range(-6000, 6000)).tobytes()  # half a second
KEY: Final = "sk-very-secret-0123456789"
SECOND: Final = Audio(b"\1\2" * 16_000, 16_000)
FIXTURES: Final[list[dict[str, Any]]] = [
    {
        "match": {"userMessage": "bonjour", "endpoint": "speech"},
        "response": {"audio": base64.b64encode(SOUND).decode(), "format": "mp3"},
    },
    {
        "match": {"userMessage": "Hello", "endpoint": "speech"},
        "response": {"audio": base64.b64encode(SOUND).decode(), "format": "pcm"},
    },
    {
        "match": {"endpoint": "transcription", "model": "busy"},
        "response": {"error": {"message": "too much"}, "status": 429, "retryAfter": 7},
    },
    {"match": {"endpoint": "transcription"}, "response": {"transcription": {"text": " What is six times seven? "}}},
]


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mock]:
    """The server."""
    with running(FIXTURES, tmp_path_factory.mktemp("aimock")) as server:
        yield server


def _answer(body: bytes, kind: str = "audio/pcm") -> list[Step]:
    return [f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body]


def _streamed(*pieces: bytes, end: bool = True) -> list[Step]:
    first, *rest = stream(*pieces, end=end)
    assert isinstance(first, bytes)
    return [first.replace(b"text/event-stream", b"audio/pcm"), *rest]


async def _spoken(tts: OpenAITts, text: str = "Hello.") -> list[Audio]:
    try:
        return [piece async for piece in tts.speak(text)]
    finally:
        await tts.aclose()


async def _understood(stt: OpenAIStt) -> Transcript:
    try:
        return await stt.transcribe(SECOND)
    finally:
        await stt.aclose()


# ------------------------------------------------------------------------------------------ speaking


@on_a_loop
async def test_it_speaks(mock: Mock) -> None:
    """The PCM of the server comes as 16-bit mono at 24 kHz, in chunks of up to 100 ms, whole and in order."""
    mock.forget()
    tts = OpenAITts(voice="coral", base_url=f"{mock.url}/v1", api_key=mock.key)
    pieces = await _spoken(tts)
    assert b"".join(piece.samples for piece in pieces) == SOUND
    assert {(piece.sample_rate, piece.channels, piece.format.value) for piece in pieces} == {(24_000, 1, "pcm16")}
    assert tts.sample_rate == 24_000
    assert max(piece.frames for piece in pieces) <= 2400
    (entry,) = mock.journal("/v1/audio/speech")
    assert entry["headers"]["authorization"] == "[REDACTED]" or mock.key in entry["headers"]["authorization"]


@on_a_loop
async def test_what_is_asked() -> None:
    """The request has the model, the voice, PCM, and what else was said; a long text is asked for in pieces."""
    async with serving(_answer(SOUND)) as server:
        tts = OpenAITts("m", voice="v", instructions="whisper", speed=1.5, base_url=f"{server.url}/v1", api_key=KEY)
        pieces = await _spoken(tts, "word\0 " * 500)
    assert sum(piece.frames for piece in pieces) == 2 * 12_000
    assert [(asked.method, asked.path) for asked in server.asked] == [("POST", "/v1/audio/speech")] * 2
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert {**server.asked[0].body, "input": ""} == {
        "model": "m",
        "voice": "v",
        "input": "",
        "instructions": "whisper",
        "response_format": "pcm",
        "speed": 1.5,
    }
    assert [len(asked.body["input"]) for asked in server.asked] == [1996, 1000]
    assert server.asked[0].body["input"].startswith("word  word")
    assert server.connections == 1


@on_a_loop
async def test_nothing_to_say() -> None:
    """For nothing, nothing is asked."""
    async with serving(_answer(SOUND)) as server:
        tts = OpenAITts(base_url=f"{server.url}/v1")
        assert await _spoken(tts, " \n") == []
    assert server.asked == []


@on_a_loop
async def test_it_streams() -> None:
    """What has arrived is given at once, in whole samples, however it was cut; closing ends the request."""
    async with serving([*_streamed(b"\1", b"\2\3", b"\4\5\6\7", end=False), STALL]) as server:
        tts = OpenAITts(base_url=f"{server.url}/v1")
        sound: Any = tts.speak("Hello.")
        got = b""
        while len(got) < 6:
            got += (await anext(sound)).samples
        assert got == b"\1\2\3\4\5\6"
        await sound.aclose()
        async with asyncio.timeout(30):
            await server.gone.wait()
        await tts.aclose()


@on_a_loop
async def test_cancelling_ends_the_request() -> None:
    """A task that waits for sound or words is cancelled; the server sees it go."""
    for call in ("speak", "transcribe"):
        async with serving([*_streamed(b"", end=False)[:1], STALL]) as server:
            tts, stt = OpenAITts(base_url=f"{server.url}/v1"), OpenAIStt(base_url=f"{server.url}/v1")
            work = _spoken(tts) if call == "speak" else stt.transcribe(SECOND)
            task = asyncio.create_task(work)
            async with asyncio.timeout(30):
                await server.waiting.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await server.gone.wait()
            await stt.aclose()


@on_a_loop
async def test_other_sound(mock: Mock) -> None:
    """A server that does not know PCM is told by what it sends, before any of it is played."""
    tts = OpenAITts(base_url=f"{mock.url}/v1", api_key=mock.key)
    with pytest.raises(SpeechError, match=r"was asked for PCM and sends 'audio/mpeg'; the server has to know") as told:
        await _spoken(tts, "bonjour")
    assert not told.value.retryable


# ------------------------------------------------------------------------------------------ listening


@on_a_loop
async def test_it_understands(mock: Mock) -> None:
    """An utterance is sent to the model, and its words come back."""
    mock.forget()
    stt = OpenAIStt(base_url=f"{mock.url}/v1", api_key=mock.key)
    assert await stt.transcribe(SECOND) == Transcript("What is six times seven?")
    (entry,) = mock.journal("/v1/audio/transcriptions")
    assert entry["body"]["model"] == "gpt-4o-mini-transcribe"
    await stt.aclose()


@on_a_loop
async def test_what_is_sent() -> None:
    """The form has the model, the options and a WAV file of the sound; how likely the words are is asked for."""
    body = b'{"text": "hi", "logprobs": [{"token": "h", "logprob": -0.5}, {"token": "i", "logprob": -0.1}]}'
    async with serving(_answer(body, "application/json")) as server:
        stt = OpenAIStt("m", language="en", prompt="Ada", confidence=True, base_url=f"{server.url}/v1", api_key=KEY)
        transcript = await stt.transcribe(SECOND)
        await stt.aclose()
    assert transcript.text == "hi"
    assert transcript.language == "en"
    assert transcript.confidence == pytest.approx(0.7408, abs=1e-4)
    asked = server.asked[0]
    assert asked.headers["content-type"].startswith("multipart/form-data")
    for name, value in {"model": "m", "language": "en", "prompt": "Ada", "response_format": "json"}.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in asked.body
    assert b"logprobs" in asked.body
    begin = asked.body.index(b"RIFF")
    with wave.open(io.BytesIO(asked.body[begin:])) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        assert file.readframes(16_000) == SECOND.samples


@on_a_loop
async def test_too_short_to_be_words() -> None:
    """What is shorter than 0.1 s, which the API refuses, has no words, and is not sent."""
    async with serving(_answer(b"{}", "application/json")) as server:
        stt = OpenAIStt(base_url=f"{server.url}/v1")
        assert await stt.transcribe(Audio(b"\0\0" * 1599, 16_000)) == Transcript("")
    assert server.asked == []


@on_a_loop
async def test_other_formats() -> None:
    """Sound that is not 16-bit is refused."""
    with pytest.raises(SpeechError, match="takes 16-bit sound here, got mulaw"):
        await OpenAIStt(base_url="http://127.0.0.1:1/v1").transcribe(
            Audio(b"\0" * 16_000, 16_000, format=AudioFormat.MULAW)
        )


# ------------------------------------------------------------------------------------------ what goes wrong


async def _failed(script: list[Step], call: str, **options: Any) -> SpeechError:
    """The error of a call that a server answers so; the key is not in it."""
    async with serving(script) as server:
        given = {"base_url": f"{server.url}/v1", "api_key": KEY, **options}
        with pytest.raises(SpeechError) as told:
            await (_spoken(OpenAITts(**given)) if call == "speak" else _understood(OpenAIStt(**given)))
        assert len(server.asked) == 1  # nobody tries again but the stage
    failure: BaseException | None = told.value
    while failure is not None:
        assert KEY not in str(failure)
        failure = failure.__cause__
    assert told.value.engine == "openai"
    return told.value


@pytest.mark.parametrize("call", ["speak", "transcribe"])
@pytest.mark.parametrize(
    ("script", "again", "message"),
    [
        (error(401, {"error": {"message": f"Incorrect API key {KEY}"}}), False, "refused the API key (401)"),
        (error(400, {"error": {"message": "no such voice"}}), False, "no such voice"),
        (error(429, {"error": {"message": "slow down"}}), True, "answered 429"),
        (error(503, "<html>"), True, "answered 503"),
        ([CUT], True, "the connection to openai"),
        ([CLOSE], True, "the connection to openai"),
    ],
    ids=["key", "wrong", "busy", "down", "cut", "closed"],
)
@on_a_loop
async def test_failures(call: str, script: list[Step], again: bool, message: str) -> None:
    """Each failure is a `SpeechError` that says what happened and whether another try may help."""
    failure = await _failed(script, call)
    assert message in str(failure)
    assert failure.retryable is again


@on_a_loop
async def test_it_breaks_off_in_the_middle() -> None:
    """Sound that breaks off is an error that may be tried again, not the end."""
    failure = await _failed([*_streamed(b"\1\2" * 100, end=False), CUT], "speak")
    assert failure.retryable


@on_a_loop
async def test_it_does_not_come() -> None:
    """A server that says nothing for `timeout` seconds has failed."""
    for call in ("speak", "transcribe"):
        failure = await _failed([STALL], call, timeout=0.05)
        assert "did not answer in time" in str(failure)
        assert failure.retryable


@on_a_loop
async def test_busy(mock: Mock) -> None:
    """A real server's 429 may be tried again."""
    stt = OpenAIStt("busy", base_url=f"{mock.url}/v1", api_key=mock.key)
    with pytest.raises(SpeechError, match="answered 429 for model 'busy': too much") as told:
        await stt.transcribe(SECOND)
    assert told.value.retryable
    await stt.aclose()


@on_a_loop
async def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the error says where it is looked for."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SpeechError, match="needs an API key: set OPENAI_API_KEY"):
        await OpenAIStt().transcribe(SECOND)
    with pytest.raises(SpeechError, match="needs an API key: set OPENAI_API_KEY"):
        await _spoken(OpenAITts())


def test_several_loops(mock: Mock) -> None:
    """One object serves one loop after the other."""
    tts = OpenAITts(base_url=f"{mock.url}/v1", api_key=mock.key)
    stt = OpenAIStt(base_url=f"{mock.url}/v1", api_key=mock.key)

    async def both() -> tuple[int, str]:
        return sum([piece.frames async for piece in tts.speak("Hello.")]), (await stt.transcribe(SECOND)).text

    for _ in range(2):
        assert asyncio.run(both()) == (12_000, "What is six times seven?")
