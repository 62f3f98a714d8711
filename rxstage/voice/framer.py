"""Cuts sound into pieces of one length, whatever lengths it comes in."""

from __future__ import annotations

from rxstage.content import Audio, AudioFormat

__all__ = ["Framer"]


class Framer:
    """Cuts one stretch of sound of one form.

    Args:
        audio: sound of that form; it is not taken.
        seconds: length of the pieces; it becomes a whole number of frames, at least one.
    """

    __slots__ = ("_form", "_held", "_length", "_size")

    def __init__(self, audio: Audio, seconds: float) -> None:
        self._form = (audio.sample_rate, audio.channels, audio.format)
        self._size = max(round(audio.sample_rate * seconds), 1) * audio.channels * audio.format.width
        self._held: list[bytes] = []
        self._length = 0  # bytes that are held, less than `_size`

    def fits(self, audio: Audio) -> bool:
        """Whether sound is of its form."""
        return self._form == (audio.sample_rate, audio.channels, audio.format)

    def cut(self, audio: Audio) -> list[Audio]:
        """Take sound; gives the pieces that are complete now: the same object where it is one already."""
        size, samples = self._size, audio.samples
        length = self._length + len(samples)
        if length < size:
            if samples:
                self._held.append(samples)
            self._length = length
            return []
        if length == size and not self._length:
            return [audio]
        if self._length:
            self._held.append(samples)
            samples = b"".join(self._held)
            self._held.clear()
        end = length - length % size
        if end < length:
            self._held.append(samples[end:])
        self._length = length - end
        return [Audio(samples[at : at + size], *self._form) for at in range(0, end, size)]

    def rest(self, pad: bool = False) -> Audio | None:
        """What is held, as a shorter piece or filled up with silence; None where that is nothing."""
        if not self._length:
            return None
        samples = b"".join(self._held)
        if pad:
            silence = b"\xff" if self._form[2] is AudioFormat.MULAW else b"\0"
            samples += silence * (self._size - self._length)
        self._held.clear()
        self._length = 0
        return Audio(samples, *self._form)
