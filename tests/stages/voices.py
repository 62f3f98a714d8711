"""Real speech for the tests of voice: made on the spot, with noise mixed in."""

from __future__ import annotations

import functools
import io
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np

from rxstage import Audio
from rxstage.voice.pcm import audio_of

__all__ = ["frames", "said", "scene", "silence", "tone"]

Samples = np.ndarray[Any, Any]


@functools.cache
def said(text: str, rate: int = 16_000) -> Samples:
    """A text as espeak-ng speaks it, without the silence round it."""
    import soundfile
    import soxr

    wav = subprocess.run(
        ["espeak-ng", "--stdout", "-s", "150", text], capture_output=True, check=True, timeout=60
    ).stdout
    samples, own = soundfile.read(io.BytesIO(wav), dtype="float32")
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return np.asarray(soxr.resample(samples[loud[0] : loud[-1]], own, rate), dtype=np.float32)


def silence(seconds: float, rate: int = 16_000) -> Samples:
    return np.zeros(round(seconds * rate), dtype=np.float32)


def tone(seconds: float, rate: int = 16_000, hertz: float = 300.0) -> Samples:
    return np.asarray(0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), dtype=np.float32)


def scene(*parts: Samples, snr: float | None = None) -> Samples:
    """Sounds one after the other, in white noise that is so many decibels below the mean of all that is not silent."""
    samples = np.concatenate(parts)
    if snr is None:
        return np.asarray(samples)
    loud = samples[np.abs(samples) > 1e-4]
    power = float(np.sqrt(np.mean(loud**2))) / 10 ** (snr / 20)
    noise = np.random.default_rng(7).standard_normal(len(samples)).astype(np.float32)
    return np.asarray(samples + noise * power)


def frames(samples: Samples, rate: int = 16_000, seconds: float = 0.02) -> Iterator[Audio]:
    """The sound in frames."""
    size = round(rate * seconds)
    for begin in range(0, len(samples), size):
        yield audio_of(samples[begin : begin + size, None], rate)
