"""Speech by OpenAI's API: streamed sound, transcripts, errors, against a server of bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from faults import error, serving

from rxstage import Audio
from rxstage.adapters.openai_speech import OpenAIStt, OpenAITts
from rxstage.ports import SpeechError

pytestmark = pytest.mark.needs("module:openai")


def answer(body: bytes, kind: str) -> list[Any]:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return [head.encode() + body]


def test_speech_streams() -> None:
    """All samples come, in pieces of whole samples, and the request names model, voice and text."""
    sound = bytes(range(256)) * 100

    async def main() -> tuple[list[Audio], Any]:
        async with serving(answer(sound, "audio/pcm")) as server:
            tts = OpenAITts("tts-1", voice="ash", base_url=server.url, api_key="k")
            pieces = [piece async for piece in tts.speak("Hello.")]
            await tts.aclose()
            return pieces, server.asked[0]

    pieces, asked = asyncio.run(asyncio.wait_for(main(), 60))
    assert b"".join(piece.samples for piece in pieces) == sound
    assert {piece.sample_rate for piece in pieces} == {24_000}
    assert (
        b'"voice":"ash"' in asked.body.replace(b" ", b"")
        if isinstance(asked.body, bytes)
        else asked.body["voice"] == "ash"
    )


def test_a_transcript() -> None:
    """The utterance goes as a WAV file, and its text comes back."""

    async def main() -> tuple[str, str]:
        async with serving(answer(b'{"text": "Hello there."}', "application/json")) as server:
            stt = OpenAIStt(base_url=server.url, language="en")
            transcript = await stt.transcribe(Audio(bytes(32_000), 16_000))
            await stt.aclose()
            return transcript.text, transcript.language

    assert asyncio.run(asyncio.wait_for(main(), 60)) == ("Hello there.", "en")


@pytest.mark.parametrize(("status", "retryable"), [(429, True), (500, True), (401, False), (400, False)])
def test_errors(status: int, retryable: bool) -> None:
    """What the server refuses is a `SpeechError` that says whether another try may help."""

    async def main() -> None:
        async with serving(
            error(status, {"error": {"message": "no"}}), error(status, {"error": {"message": "no"}})
        ) as server:
            tts, stt = OpenAITts(base_url=server.url), OpenAIStt(base_url=server.url)
            with pytest.raises(SpeechError, match="no") as spoken:
                [piece async for piece in tts.speak("x")]
            with pytest.raises(SpeechError, match="no") as heard:
                await stt.transcribe(Audio(bytes(320), 16_000))
            assert (spoken.value.retryable, heard.value.retryable) == (retryable, retryable)
            await tts.aclose()
            await stt.aclose()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key and without a server of one's own nothing is asked."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SpeechError, match="set OPENAI_API_KEY, or pass api_key="):
        asyncio.run(OpenAIStt().transcribe(Audio(bytes(320), 16_000)))
