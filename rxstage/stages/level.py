"""How loud sound is, told beside it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final

from msgspec import Struct
from pydantic import Field

from rxstage import wire
from rxstage.audiospec import AudioSpec
from rxstage.content import Audio, Data
from rxstage.element import StreamElement
from rxstage.errors import require
from rxstage.priority import Priority
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.framer import Framer
from rxstage.voice.pcm import samples_of

__all__ = ["Level", "LevelStage"]

_SILENCE: Final = 1e-6  # -120 dBFS: nothing is told to be quieter


class Level(Struct, frozen=True):
    """How loud a stretch of sound was, all its channels together. Travels as `Data`.

    Attributes:
        rms: mean power [dBFS], at least -120; a sine at full scale has -3.
        peak: the largest sample [dBFS], at least -120.
        time: seconds from the beginning of the sound to the end of the stretch, in sample time.
    """

    rms: float
    peak: float
    time: float


wire.register(Level, "rxstage.Level")


class LevelStage(Stage):
    """Tells how loud the sound is that passes, for a meter.

    Args:
        name: name in the graph.
        interval: seconds of sound that each `Level` is about.

    Emits: what it gets, and a `Data(Level)` of low priority behind the sound of each interval.
    Holds: the sound of one interval, which has gone on already.
    Completes: with its input; the last `Level` is about what is left then.
    Fails: with `StageError` where numpy is not installed.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Audio,)
    emits: ClassVar[tuple[Any, ...]] = (Audio, Data)

    interval: float = Field(default=0.1, gt=0)

    def audio_out(self, incoming: AudioSpec) -> AudioSpec:
        """That of what comes in."""
        return incoming

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        framer: Framer | None = None
        newest: StreamElement | None = None
        time = 0.0
        async for element in elements:
            yield element
            audio = element.content
            if audio.__class__ is not Audio:
                continue
            stretches: list[Audio] = []
            if framer is None or not framer.fits(audio):
                if framer is not None and (rest := framer.rest()) is not None:
                    stretches.append(rest)
                framer = Framer(audio, self.interval)
            newest = element
            stretches += framer.cut(audio)
            for stretch in stretches:
                time += stretch.duration
                yield _told(_level(stretch, time), element)
        if framer is not None and newest is not None and (rest := framer.rest()) is not None:
            yield _told(_level(rest, time + rest.duration), newest)


def _told(level: Level, element: StreamElement) -> StreamElement:
    return element.replace(content=Data(level), priority=Priority.LOW)


def _level(audio: Audio, time: float) -> Level:
    np = require("numpy", "audio")
    samples = samples_of(audio).ravel()
    power = float(np.dot(samples, samples)) / len(samples)
    peak = float(max(samples.max(), -samples.min()))
    return Level(_decibels(math.sqrt(power)), _decibels(peak), time)


def _decibels(amplitude: float) -> float:
    return 20.0 * math.log10(max(_SILENCE, amplitude))
