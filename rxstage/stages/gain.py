"""Sound made louder or quieter: by a fixed gain, or by one that follows how loud it is."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import Field

from rxstage.audiospec import AudioSpec
from rxstage.content import Audio, AudioFormat
from rxstage.element import StreamElement
from rxstage.errors import require
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.pcm import audio_of, samples_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rxstage.voice.pcm import Samples

__all__ = ["GainStage", "NormalizeStage"]

_WINDOW: Final = 0.02  # seconds of sound that are measured at a time
_QUICK: Final = 0.001  # seconds in which the limiter takes the gain down
_FLOOR: Final = -70.0  # dBFS: no background is taken to be quieter
_FADE: Final = 6.0  # dB a second by which what goes on unchanged becomes background
_ABOVE: Final = 8.0  # dB by which sound is louder than the background


class GainStage(Stage):
    """Makes sound louder or quieter by a fixed gain.

    Args:
        name: name in the graph.
        decibels: gain [dB]; 6 is about twice the amplitude, -6 half of it.

    Emits: `Audio` of the same form; what would be louder than full scale is cut off there.
    Holds: nothing.
    Completes: with its input.
    Fails: with `StageError` where numpy is not installed.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Audio,)
    emits: ClassVar[tuple[Any, ...]] = (Audio,)

    decibels: float = Field(ge=-120, le=120)

    def audio_out(self, incoming: AudioSpec) -> AudioSpec:
        """That of what comes in."""
        return incoming

    def apply(self, element: StreamElement) -> StreamElement:
        audio: Audio = element.content
        if not self.decibels:
            return element
        factor = _factor(self.decibels)
        np = require("numpy", "audio")
        if audio.format is AudioFormat.PCM16:
            samples = _table(factor, audio.format).take(np.frombuffer(audio.samples, dtype="<u2")).tobytes()
        elif audio.format is AudioFormat.MULAW:
            samples = _table(factor, audio.format).take(np.frombuffer(audio.samples, dtype="u1")).tobytes()
        else:
            louder = samples_of(audio) * np.float32(factor)
            if audio.format is AudioFormat.FLOAT32:
                louder = np.clip(louder, -1.0, 1.0)
            samples = audio_of(louder, audio.sample_rate, audio.format).samples
        return element.replace(content=Audio(samples, audio.sample_rate, audio.channels, audio.format))


@lru_cache(maxsize=16)
def _table(factor: float, format: AudioFormat) -> NDArray[np.generic]:
    """What becomes of each value that a sample of 8 or 16 bits can have: looking it up takes a third of the time."""
    np = require("numpy", "audio")
    values = np.arange(1 << 8 * format.width, dtype=f"<u{format.width}")
    samples = samples_of(Audio(values.tobytes(), 1, 1, format))
    louder = audio_of(samples * np.float32(factor), 1, format)
    return np.frombuffer(louder.samples, dtype=f"<u{format.width}")  # type: ignore[no-any-return]


