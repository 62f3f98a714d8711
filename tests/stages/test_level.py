"""How loud sound is, told beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from voices import said, scene, silence

from rxstage import Audio, AudioFormat, Pipeline, Priority, StreamElement, wire
from rxstage.stages.level import Level, LevelStage
from rxstage.testing import check_stage
from rxstage.voice.pcm import audio_of

Samples = np.ndarray[Any, Any]


def sine(seconds: float, peak: float, rate: int = 16_000) -> Samples:
    return (peak * np.sin(2 * np.pi * 500 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def cut(
    samples: Samples, size: int = 320, rate: int = 16_000, format: AudioFormat = AudioFormat.PCM16
) -> Iterator[Audio]:
    samples = samples if samples.ndim == 2 else samples[:, None]
    for at in range(0, len(samples), size):
        yield audio_of(samples[at : at + size], rate, format)


def levels(source: Any, **options: Any) -> list[Level]:
    return [element.data for element in Pipeline.of(LevelStage(**options)).run(source).elements if element.data]


@pytest.mark.parametrize("format", list(AudioFormat))
@pytest.mark.parametrize("size", [7, 320, 1600, 5000])
def test_a_sine_has_the_level_that_it_has(format: AudioFormat, size: int) -> None:
    """Half of full scale: peak -6.02 dBFS, mean power 3.01 below, whatever format and pieces."""
    told = levels(cut(sine(0.5, 0.5), size, format=format))
    near = 0.25 if format is AudioFormat.MULAW else 0.01
    assert [level.rms for level in told] == pytest.approx([-9.03] * 5, abs=near)
    assert [level.peak for level in told] == pytest.approx([-6.02] * 5, abs=near)
    assert [level.time for level in told] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.needs("espeak-ng", "module:soxr")
def test_speech_is_loud_where_it_is() -> None:
    """In a scene of silence, speech and silence the levels show where the speech is."""
    spoken = said("one two three four five six seven")
    told = levels(cut(scene(silence(1.0), spoken, silence(1.0))))
    loud = [level.time for level in told if level.rms > -40.0]
    assert loud[0] == pytest.approx(1.1, abs=0.11)
    assert loud[-1] == pytest.approx(1.0 + len(spoken) / 16_000, abs=0.11)
    assert {level.rms for level in told[:9]} == {-120.0}


def test_the_sound_goes_on_as_it_is_and_first() -> None:
    """Each level comes behind the sound that it is about, with low priority, the metadata and no copy of the sound."""
    source = [StreamElement.of(audio, metadata={"n": n}) for n, audio in enumerate(cut(sine(0.1, 0.5), 800))]
    elements = Pipeline.of(LevelStage()).run([*source, "text"]).elements
    assert [type(element.payload).__name__ for element in elements] == ["Audio", "Audio", "Level", "str"]
    assert elements[0].audio is source[0].audio
    assert (elements[2].priority, elements[2].metadata) == (Priority.LOW, {"n": 1})


def test_the_rest_is_told_at_the_end() -> None:
    """What is left at the end or where the form changes is a shorter stretch; a turn's end makes no difference."""
    source = [*cut(sine(0.13, 0.5)), StreamElement.end_of_turn(), *cut(sine(0.1, 0.5, 8000), 160, 8000)]
    told = levels(source, interval=0.1)
    assert [level.time for level in told] == pytest.approx([0.1, 0.13, 0.23])
    assert [level.rms for level in told] == pytest.approx([-9.03] * 3, abs=0.3)


def test_all_channels_count() -> None:
    """The mean power is that of all channels, the peak that of the loudest."""
    both = np.stack([sine(0.1, 0.5), np.zeros(1600, dtype=np.float32)], axis=1)
    (level,) = levels(cut(both))
    assert [level.rms, level.peak] == pytest.approx([-12.04, -6.02], abs=0.01)


def test_extremes() -> None:
    """The most negative sample is full scale, and silence is -120 dBFS, not minus infinity."""
    (loud, quiet) = levels([Audio(b"\0\x80" * 1600, 16_000), Audio(bytes(3200), 16_000)])
    assert (loud.rms, loud.peak) == (0.0, 0.0)
    assert (quiet.rms, quiet.peak) == (-120.0, -120.0)


def test_it_has_a_wire_form() -> None:
    """A level travels to a page and back."""
    element = StreamElement.of(Level(-20.5, -12.0, 3.25))
    assert wire.from_json(wire.to_json(element)) == element


def test_laws() -> None:
    """It keeps the laws of a stage."""
    check_stage(LevelStage, list(cut(sine(0.3, 0.5))))
