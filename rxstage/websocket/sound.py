"""Sound in the form that the two ends have settled."""

from __future__ import annotations

from typing import Any, Final

from rxstage.content import Audio, AudioFormat
from rxstage.errors import require
from rxstage.voice.pcm import audio_of, mixed, samples_of

__all__ = ["Outgoing"]

_LONGEST: Final = 0.1  # seconds in one frame: what has been sent cannot be taken back


class Outgoing:
    """Brings sound into one form, in frames of at most 100 ms; what has it already goes on without a copy.

    Args:
        form: rate, channels and format.
    """

    def __init__(self, form: tuple[int, int, AudioFormat]) -> None:
        self._form = form
        self._rate, self._channels, self._format = form
        self._from: tuple[int, int, AudioFormat] | None = None
        self._stream: Any = None
        self._longest = max(int(self._rate * _LONGEST), 1) * self._channels * self._format.width

    def frames(self, audio: Audio) -> list[Audio]:
        """The sound, as it is to be sent.

        Raises:
            MissingExtra: it has another form, and what converts it is not installed.
            ValueError: several channels are to become several others.
        """
        form = (audio.sample_rate, audio.channels, audio.format)
        if form == self._form:
            if len(audio.samples) <= self._longest:
                return [audio] if audio.samples else []
            return self._cut(audio.samples)
        samples = mixed(samples_of(audio), self._channels)
        if audio.sample_rate != self._rate:
            if self._from != form:
                self._stream = require("soxr", "audio").ResampleStream(
                    audio.sample_rate, self._rate, self._channels, dtype="float32", quality="HQ"
                )
            samples = self._stream.resample_chunk(samples)
        self._from = form
        return self._cut(audio_of(samples, self._rate, self._format).samples)

    def rest(self) -> list[Audio]:
        """What the filter still holds, at the end of a stretch of sound."""
        stream, self._stream, self._from = self._stream, None, None
        if stream is None:
            return []
        numpy = require("numpy", "audio")
        samples = stream.resample_chunk(numpy.zeros((0, self._channels), dtype=numpy.float32), last=True)
        return self._cut(audio_of(samples, self._rate, self._format).samples)

    def forget(self) -> None:
        """The stretch of sound is cut off."""
        self._stream = self._from = None

    def _cut(self, samples: bytes) -> list[Audio]:
        size = self._longest
        return [Audio(samples[at : at + size], *self._form) for at in range(0, len(samples), size)]
