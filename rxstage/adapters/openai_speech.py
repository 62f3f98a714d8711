"""Speech from and to words by OpenAI, and by every server that speaks its audio API."""

from __future__ import annotations

import io
import math
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

from rxstage.adapters._sdk import Connection
from rxstage.adapters._spoken_text import speakable, text_pieces
from rxstage.adapters.openai import OpenAIProvider
from rxstage.content import Audio, AudioFormat
from rxstage.ports.provider import ProviderError
from rxstage.ports.stt import SpeechError, Stt, Transcript
from rxstage.ports.tts import Tts

__all__ = ["OpenAIStt", "OpenAITts"]

_RATE: Final = 24_000  # of the PCM that the API sends [Hz]
_CHUNK: Final = _RATE // 10 * 2  # bytes of a chunk at most: 100 ms
_LONGEST: Final = 2_000  # characters of a request; the API takes 4096, and its newer models 2000 tokens
_SHORTEST: Final = 0.1  # seconds; the API refuses what is shorter
_SOUNDS: Final = ("audio/pcm", "audio/l16", "audio/x-pcm", "audio/raw", "application/octet-stream")


class _Calls(OpenAIProvider):
    """The connections, the key and the errors of the provider, for calls that are no conversation."""

    async def connection(self) -> Connection:
        """That of the running loop."""
        return await self._connections.get()

    @contextmanager
    def told(self, engine: str) -> Iterator[None]:
        """Turn what is raised inside into a `SpeechError`."""
        try:
            with self._told(self.model):
                yield
        except ProviderError as error:
            raise SpeechError(str(error), engine=engine, retryable=error.retryable) from error


class OpenAITts(Tts):
    """Voices behind OpenAI's `audio/speech`, through the official SDK (extra `openai`).

    Args:
        model: the model.
        voice: `"alloy"`, `"coral"`, `"marin"` …, or what the server has.
        instructions: how it is to speak; the `tts-1` models take none.
        speed: 0.25 to 4; 1 is as it comes.
        base_url: of a compatible server, which sends 16-bit mono at 24 kHz for `response_format="pcm"`.
        api_key: by default the environment's `OPENAI_API_KEY`, if no `base_url` is given.
        timeout: seconds to wait for the next piece of sound.
        name: what to call it.
        client: what else `openai.AsyncOpenAI` takes.
    """

    name = "openai"
    sample_rate = _RATE

    def __init__(
        self,
        model: str = "gpt-4o-mini-tts",
        *,
        voice: str = "alloy",
        instructions: str | None = None,
        speed: float | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        name: str | None = None,
        **client: Any,
    ) -> None:
        self.name = name or type(self).name
        self.model = model
        asked = {"voice": voice, "instructions": instructions, "speed": speed}
        self._asked = {key: value for key, value in asked.items() if value is not None}
        self._calls = _Calls(model, base_url=base_url, api_key=api_key, timeout=timeout, name=self.name, **client)

    def __repr__(self) -> str:
        return f"OpenAITts({self.model!r})"

    async def speak(self, text: str) -> AsyncIterator[Audio]:
        """The sound of a text as it arrives, in chunks of up to 100 ms; closing it ends the request.

        Raises:
            MissingExtra: the SDK is not installed.
            SpeechError: the call failed, or something else than PCM came back.
        """
        for piece in text_pieces(speakable(text), _LONGEST):
            with self._calls.told(self.name):
                connection = await self._calls.connection()
                create = connection.client.audio.speech.with_streaming_response.create
                async with create(model=self.model, input=piece, response_format="pcm", **self._asked) as response:
                    self._check(response.headers.get("content-type", ""))
                    left = b""
                    async with aclosing(response.http_response.aiter_bytes()) as arriving:
                        async for data in arriving:
                            data = left + data
                            whole = len(data) // 2 * 2
                            left = data[whole:]
                            for begin in range(0, whole, _CHUNK):
                                yield Audio(data[begin : min(begin + _CHUNK, whole)], _RATE)

    async def aclose(self) -> None:
        """Close the connections that are open on the running loop; the object can be used again."""
        await self._calls.aclose()

    def _check(self, kind: str) -> None:
        if kind and not kind.lower().startswith(_SOUNDS):
            raise SpeechError(
                f"{self.name} was asked for PCM and sends {kind!r}; the server has to know response_format='pcm'",
                engine=self.name,
            )


class OpenAIStt(Stt):
    """Models behind OpenAI's `audio/transcriptions`, through the official SDK (extra `openai`).

    Args:
        model: the model.
        language: that is spoken, as in ISO 639-1; by default it finds out.
        prompt: words and names that it should expect.
        confidence: whether to ask how likely the words are, which only the `gpt-4o` models tell.
        base_url: of a compatible server.
        api_key: by default the environment's `OPENAI_API_KEY`, if no `base_url` is given.
        timeout: seconds to wait for the answer.
        name: what to call it.
        client: what else `openai.AsyncOpenAI` takes.
    """

    name = "openai"

    def __init__(
        self,
        model: str = "gpt-4o-mini-transcribe",
        *,
        language: str | None = None,
        prompt: str | None = None,
        confidence: bool = False,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        name: str | None = None,
        **client: Any,
    ) -> None:
        self.name = name or type(self).name
        self.model = model
        self._language = language or ""
        asked = {"language": language, "prompt": prompt, "include": ["logprobs"] if confidence else None}
        self._asked = {key: value for key, value in asked.items() if value is not None}
        self._calls = _Calls(model, base_url=base_url, api_key=api_key, timeout=timeout, name=self.name, **client)

    def __repr__(self) -> str:
        return f"OpenAIStt({self.model!r})"

    async def transcribe(self, audio: Audio) -> Transcript:
        """The words of one utterance; what is shorter than 0.1 s has none. Cancelling it ends the request.

        Raises:
            MissingExtra: the SDK is not installed.
            SpeechError: the call failed.
        """
        if audio.duration < _SHORTEST:
            return Transcript("", language=self._language)
        file = ("speech.wav", _wav(audio), "audio/wav")
        with self._calls.told(self.name):
            connection = await self._calls.connection()
            create = connection.client.audio.transcriptions.create
            answer = await create(model=self.model, file=file, response_format="json", **self._asked)
        return Transcript(answer.text.strip(), confidence=_confidence(answer), language=self._language)

    async def aclose(self) -> None:
        """Close the connections that are open on the running loop; the object can be used again."""
        await self._calls.aclose()


def _wav(audio: Audio) -> bytes:
    if audio.format is not AudioFormat.PCM16:
        raise SpeechError(f"openai takes 16-bit sound here, got {audio.format}", engine="openai")
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(audio.channels)
        file.setsampwidth(2)
        file.setframerate(audio.sample_rate)
        file.writeframes(audio.samples)
    return made.getvalue()


def _confidence(answer: Any) -> float | None:
    """The mean probability of a token, where the answer tells."""
    told = getattr(answer, "logprobs", None) or ()
    logs = [each.logprob for each in told if each.logprob is not None]
    return min(math.exp(sum(logs) / len(logs)), 1.0) if logs else None
