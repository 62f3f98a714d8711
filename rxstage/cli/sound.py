"""What `rxstage demo` does with sound: a level meter, and where it is loud and silent."""

from __future__ import annotations

import asyncio
import math
import sys
from array import array
from collections.abc import AsyncIterator
from itertools import pairwise
from operator import mul
from typing import Final

from msgspec import Struct

from rxstage.builder import PipelineBuilder
from rxstage.config import PipelineConfig
from rxstage.content import Audio
from rxstage.element import StreamElement
from rxstage.pipeline import Pipeline
from rxstage.stage import StageType
from rxstage.stages.basic import MapStage, PassthroughStage, StageFunc

__all__ = ["Level", "Loud", "Silent", "sound_pipeline"]

_FULL: Final = 32768.0  # the largest 16-bit sample
_FLOOR: Final = -96.0  # dBFS: silence in 16 bits
_OPEN: Final = -40.0  # dBFS at which the gate opens
_CLOSE: Final = -46.0  # dBFS below which it closes, after
_HANG: Final = 10  # frames below that
_LONGEST: Final = 500  # frames that a segment holds at most; what goes on is the next one
_METER: Final = 25  # frames that make one line of the meter
_VOICE: Final = (60.0, 1000.0)  # Hz between which a pitch is looked for
_WINDOW: Final = 0.06  # seconds of sound in which it is


class Level(Struct, frozen=True):
    """One frame and how loud it is [dBFS]."""

    audio: Audio
    rms: float
    peak: float


class Loud(Struct, frozen=True):
    """A segment above the gate: its frames."""

    frames: tuple[Level, ...]


class Silent(Struct, frozen=True):
    """A segment below the gate: its length [s], and its mean level [dBFS]."""

    duration: float
    rms: float


def sound_pipeline(config: PipelineConfig) -> Pipeline:
    """`Audio` of 16-bit samples in, one line about each thing that is heard; `start` [s] is in the metadata.

    level ─┬─> meter ───────────────────────────────┐
           └─> gate ──route──> pitch (loud) ────────┼─> findings
                       └─────> pause (silent) ──────┘
    """
    return (
        PipelineBuilder(config, name="sound")
        .add(MapStage("level", _level, on=Audio), PassthroughStage("findings"))
        .branch(
            "level",
            StageFunc("meter", StageType.ACCUMULATE, _meter, accepts=Level),
            StageFunc("gate", StageType.ACCUMULATE, _gate, accepts=Level),
        )
        .route(
            "gate",
            (Loud, MapStage("pitch", _pitch, on=Loud, concurrency=2)),
            otherwise=MapStage("pause", _pause, on=Silent),
        )
        .merge("meter", "pitch", "pause", into="findings")
        .build()
    )


# ------------------------------------------------------------------------------------------ levels


def _samples(audio: Audio) -> array[int]:
    samples = array("h", audio.samples)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _decibel(amplitude: float) -> float:
    return max(20.0 * math.log10(amplitude / _FULL), _FLOOR) if amplitude > 0 else _FLOOR


def _level(audio: Audio) -> Level:
    samples = _samples(audio)
    rms = math.sqrt(sum(map(mul, samples, samples)) / len(samples))
    return Level(audio, _decibel(rms), _decibel(max(max(samples), -min(samples))))


def _mean(levels: list[float]) -> float:
    """The level of the mean power."""
    return 10.0 * math.log10(sum(10.0 ** (level / 10.0) for level in levels) / len(levels))


