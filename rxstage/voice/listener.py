"""Finds speech in a stream of sound: where it begins and ends, in sample time."""

from __future__ import annotations

from typing import Any

from rxstage.content import Audio
from rxstage.errors import require
from rxstage.ports.vad import Vad, VadSession
from rxstage.voice.pcm import mono16

__all__ = ["Listener"]


class Listener:
    """Tells for each window of a stream how likely it is speech.

    The sound may have any rate and any number of channels: the detector gets what it can hear. A change of rate in the
    middle begins a new stream of the detector.

    Args:
        vad: the detector.
    """

    def __init__(self, vad: Vad) -> None:
        self._vad = vad
        self._rate = 0  # of the sound
        self._heard_rate = 0  # of what the detector gets
        self._session: VadSession | None = None
        self._stream: Any = None
        self._left = b""

    def hear(self, audio: Audio) -> list[tuple[float, float]]:
        """The windows that are complete now: probability of speech, and length in seconds."""
        if audio.sample_rate != self._rate or self._session is None:
            self._open(audio.sample_rate)
        session = self._session
        assert session is not None
        sound = mono16(audio)
        if self._stream is not None:
            numpy = require("numpy", "audio")
            sound = self._stream.resample_chunk(numpy.frombuffer(sound, dtype="<i2")).tobytes()
        self._left = sound = self._left + sound
        size = session.window * 2
        seconds = session.window / self._heard_rate
        ends = range(size, len(sound) + 1, size)
        if not ends:
            return []
        self._left = sound[ends[-1] :]
        return [(session.probability(sound[end - size : end]), seconds) for end in ends]

    def _open(self, rate: int) -> None:
        rates = self._vad.rates
        heard = rate if not rates or rate in rates else rates[0]
        self._stream = None
        if heard != rate:
            self._stream = require("soxr", "audio").ResampleStream(rate, heard, 1, dtype="int16", quality="LQ")
        if heard != self._heard_rate or self._session is None:
            self._session = self._vad.open(heard)
        self._rate, self._heard_rate, self._left = rate, heard, b""
