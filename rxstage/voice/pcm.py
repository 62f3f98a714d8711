"""Samples as arrays and back: the four formats of `Audio`, and how channels are mixed. Needs numpy (extra `audio`)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rxstage.content import Audio, AudioFormat
from rxstage.errors import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

__all__ = ["audio_of", "mixed", "mono16", "samples_of"]


def samples_of(audio: Audio) -> Samples:
    """The samples as 32-bit floats in -1 to 1, of shape `(frames, channels)`.

    Raises:
        MissingExtra: numpy is not installed.
    """
    np = require("numpy", "audio")
    raw: Any = audio.numpy()
    match audio.format:
        case AudioFormat.FLOAT32:
            return raw  # type: ignore[no-any-return]
        case AudioFormat.PCM16:
            return raw * np.float32(1 / 32768)  # type: ignore[no-any-return]
        case AudioFormat.PCM32:
            return (raw * (1 / 2147483648)).astype(np.float32)  # type: ignore[no-any-return]
        case AudioFormat.MULAW:
            return _mulaw_values()[raw]  # type: ignore[no-any-return]


def audio_of(samples: Samples, sample_rate: int, format: AudioFormat = AudioFormat.PCM16) -> Audio:
    """An `Audio` of floats in -1 to 1, of shape `(frames, channels)`; what is louder is cut off at full scale."""
    np = require("numpy", "audio")
    channels = samples.shape[1]
    match format:
        case AudioFormat.FLOAT32:
            data = np.ascontiguousarray(samples, dtype="<f4")
        case AudioFormat.PCM16:
            data = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
        case AudioFormat.PCM32:
            data = np.clip(np.rint(samples.astype(np.float64) * 2147483648.0), -2147483648, 2147483647).astype("<i4")
        case AudioFormat.MULAW:
            data = _mulaw_codes()[np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int32) + 32768]
    return Audio(data.tobytes(), sample_rate, channels, format)


def mixed(samples: Samples, channels: int) -> Samples:
    """The samples with another number of channels: one is the mean of all, and one is copied to all.

    Raises:
        ValueError: neither the old nor the new number is one.
    """
    np = require("numpy", "audio")
    have = samples.shape[1]
    if have == channels:
        return samples
    if channels == 1:
        return samples.mean(axis=1, dtype=np.float32, keepdims=True)  # type: ignore[no-any-return]
    if have == 1:
        return np.repeat(samples, channels, axis=1)  # type: ignore[no-any-return]
    raise ValueError(f"{have} channels cannot be made {channels}; mix them down to 1 first")


def mono16(audio: Audio) -> bytes:
    """The samples as 16-bit mono."""
    if audio.channels == 1 and audio.format is AudioFormat.PCM16:
        return audio.samples
    return audio_of(mixed(samples_of(audio), 1), audio.sample_rate).samples


@lru_cache(maxsize=1)
def _mulaw_values() -> Samples:
    """The value of each of the 256 codes (ITU-T G.711)."""
    np = require("numpy", "audio")
    codes = ~np.arange(256, dtype=np.uint8)
    exponent = (codes >> 4) & 7
    magnitude = (((codes & 15).astype(np.int32) << 3) + 132 << exponent) - 132
    values = np.where(codes & 128, -magnitude, magnitude)
    return (values / 32768).astype(np.float32)  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _mulaw_codes() -> NDArray[np.uint8]:
    """The code of each 16-bit value, from -32768 on (ITU-T G.711)."""
    np = require("numpy", "audio")
    values = np.arange(-32768, 32768)
    magnitude = np.minimum(np.abs(values), 32635) + 132
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 15
    sign = np.where(values < 0, 128, 0)
    return (~(sign | (exponent << 4) | mantissa)).astype(np.uint8)  # type: ignore[no-any-return]
