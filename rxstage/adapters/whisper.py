"""Speech recognition by faster-whisper, with a model that the user has or that it fetches."""

from __future__ import annotations

import math
from contextlib import aclosing
from threading import Lock
from typing import Any

from rxstage.adapters._threads import EngineThreads, Making
from rxstage.content import Audio, AudioFormat
from rxstage.errors import require
from rxstage.ports.stt import SpeechError, Stt, Transcript

__all__ = ["WhisperStt"]


class WhisperStt(Stt):
    """Whisper, by `faster-whisper` (extra `whisper`), on a thread of its own, one utterance at a time.

    The model is read at the first use.

    Args:
        model: folder of a converted model; or a name such as `"base"`, which is fetched from the Hugging Face Hub at
            the first use and kept.
        language: that is spoken, as in ISO 639-1; by default it finds out, which takes longer.
        beam_size: paths that it follows: 1 is quickest.
        name: what to call it.
        options: what else `faster_whisper.WhisperModel` takes: `device`, `compute_type`, `local_files_only` …
    """

    name = "whisper"

    def __init__(
        self,
        model: str = "base",
        *,
        language: str | None = None,
        beam_size: int = 1,
        name: str | None = None,
        **options: Any,
    ) -> None:
        if beam_size < 1:
            raise ValueError(f"WhisperStt: beam_size is at least 1, got {beam_size!r}")
        self.name = name or type(self).name
        self.model = model
        self._options = options
        self._asked = {"language": language, "beam_size": beam_size, "condition_on_previous_text": False}
        self._loaded: Any = None
        self._lock = Lock()
        self._threads = EngineThreads("whisper", 1)

    def __repr__(self) -> str:
        return f"WhisperStt({self.model!r})"

    async def transcribe(self, audio: Audio) -> Transcript:
        """The words of one utterance. Cancelling it gives it up behind the 30 s of sound that are being worked on.

        Raises:
            MissingExtra: faster-whisper is not installed.
            SpeechError: the model cannot be read or fetched, or it failed.
        """
        if audio.sample_rate != self.sample_rate or audio.channels != 1 or audio.format is not AudioFormat.PCM16:
            raise SpeechError(
                f"whisper hears 16-bit mono at {self.sample_rate} Hz, got {audio.channels} channel(s) of "
                f"{audio.format} at {audio.sample_rate} Hz; an STTStage makes it fit",
                engine=self.name,
            )
        making: Making[Transcript] = Making(self._threads, self._hear, audio.samples)
        async with aclosing(making.pieces()) as found:
            return await anext(found, Transcript(""))

    async def aclose(self) -> None:
        """Let go of the model; it is read again when it is needed."""
        with self._lock:
            self._loaded = None

    def _hear(self, making: Making[Transcript], samples: bytes) -> None:
        if making.stopped or not samples:
            return
        numpy = require("numpy", "whisper")
        sound = numpy.frombuffer(samples, dtype="<i2").astype(numpy.float32) / 32768
        model = self._ready()
        try:
            segments, about = model.transcribe(sound, **self._asked)
            kept: list[Any] = []
            for segment in segments:
                if making.stopped:
                    return
                kept.append(segment)
        except Exception as error:
            raise SpeechError(f"whisper failed: {error}", engine=self.name) from error
        text = "".join(segment.text for segment in kept).strip()
        weights = [segment.end - segment.start for segment in kept]
        confidence = None
        if sum(weights) > 0:
            logs = sum(segment.avg_logprob * weight for segment, weight in zip(kept, weights, strict=True))
            confidence = min(math.exp(logs / sum(weights)), 1.0)
        making.give(Transcript(text, confidence=confidence, language=about.language or ""))

    def _ready(self) -> Any:
        whisper = require("faster_whisper", "whisper")
        with self._lock:
            if self._loaded is None:
                try:
                    self._loaded = whisper.WhisperModel(self.model, **self._options)
                except Exception as error:
                    raise SpeechError(
                        f"whisper cannot read or fetch the model {self.model!r}: {error}", engine=self.name
                    ) from error
            return self._loaded
