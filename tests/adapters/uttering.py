"""Real speech for the tests of engines: made on the spot, with noise in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from rxstage import Audio
from rxstage.adapters.espeak import EspeakTts
from rxstage.errors import require
from rxstage.ports import Tts

__all__ = ["heard", "joined", "noisy", "uttered", "word_errors"]


async def joined(sound: AsyncIterator[Audio]) -> Audio:
    """All pieces as one."""
    pieces = [piece async for piece in sound]
    return Audio(b"".join(piece.samples for piece in pieces), pieces[0].sample_rate)


async def uttered(text: str, tts: Tts | None = None) -> Audio:
    """A text, spoken, at 16 kHz, with a moment of silence before and behind."""
    numpy, soxr = require("numpy", "audio"), require("soxr", "audio")
    sound = await joined((tts or EspeakTts()).speak(text))
    samples = soxr.resample(numpy.frombuffer(sound.samples, dtype="<i2"), sound.sample_rate, 16_000)
    silence = b"\0\0" * 4800
    return Audio(silence + samples.tobytes() + silence, 16_000)


def noisy(audio: Audio, decibels: float | None, seed: int = 1) -> Audio:
    """The sound with white noise so many decibels below it; None: as it is."""
    if decibels is None:
        return audio
    numpy = require("numpy", "audio")
    samples = numpy.frombuffer(audio.samples, dtype="<i2").astype(numpy.float64)
    power = numpy.mean(samples[4800:-4800] ** 2) / 10 ** (decibels / 10)
    samples += numpy.random.default_rng(seed).normal(size=len(samples)) * numpy.sqrt(power)
    return Audio(numpy.clip(numpy.rint(samples), -32768, 32767).astype("<i2").tobytes(), audio.sample_rate)


async def heard(sound: AsyncIterator[Audio], pieces: int) -> list[Audio]:
    """The first pieces; then it is closed."""
    taken: list[Audio] = []
    closing: Any = sound
    async with aclosing(closing):
        async for piece in sound:
            taken.append(piece)
            if len(taken) == pieces:
                break
    return taken


def word_errors(said: str, understood: str) -> tuple[int, int]:
    """Words that were left out, put in or taken for others; and words that were said."""
    want, got = said.lower().split(), understood.lower().split()
    row = list(range(len(got) + 1))
    for line, word in enumerate(want, 1):
        above, row = row, [line]
        for column, other in enumerate(got, 1):
            row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + (word != other)))
    return row[-1], len(want)
