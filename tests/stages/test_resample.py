"""Sound at another rate, with other channels, in another format; and graphs that see to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rxstage import (
    Audio,
    AudioFormat,
    GraphError,
    MapStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineConfig,
    ProblemKind,
    Stage,
    StageError,
    StreamElement,
    Text,
)
from rxstage.audiospec import AudioSpec
from rxstage.stages.resample import ResampleStage
from rxstage.testing import check_stage
from rxstage.voice.pcm import audio_of, samples_of


def tone(seconds: float, rate: int, hertz: float = 440.0, channels: int = 1) -> np.ndarray[Any, Any]:
    times = np.arange(round(seconds * rate)) / rate
    return np.repeat((0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)[:, None], channels, axis=1)


def pieces(samples: np.ndarray[Any, Any], rate: int, sizes: list[int]) -> list[Audio]:
    """The samples cut into pieces of those sizes, over and over."""
    result, at, number = [], 0, 0
    while at < len(samples):
        size = sizes[number % len(sizes)]
        result.append(audio_of(samples[at : at + size], rate, AudioFormat.FLOAT32))
        at, number = at + size, number + 1
    return result


def sound(elements: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([samples_of(element.audio) for element in elements if element.audio is not None])


@pytest.mark.parametrize(("have", "want"), [(24_000, 16_000), (8_000, 16_000), (48_000, 16_000), (16_000, 44_100)])
def test_the_length_is_right_whatever_the_pieces(have: int, want: int) -> None:
    """One second in odd pieces is one second, within a sample, and the tone is the tone."""
    stage = ResampleStage(sample_rate=want, format=AudioFormat.FLOAT32)
    result = Pipeline.of(stage).run(pieces(tone(1.0, have), have, [1, 333, 480, 17, 1000]))
    heard = sound(result.elements)
    assert abs(len(heard) - want) <= 1
    middle = slice(want // 10, -want // 10)
    assert np.abs(heard[: len(tone(1.0, want))] - tone(1.0, want)[: len(heard)])[middle].max() < 0.01
    assert {element.audio.sample_rate for element in result.elements if element.audio} == {want}


def test_channels_are_not_mixed() -> None:
    """Left stays left and right stays right; mixed down they are their mean."""
    both = np.concatenate([tone(0.5, 48_000, 300.0), tone(0.5, 48_000, 1000.0)], axis=1)
    source = pieces(both, 48_000, [777])
    apart = sound(Pipeline.of(ResampleStage(channels=None, format=AudioFormat.FLOAT32)).run(source).elements)
    middle = slice(1000, 7000)
    assert np.abs(apart[:, 0] - tone(0.5, 16_000, 300.0)[:, 0])[middle].max() < 0.01
    assert np.abs(apart[:, 1] - tone(0.5, 16_000, 1000.0)[:, 0])[middle].max() < 0.01
    mono = sound(Pipeline.of(ResampleStage(format=AudioFormat.FLOAT32)).run(source).elements)
    assert np.abs(mono[:, 0] - apart.mean(axis=1))[middle].max() < 0.01


def test_what_fits_goes_on_as_it_is() -> None:
    """No copy is made of sound that has the wanted form."""
    audio = Audio(bytes(640), 16_000)
    assert Pipeline.of(ResampleStage()).run([audio]).contents[0] is audio


def test_formats() -> None:
    """Each format becomes each other one, as exactly as that has it."""
    source = tone(0.1, 8_000)
    for have in AudioFormat:
        for want in AudioFormat:
            stage = ResampleStage(sample_rate=None, channels=None, format=want)
            (element,) = Pipeline.of(stage).run([audio_of(source, 8_000, have)]).elements
            assert element.audio is not None
            assert element.audio.format is want
            worst = 0.02 if AudioFormat.MULAW in (have, want) else 1e-4
            assert np.abs(samples_of(element.audio) - source).max() < worst


def test_what_the_filter_holds_comes_at_the_end_of_the_turn() -> None:
    """Each turn has its whole length, before its control; a change of form ends a stretch, too."""
    turn = [*pieces(tone(0.25, 8_000), 8_000, [160]), StreamElement.end_of_turn()]
    other = pieces(tone(0.25, 48_000), 48_000, [960])
    elements = Pipeline.of(ResampleStage()).run([*turn, *turn, *turn[:-1], *other]).elements
    lengths = [0]
    for element in elements:
        if element.is_control:
            lengths.append(0)
        else:
            assert element.audio is not None
            lengths[-1] += element.audio.frames
    assert lengths == [4000, 4000, 8000]


def test_an_interrupt_forgets() -> None:
    """What the filter held of the interrupted turn does not come."""
    source = [*pieces(tone(0.1, 8_000), 8_000, [160]), StreamElement.interrupt(), Audio(bytes(320), 8_000)]
    after: list[StreamElement] = []
    for element in Pipeline.of(ResampleStage()).run(source).elements:
        after = [] if element.is_control else [*after, element]
    assert np.abs(sound(after)).max() == 0.0


def test_channels_that_do_not_go() -> None:
    """Six channels cannot be made two: the error says what can be done."""
    with pytest.raises(StageError, match="6 channels cannot be made 2; mix them down to 1 first"):
        Pipeline.of(ResampleStage(channels=2)).run([Audio(bytes(12), 16_000, 6)])


def test_laws() -> None:
    """It keeps the laws of a stage."""
    check_stage(lambda: ResampleStage(sample_rate=16_000), pieces(tone(0.1, 8_000), 8_000, [160]))


# ------------------------------------------------------------------------------------------ graphs


class Ear(Stage):
    """Takes 16 kHz mono only."""

    accepts = (Audio,)

    def audio_in(self) -> AudioSpec:
        return AudioSpec(16_000, 1)

    def apply(self, element: StreamElement) -> StreamElement:
        assert element.audio is not None
        assert (element.audio.sample_rate, element.audio.channels) == (16_000, 1)
        return element


def test_a_clash_is_found_when_the_graph_is_built() -> None:
    """Where the form is known on both sides, `build` tells of it, through stages that do not touch it."""
    words = MapStage("words", str.upper, on=Text, emits=Text)
    chain = ResampleStage(sample_rate=48_000, channels=2), words, PassthroughStage("p"), Ear()
    with pytest.raises(
        GraphError, match="takes sound of 16000 Hz mono, but what comes to it is 48000 Hz stereo"
    ) as caught:
        PipelineBuilder().chain(*chain).build()
    assert [problem.kind for problem in caught.value.problems] == [ProblemKind.AUDIO_FORMAT]
    assert [problem.stages for problem in caught.value.problems] == [("ear",)]
    PipelineBuilder().chain(PassthroughStage("p"), Ear()).build()  # nothing is known, so nothing is wrong


def test_auto_resample_inserts_the_stage() -> None:
    """With `auto_resample=True` whatever comes is made to fit; what is known to fit gets nothing before it."""
    config = PipelineConfig(auto_resample=True)
    pipeline = PipelineBuilder(config).chain(ResampleStage("up", sample_rate=48_000), Ear()).build()
    assert pipeline.graph.nodes == ("up", "ear.resample", "ear")
    result = pipeline.run(pieces(tone(0.5, 8_000, channels=1), 8_000, [160]))
    assert abs(len(sound(result.elements)) - 8000) <= 2
    assert PipelineBuilder(config).chain(ResampleStage("ok"), Ear()).build().graph.nodes == ("ok", "ear")
    unknown = PipelineBuilder(config).branch(PassthroughStage("in"), Ear("a"), Ear("b")).build()
    assert unknown.graph.nodes == ("in", "a.resample", "a", "b.resample", "b")
    assert len(unknown.run([Audio(bytes(960), 48_000)]).contents) == 2