class NormalizeStage(Stage):
    """Brings speech to one loudness, whoever speaks and however far from the microphone.

    The gain follows the loudness slowly, within a turn and over many, and changes smoothly; where that would not be
    quick enough a limiter takes it down at once. It stays as it is where there is only background: in silence, and in
    noise that goes on unchanged, which are never made louder by waiting. It delays nothing.

    Args:
        name: name in the graph.
        level: wanted loudness of the speech [dBFS], mean power of what is not a pause.
        maximum_gain: the largest gain [dB]; sound is made quieter by any.
        silence: what is quieter [dBFS] counts as silence, whatever is heard later.
        ceiling: the largest sample that comes out [dBFS].
        attack: seconds in which the gain comes two thirds of the way to what louder speech wants.
        release: the same for quieter speech.

    Emits: `Audio` of the same form, a piece for a piece. Everything else passes by.
    Holds: nothing but a few numbers.
    Completes: with its input.
    Fails: with `StageError` where numpy is not installed.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Audio,)
    emits: ClassVar[tuple[Any, ...]] = (Audio,)

    level: float = Field(default=-20.0, ge=-60, le=0)
    maximum_gain: float = Field(default=24.0, ge=0, le=60)
    silence: float = Field(default=-50.0, ge=-120, le=0)
    ceiling: float = Field(default=-1.0, ge=-20, le=0)
    attack: float = Field(default=0.1, gt=0)
    release: float = Field(default=2.0, gt=0)

    def audio_out(self, incoming: AudioSpec) -> AudioSpec:
        """That of what comes in."""
        return incoming

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        leveller = _Leveller(self)
        async for element in elements:
            if element.content.__class__ is Audio:
                yield element.replace(content=leveller.level(element.content))
            else:
                yield element


class _Leveller:
    """The gain along one stream. It is measured and set for one window after the other, whatever the pieces are."""

    def __init__(self, stage: NormalizeStage) -> None:
        self._np = require("numpy", "audio")
        self._stage = stage
        self._form: Any = None
        self._gain = 1.0  # now
        self._next = 1.0  # at the end of this window
        self._done = 0  # frames of this window so far
        self._power = 0.0  # their squares, averaged over the channels and summed
        self._loudness: float | None = None  # dBFS of the speech so far
        self._background = stage.silence  # dBFS of what goes on unchanged

    def level(self, audio: Audio) -> Audio:
        np, form = self._np, (audio.sample_rate, audio.channels, audio.format)
        if form != self._form:
            self._form = form
            self._window = max(round(audio.sample_rate * _WINDOW), 1)
            self._quick = max(round(audio.sample_rate * _QUICK), 1)
            self._steps = np.arange(1, self._window + 1, dtype=np.float32)[:, None]
            self._full = 32768.0 if audio.format is AudioFormat.PCM16 else 1.0
            self._ceiling = min(_factor(self._stage.ceiling) * self._full, 32767.0)
            self._done, self._power = 0, 0.0
        if audio.format is AudioFormat.PCM16:  # by far the most frequent, and twice as fast without a change of scale
            samples = np.frombuffer(audio.samples, dtype="<i2").astype(np.float32).reshape(-1, audio.channels)
        else:
            samples = samples_of(audio)
        pieces: list[Samples] = []
        at = 0
        while at < len(samples):
            pieces.append(self._part(samples[at : at + self._window - self._done]))
            at += len(pieces[-1])
            if self._done == self._window:
                self._measure()
        if not pieces:
            return audio
        result = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        if audio.format is AudioFormat.PCM16:
            return Audio(np.rint(result).astype("<i2").tobytes(), *form)
        return audio_of(result, audio.sample_rate, audio.format)

    def _part(self, samples: Samples) -> Samples:
        """Part of one window, or all of it, with the gain on its way to what it is to be at the window's end."""
        np = self._np
        length = ramp = len(samples)
        flat = samples.ravel()
        self._power += float(np.dot(flat, flat)) / samples.shape[1]
        peak = float(max(flat.max(), -flat.min()))
        begin = self._gain
        end = begin + (self._next - begin) * length / (self._window - self._done)
        limited = peak * max(begin, end) > self._ceiling
        if limited:
            most = self._ceiling / peak
            if begin > most:
                ramp = min(self._quick, length)
            end, self._next = min(end, most), min(self._next, most)
        self._gain = end
        self._done += length
        if begin == end:
            return samples * np.float32(end)  # type: ignore[no-any-return]
        gains = self._steps[:length] * np.float32((end - begin) / ramp) + np.float32(begin)
        gains[ramp:] = end
        result: Samples = samples * gains
        return np.clip(result, -self._ceiling, self._ceiling) if limited else result

    def _measure(self) -> None:
        """A window is complete: set the gain for the end of the next one."""
        stage = self._stage
        heard = 10.0 * math.log10(max(1e-12, self._power / self._window / self._full**2))
        self._done, self._power = 0, 0.0
        self._background = max(min(heard, self._background + _FADE * _WINDOW), _FLOOR)
        if heard > max(self._background + _ABOVE, stage.silence):
            if self._loudness is None:
                self._loudness = heard
            else:
                seconds = stage.attack if heard > self._loudness else stage.release
                self._loudness += (heard - self._loudness) * (1.0 - math.exp(-_WINDOW / seconds))
        if self._loudness is not None:
            self._next = _factor(min(stage.level - self._loudness, stage.maximum_gain))


def _factor(decibels: float) -> float:
    return float(10.0 ** (decibels / 20.0))
