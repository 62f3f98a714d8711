"""Recognition of speech by Whisper on this machine: `faster-whisper`, where it is installed and has a model."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from rxstage.content import Audio
from rxstage.errors import require
from rxstage.ports.stt import SpeechError, Stt, Transcript
from rxstage.voice.pcm import samples_of

__all__ = ["WhisperStt"]


class WhisperStt(Stt):
    """Understands any language, on the processor or a graphics card.

    The model is loaded at the first utterance, and downloaded where it is not there.

    Args:
        model: its size (`"tiny"`, `"base"`, `"small"` …) or the folder that it lies in.
        language: of the speech, as in ISO 639-1; by default it finds out.
        options: what else `faster_whisper.WhisperModel` takes: `device`, `compute_type` …
    """

    name = "whisper"
    sample_rate = 16_000

    def __init__(self, model: str = "base", *, language: str | None = None, **options: Any) -> None:
        self.model, self.language = model, language
        self._options = options
        self._loaded: Any = None
        self._lock = threading.Lock()  # one utterance at a time: it uses all cores for it

    async def transcribe(self, audio: Audio) -> Transcript:
        """The words of one utterance; on a thread, which is left to itself where the call is cancelled."""
        return await asyncio.to_thread(self._heard, audio)

    def _heard(self, audio: Audio) -> Transcript:
        with self._lock:
            if self._loaded is None:
                library = require("faster_whisper", "whisper")
                try:
                    self._loaded = library.WhisperModel(self.model, **self._options)
                except Exception as error:
                    raise SpeechError(
                        f"the Whisper model {self.model!r} could not be loaded: {error}", engine=self.name
                    ) from error
            pieces, info = self._loaded.transcribe(samples_of(audio)[:, 0], language=self.language)
            text = "".join(piece.text for piece in pieces)
        return Transcript(text.strip(), language=info.language)
