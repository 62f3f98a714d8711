"""Louder and quieter: by a fixed gain, and to one loudness."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from voices import said, scene, silence

from rxstage import Audio, AudioFormat, Pipeline, StreamElement
from rxstage.stages.gain import GainStage, NormalizeStage
from rxstage.testing import check_stage
from rxstage.voice.pcm import audio_of, samples_of

Samples = np.ndarray[Any, Any]
FLOAT = AudioFormat.FLOAT32


def tone(seconds: float, decibels: float, hertz: float = 440.0, rate: int = 16_000) -> Samples:
    """A sine of that mean power [dBFS]."""
    times = np.arange(round(seconds * rate)) / rate
    return (10 ** ((decibels + 3.01) / 20) * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def noise(seconds: float, decibels: float) -> Samples:
    made = np.random.default_rng(1).standard_normal(round(seconds * 16_000)) * 10 ** (decibels / 20)
    return np.asarray(made, dtype=np.float32)


def cut(
    samples: Samples, size: int = 320, format: AudioFormat = AudioFormat.PCM16, rate: int = 16_000
) -> Iterator[Audio]:
    samples = samples if samples.ndim == 2 else samples[:, None]
    for at in range(0, len(samples), size):
        yield audio_of(samples[at : at + size], rate, format)


def heard(stage: Any, source: Any) -> Samples:
    """What comes out of a stage, of shape (frames, channels)."""
    elements = Pipeline.of(stage).run(source).elements
    return np.concatenate([samples_of(element.audio) for element in elements if element.audio is not None])


def decibels(samples: Samples) -> float:
    """Mean power [dBFS]."""
    return 10 * math.log10(float(np.mean(np.square(samples, dtype=np.float64))) + 1e-12)


def loudness(samples: Samples) -> float:
    """Mean power [dBFS] of what is no pause."""
    windows = samples.ravel()[: len(samples) // 320 * 320].reshape(-1, 320)
    powers = np.mean(np.square(windows, dtype=np.float64), axis=1)
    return 10 * math.log10(float(np.mean(powers[powers > powers.max() / 300])))


# ------------------------------------------------------------------------------------------ GainStage


@pytest.mark.parametrize("format", list(AudioFormat))
@pytest.mark.parametrize("gain", [-20.0, -6.0, 6.0, 12.0])
def test_a_tone_is_so_many_decibels_louder(format: AudioFormat, gain: float) -> None:
    """In every format the level changes by the gain, and the tone is the same tone."""
    result = heard(GainStage(decibels=gain), cut(tone(0.5, -30.0), format=format))[:, 0]
    coarse = format is AudioFormat.MULAW
    assert decibels(result) == pytest.approx(-30.0 + gain, abs=0.3 if coarse else 0.02)
    wanted = tone(0.5, -30.0 + gain)
    assert np.abs(result - wanted).max() < (0.1 * np.abs(wanted).max() if coarse else 10 ** (gain / 20) / 32768 + 5e-5)


@pytest.mark.parametrize("format", list(AudioFormat))
def test_what_would_be_too_loud_is_cut_off(format: AudioFormat) -> None:
    """Nothing wraps round: the largest sample is full scale, with the sign that it had."""
    source = tone(0.1, -3.01)
    result = heard(GainStage(decibels=40.0), cut(source, format=format))[:, 0]
    assert np.abs(result).max() == pytest.approx(1.0, abs=0.02)
    assert np.array_equal(np.sign(result)[np.abs(source) > 0.01], np.sign(source)[np.abs(source) > 0.01])


def test_no_gain_is_no_work() -> None:
    """At 0 dB the element itself goes on."""
    audio = Audio(b"\1\2" * 320, 16_000)
    assert Pipeline.of(GainStage(decibels=0.0)).run([audio]).contents[0] is audio


def test_the_form_stays() -> None:
    """Rate, channels and format stay; the channels are not mixed; other content passes by."""
    both = np.stack([tone(0.1, -20.0), np.zeros(1600, dtype=np.float32)], axis=1)
    elements = Pipeline.of(GainStage(decibels=6.0)).run([audio_of(both, 44_100), "text"]).elements
    assert elements[0].audio is not None
    assert (elements[0].audio.sample_rate, elements[0].audio.channels, elements[1].text) == (44_100, 2, "text")
    assert np.abs(samples_of(elements[0].audio)[:, 1]).max() == 0.0


@pytest.mark.parametrize("gain", [121.0, -121.0, float("nan")])
def test_a_gain_has_to_make_sense(gain: float) -> None:
    """What no sound can have is refused when the stage is made."""
    with pytest.raises(ValidationError):
        GainStage(decibels=gain)


# ------------------------------------------------------------------------------------------ NormalizeStage


@pytest.mark.needs("espeak-ng", "module:soxr")
@pytest.mark.parametrize("level", [-40.0, -35.0, -25.0, -15.0, -8.0])
def test_speech_of_any_loudness_comes_to_one(level: float) -> None:
    """From the second sentence on it is within 4 dB of -20 dBFS, and never above the ceiling of -1."""
    sentence = said("The quick brown fox jumps over the lazy dog and goes home.")
    spoken = scene(sentence, silence(0.4), sentence)
    source = np.clip(spoken * 10 ** ((level - loudness(sentence[:, None])) / 20), -1, 1)
    result = heard(NormalizeStage(), cut(source))
    assert loudness(result[len(sentence) :]) == pytest.approx(-20.0, abs=4.0)
    assert np.abs(result).max() <= 10 ** (-1 / 20) + 1e-4
    assert len(result) == len(source)


@pytest.mark.needs("espeak-ng", "module:soxr")
@pytest.mark.parametrize("background", [-70.0, -60.0, -52.0])
def test_pauses_are_not_made_louder_by_waiting(background: float) -> None:
    """Ten seconds of background before the speech stay as they are; a pause behind it is as loud at its end as at its
    beginning."""
    sentence = said("What is the weather like tomorrow?")
    sentence = sentence * 10 ** ((-30.0 - loudness(sentence[:, None])) / 20)
    source = (
        scene(silence(10.0), sentence, silence(10.0))
        + noise(20.0 + len(sentence) / 16_000, background)[: 320_000 + len(sentence)]
    )
    result = heard(NormalizeStage(), cut(source))[:, 0]
    assert decibels(result[:160_000]) == pytest.approx(background, abs=0.5)
    pause = result[160_000 + len(sentence) :]
    assert decibels(pause[-16_000:]) == pytest.approx(decibels(pause[8_000:24_000]), abs=0.5)
    assert decibels(pause[-16_000:]) <= background + 24.5


def test_digital_silence_stays() -> None:
    """Zeros come out as zeros, after loud sound too."""
    result = heard(NormalizeStage(), cut(scene(tone(1.0, -30.0), silence(5.0))))
    assert np.abs(result[16_000 + 320 :]).max() == 0.0


def test_the_gain_changes_smoothly() -> None:
    """Where a tone gets 20 dB louder, no step in the result is twice as large as those of a tone at the ceiling."""
    result = heard(NormalizeStage(), cut(scene(tone(2.0, -40.0), tone(2.0, -20.0), tone(2.0, -40.0)), format=FLOAT))[
        :, 0
    ]
    steepest = 2 * np.pi * 440 / 16_000 * 10 ** (-1 / 20)
    assert np.abs(np.diff(result)).max() <= steepest * 2
    assert np.abs(result).max() <= 10 ** (-1 / 20) + 1e-6
    assert decibels(result[16_000:31_000]) == pytest.approx(-20.0, abs=0.5)
    assert decibels(result[56_000:63_000]) == pytest.approx(-20.0, abs=0.5)


@pytest.mark.parametrize("size", [1, 37, 319, 320, 960, 64_000])
def test_it_does_not_matter_how_it_is_cut(size: int) -> None:
    """The pieces may have any length: gain and level are measured in windows of their own."""
    source = scene(silence(0.3), tone(1.0, -35.0), silence(0.2), tone(0.5, -30.0))
    whole = heard(NormalizeStage(), cut(source, 320, FLOAT))
    pieces = heard(NormalizeStage(), cut(source, size, FLOAT))
    assert len(pieces) == len(whole)
    assert np.abs(pieces - whole).max() < 1e-4


@pytest.mark.parametrize("format", list(AudioFormat))
def test_formats_are_all_the_same(format: AudioFormat) -> None:
    """The result does not depend on the format of the samples, and has that."""
    source = tone(1.0, -30.0)
    elements = Pipeline.of(NormalizeStage()).run(cut(source, format=format)).elements
    assert {element.audio.format for element in elements if element.audio} == {format}
    result = np.concatenate([samples_of(element.audio) for element in elements if element.audio])
    assert decibels(result[8_000:]) == pytest.approx(-20.0, abs=0.2)


def test_channels_have_one_gain() -> None:
    """Left and right keep their proportion."""
    both = np.stack([tone(1.0, -30.0), tone(1.0, -36.0, 700.0)], axis=1)
    result = heard(NormalizeStage(), cut(both, format=FLOAT))[8_000:]
    assert decibels(result[:, 0]) - decibels(result[:, 1]) == pytest.approx(6.0, abs=0.05)
    assert decibels(result) == pytest.approx(-20.0, abs=0.2)


def test_another_rate_keeps_the_gain() -> None:
    """Where the form changes, the loudness that was learnt stays, and so does the gain: no step."""
    source = [*cut(tone(2.0, -35.0)), *cut(tone(0.1, -35.0, rate=48_000), 960, rate=48_000)]
    elements = Pipeline.of(NormalizeStage()).run(source).elements
    last = np.concatenate(
        [samples_of(each.audio) for each in elements if each.audio and each.audio.sample_rate == 48_000]
    )
    assert decibels(last) == pytest.approx(-20.0, abs=0.3)


def test_turns_do_not_begin_anew() -> None:
    """The gain goes on over the end of a turn and over an interrupt, as it is the same speaker."""
    first = list(cut(tone(1.0, -40.0)))
    for control in (StreamElement.end_of_turn(), StreamElement.interrupt()):
        elements = Pipeline.of(NormalizeStage()).run([*first, control, next(cut(tone(0.02, -40.0)))]).elements
        assert elements[-1].audio is not None
        assert decibels(samples_of(elements[-1].audio)) == pytest.approx(-20.0, abs=0.3)


def test_the_largest_gain_is_the_largest() -> None:
    """Very quiet speech gets `maximum_gain` and no more; loud sound is made quieter by any."""
    assert decibels(heard(NormalizeStage(maximum_gain=6.0), cut(tone(1.0, -40.0)))[8_000:]) == pytest.approx(
        -34.0, abs=0.2
    )
    assert decibels(heard(NormalizeStage(level=-50.0), cut(tone(4.0, -10.0)))[48_000:]) == pytest.approx(-50.0, abs=0.5)


def test_broken_floats_do_no_lasting_harm() -> None:
    """What is no number passes, and what follows is normalised as before."""
    bad = audio_of(np.full((320, 1), np.nan, dtype=np.float32), 16_000, FLOAT)
    good = list(cut(tone(1.0, -30.0), format=FLOAT))
    elements = Pipeline.of(NormalizeStage()).run([*good, bad, *good]).elements
    assert elements[-1].audio is not None
    assert decibels(samples_of(elements[-1].audio)) == pytest.approx(-20.0, abs=0.2)


def test_laws() -> None:
    """Both keep the laws of a stage."""
    check_stage(lambda: GainStage(decibels=3.0), list(cut(tone(0.1, -20.0))))
    check_stage(NormalizeStage, list(cut(tone(0.1, -20.0))))