async def _meter(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    """One line for half a second."""
    first: StreamElement | None = None
    levels: list[Level] = []
    async for element in elements:
        if element.is_control:
            continue
        first = first or element
        levels.append(element.data)
        if len(levels) == _METER:
            yield first.replace(content=_bar(levels), source="meter")
            first, levels = None, []
    if first is not None:
        yield first.replace(content=_bar(levels), source="meter")


def _bar(levels: list[Level]) -> str:
    rms = _mean([level.rms for level in levels])
    peak = max(level.peak for level in levels)
    return f"{'█' * max(round((rms + 60.0) / 2.0), 0):30} {rms:6.1f} dBFS, peak {peak:.1f}"


# ------------------------------------------------------------------------------------------ segments


async def _gate(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    """Gather frames to loud and silent segments; a short dip does not end a loud one."""
    held: list[StreamElement] = []
    is_open = False
    quiet = 0  # frames at the end of an open segment that are below the gate

    async for element in elements:
        if element.is_control:
            continue
        held.append(element)
        level = element.data.rms
        quiet = quiet + 1 if level < _CLOSE else 0
        if quiet > _HANG if is_open else level >= _OPEN:
            begin = max(len(held) - (quiet if is_open else 1), 0)  # the dip that was the end belongs to the silence
            if begin:
                yield _segment(held[:begin], is_open)
            held, is_open, quiet = held[begin:], not is_open, 0
        if len(held) == _LONGEST:
            yield _segment(held, is_open)
            held = []
    if held:
        yield _segment(held, is_open)


def _segment(held: list[StreamElement], is_open: bool) -> StreamElement:
    frames: tuple[Level, ...] = tuple(element.data for element in held)
    if is_open:
        return held[0].replace(content=Loud(frames))
    duration = sum(frame.audio.duration for frame in frames)
    return held[0].replace(content=Silent(duration, _mean([frame.rms for frame in frames])))


def _pause(silent: Silent) -> str:
    return f"silent for {silent.duration:.2f} s at {silent.rms:.0f} dBFS"


async def _pitch(loud: Loud) -> str:
    """Measure a segment on a thread: it takes longer than a frame lasts."""
    duration = sum(frame.audio.duration for frame in loud.frames)
    hertz = await asyncio.to_thread(_fundamental, loud)
    tone = "no clear pitch" if hertz is None else f"about {hertz:.0f} Hz"
    return f"loud for {duration:.2f} s, peak {max(frame.peak for frame in loud.frames):.1f} dBFS, {tone}"


def _fundamental(loud: Loud) -> float | None:
    """The pitch [Hz] where the segment is loudest, by autocorrelation; None where there is none."""
    rate = loud.frames[0].audio.sample_rate
    wanted = max(math.ceil(_WINDOW / loud.frames[0].audio.duration), 1)
    middle = max(range(len(loud.frames)), key=lambda index: loud.frames[index].rms)
    begin = min(max(middle - wanted // 2, 0), max(len(loud.frames) - wanted, 0))
    thin = max(rate // 8000, 1)
    samples = [
        float(sample)
        for frame in loud.frames[begin : begin + wanted]
        for sample in _samples(frame.audio)[:: frame.audio.channels]
    ]
    wave = [sum(samples[index : index + thin]) / thin for index in range(0, len(samples) - thin + 1, thin)]
    pace = rate / thin
    mean = sum(wave) / len(wave) if wave else 0.0
    wave = [sample - mean for sample in wave]
    lags = range(max(int(pace / _VOICE[1]), 2), min(int(pace / _VOICE[0]), len(wave) // 2) + 1)
    likeness = [_likeness(wave, lag) for lag in lags]
    # The first peak that comes near the best one: later ones are its multiples.
    enough = max(max(likeness, default=0.0) * 0.9, 0.5)
    for index, (before, here) in enumerate(pairwise(likeness)):
        after = likeness[index + 2] if index + 2 < len(likeness) else 0.0
        if here >= enough and before < here >= after:
            bend = before - 2.0 * here + after
            return pace / (lags[index + 1] + (0.5 * (before - after) / bend if bend else 0.0))
    return None


def _likeness(wave: list[float], lag: int) -> float:
    """How much a wave is like itself `lag` samples later: 1 is the same."""
    one, other = wave[:-lag], wave[lag:]
    power = math.sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))
    return sum(map(mul, one, other)) / power if power else 0.0
