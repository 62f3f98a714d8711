"""Speech and its recognition by OpenAI, and by servers that speak its API (extra `openai`)."""

from __future__ import annotations

import io
import wave
from collections.abc import AsyncIterator
from typing import Any, Final

from rxstage.content import Audio
from rxstage.errors import require
from rxstage.ports.loopbound import LoopBound
from rxstage.ports.stt import SpeechError, Stt, Transcript
from rxstage.ports.tts import Tts

__all__ = ["OpenAIStt", "OpenAITts"]

_CHUNK: Final = 4_800  # bytes of sound in a piece: 0.1 s


class _Client:
    """The SDK's client of each event loop."""

    def __init__(self, base_url: str | None, api_key: str | None, timeout: float) -> None:
        self._options: dict[str, Any] = {"max_retries": 0, "timeout": timeout}
        if base_url is not None:
            self._options.update(base_url=base_url, api_key=api_key or "none")
        elif api_key is not None:
            self._options["api_key"] = api_key
        self._clients: LoopBound[Any] = LoopBound(self._open, self._close)

    async def _open(self) -> Any:
        openai = require("openai", "openai")
        try:
            return openai.AsyncOpenAI(**self._options)
        except openai.OpenAIError as error:
            raise SpeechError(
                f"openai needs an API key: set OPENAI_API_KEY, or pass api_key= ({error})", engine="openai"
            ) from error

    async def _close(self, client: Any) -> None:
        await client.close()

    async def get(self) -> Any:
        return await self._clients.get()

    async def aclose(self) -> None:
        await self._clients.aclose()


def _failed(error: Exception) -> SpeechError:
    """What the SDK raised, as an error of the port."""
    status = getattr(error, "status_code", None)
    retryable = status is None or status in (408, 409, 429) or status >= 500
    return SpeechError(f"openai: {str(error)[:500] or type(error).__name__}", engine="openai", retryable=retryable)


class OpenAITts(Tts):
    """Speaks with a model of OpenAI's, streamed.

    Args:
        model: which one.
        voice: whose voice.
        base_url: of a compatible server.
        api_key: by default the environment's `OPENAI_API_KEY`, if no `base_url` is given.
        timeout: seconds without a piece of sound.
    """

    name = "openai"
    sample_rate = 24_000

    def __init__(
        self,
        model: str = "gpt-4o-mini-tts",
        *,
        voice: str = "alloy",
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.model, self.voice = model, voice
        self._client = _Client(base_url, api_key, timeout)

    async def speak(self, text: str) -> AsyncIterator[Audio]:
        """The sound of a text, as it comes."""
        client = await self._client.get()
        openai = require("openai", "openai")
        rest = b""
        try:
            speech = client.audio.speech.with_streaming_response
            async with speech.create(model=self.model, voice=self.voice, input=text, response_format="pcm") as response:
                async for chunk in response.iter_bytes(_CHUNK):
                    rest += chunk
                    whole = len(rest) - len(rest) % 2
                    if whole:
                        yield Audio(rest[:whole], self.sample_rate)
                        rest = rest[whole:]
        except openai.OpenAIError as error:
            raise _failed(error) from error

    async def aclose(self) -> None:
        """Close the connections that are open on the running loop."""
        await self._client.aclose()


class OpenAIStt(Stt):
    """Understands with a model of OpenAI's.

    Args:
        model: which one.
        language: of the speech, as in ISO 639-1; by default it finds out.
        base_url: of a compatible server.
        api_key: by default the environment's `OPENAI_API_KEY`, if no `base_url` is given.
        timeout: seconds for one utterance.
    """

    name = "openai"
    sample_rate = 16_000

    def __init__(
        self,
        model: str = "gpt-4o-mini-transcribe",
        *,
        language: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.model, self.language = model, language
        self._client = _Client(base_url, api_key, timeout)

    async def transcribe(self, audio: Audio) -> Transcript:
        """The words of one utterance."""
        client = await self._client.get()
        openai = require("openai", "openai")
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(audio.channels)
            writer.setsampwidth(2)
            writer.setframerate(audio.sample_rate)
            writer.writeframes(audio.samples)
        more = {} if self.language is None else {"language": self.language}
        try:
            result = await client.audio.transcriptions.create(
                model=self.model, file=("speech.wav", file.getvalue(), "audio/wav"), **more
            )
        except openai.OpenAIError as error:
            raise _failed(error) from error
        return Transcript(str(getattr(result, "text", result)), language=self.language or "")

    async def aclose(self) -> None:
        """Close the connections that are open on the running loop."""
        await self._client.aclose()
