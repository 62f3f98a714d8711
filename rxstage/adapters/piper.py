"""Speech from Piper, with a voice that the user has."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from threading import Lock
from typing import Any, Final

from rxstage.adapters._spoken_text import speakable, text_pieces
from rxstage.adapters._threads import EngineThreads, Making
from rxstage.content import Audio
from rxstage.errors import require
from rxstage.ports.stt import SpeechError
from rxstage.ports.tts import Tts

__all__ = ["PiperTts"]

_LONGEST: Final = 200  # characters that are made at a time
_CHUNK: Final = 0.06  # seconds


class PiperTts(Tts):
    """A neural voice, by `piper-tts` (extra `piper`, GPL-3), on a thread of its own.

    The voice is read at the first use, in about a second. A sentence comes when it is made as a whole; closing stops
    behind the sentence that is being made.

    Args:
        voice: the file of the voice, `….onnx`, beside which lies `….onnx.json`.
        speaker: number of the speaker, in a voice of several.
        speed: 1 is as it comes, 2 twice as fast.
        volume: 1 is as it comes.

    Raises:
        SpeechError: the voice, or the file beside it, is not there or cannot be read.
    """

    name = "piper"

    def __init__(
        self, voice: str | os.PathLike[str], *, speaker: int | None = None, speed: float = 1.0, volume: float = 1.0
    ) -> None:
        if speed <= 0 or volume < 0:
            raise ValueError(f"PiperTts: speed is above 0 and volume at least 0, got {speed!r} and {volume!r}")
        self._path = Path(voice)
        self.sample_rate = _rate_of(self._path)
        self._manner = {"speaker_id": speaker, "length_scale": 1 / speed, "volume": volume}
        self._voice: Any = None
        self._lock = Lock()
        self._threads = EngineThreads("piper", 1)

    def __repr__(self) -> str:
        return f"PiperTts({str(self._path)!r})"

    async def speak(self, text: str) -> AsyncIterator[Audio]:
        """The sound of a text, a sentence at a time, in chunks of 60 ms.

        Raises:
            MissingExtra: Piper is not installed.
            SpeechError: it failed.
        """
        for piece in text_pieces(speakable(text), _LONGEST):
            making: Making[Audio] = Making(self._threads, self._say, piece)
            async with aclosing(making.pieces()) as sounds:
                async for sound in sounds:
                    yield sound

    async def aclose(self) -> None:
        """Let go of the voice; it is read again when it is needed."""
        with self._lock:
            self._voice = None

    def _say(self, making: Making[Audio], text: str) -> None:
        if making.stopped:
            return
        piper = require("piper", "piper")
        with self._lock:
            if self._voice is None:
                self._voice = piper.PiperVoice.load(self._path)
            voice = self._voice
        try:
            for sentence in voice.synthesize(text, piper.SynthesisConfig(**self._manner)):
                samples = sentence.audio_int16_bytes
                size = int(sentence.sample_rate * _CHUNK) * 2
                for begin in range(0, len(samples), size):
                    if not making.give(Audio(samples[begin : begin + size], sentence.sample_rate)):
                        return
        except Exception as error:
            raise SpeechError(f"piper gives up on {text[:80]!r}: {error}", engine="piper") from error


def _rate_of(path: Path) -> int:
    """The rate of a voice, from the file beside it."""
    beside = path.with_name(f"{path.name}.json")
    if missing := [str(file) for file in (path, beside) if not file.is_file()]:
        raise SpeechError(
            f"piper needs the voice and its description: there is no {' and no '.join(missing)}", engine="piper"
        )
    try:
        return int(json.loads(beside.read_text(encoding="utf-8"))["audio"]["sample_rate"])
    except (ValueError, KeyError, TypeError) as error:
        raise SpeechError(f"{str(beside)!r} describes no voice of Piper's: {error!r}", engine="piper") from error
