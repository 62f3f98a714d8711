"""Pieces of one length, whatever comes in."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from voices import said, tone

from rxstage import Audio, AudioFormat, GraphError, Pipeline, PipelineBuilder, PipelineConfig, StreamElement
from rxstage.audiospec import AudioSpec
from rxstage.stages.framing import FrameStage
from rxstage.stages.resample import ResampleStage
from rxstage.testing import check_stage, run_virtual
from rxstage.voice.pcm import audio_of


def cut(samples: np.ndarray[Any, Any], sizes: list[int], rate: int = 16_000, **form: Any) -> Iterator[Audio]:
    """Mono samples in pieces of those sizes, over and over."""
    at = number = 0
    while at < len(samples):
        size = sizes[number % len(sizes)]
        yield audio_of(samples[at : at + size, None], rate, **form)
        at, number = at + size, number + 1


def sounds(elements: Any) -> list[Audio]:
    return [element.audio for element in elements if element.audio is not None]


@pytest.mark.parametrize("sizes", [[1], [319], [320], [321], [1000, 7, 320, 640], [16_000]])
@pytest.mark.parametrize("format", list(AudioFormat))
def test_every_piece_has_the_length(sizes: list[int], format: AudioFormat) -> None:
    """Whatever comes in, what goes out are the same bytes in pieces of 320 frames, and a shorter one at the end."""
    source = list(cut(tone(0.3)[:4700], sizes, format=format))
    pieces = sounds(Pipeline.of(FrameStage()).run(source).elements)
    assert [piece.frames for piece in pieces] == [320] * 14 + [220]
    assert b"".join(piece.samples for piece in pieces) == b"".join(piece.samples for piece in source)
    assert {piece.format for piece in pieces} == {format}


@pytest.mark.needs("espeak-ng")
def test_speech_is_the_same_speech() -> None:
    """Not a sample of a spoken sentence is lost or moved."""
    source = list(cut(said("The quick brown fox jumps over the lazy dog."), [333, 1024, 5]))
    pieces = sounds(Pipeline.of(FrameStage(duration=0.01)).run(source).elements)
    assert {piece.frames for piece in pieces[:-1]} == {160}
    assert b"".join(piece.samples for piece in pieces) == b"".join(piece.samples for piece in source)


def test_a_piece_that_fits_goes_on_as_it_is() -> None:
    """Neither the element nor its sound is copied where it has the length already."""
    element = StreamElement.of(Audio(bytes(640), 16_000), source="mic")
    result = Pipeline.of(FrameStage()).run([element, element])
    assert [each.audio is element.audio for each in result.elements] == [True, True]
    assert result.elements[0].source == "mic"


def test_the_rest_comes_before_the_end_of_the_turn() -> None:
    """Each turn ends with what is left of it, short or filled up with silence of the format."""
    turn = [Audio(b"\1\0" * 400, 16_000), StreamElement.end_of_turn()]
    short = Pipeline.of(FrameStage()).run([*turn, *turn]).elements
    assert [each.audio.frames if each.audio else "end" for each in short] == [320, 80, "end"] * 2
    padded = sounds(Pipeline.of(FrameStage(pad=True)).run(turn).elements)
    assert [piece.frames for piece in padded] == [320, 320]
    assert padded[1].samples == b"\1\0" * 80 + bytes(480)
    quiet = sounds(Pipeline.of(FrameStage(pad=True)).run([Audio(b"\x80" * 400, 16_000, 1, AudioFormat.MULAW)]).elements)
    assert quiet[1].samples == b"\x80" * 80 + b"\xff" * 240


def test_an_interrupt_takes_the_rest_away() -> None:
    """What is left of the interrupted turn does not come, and the next one begins anew."""
    source = [Audio(bytes(500), 16_000), StreamElement.interrupt(), Audio(b"\1\0" * 330, 16_000)]
    elements = Pipeline.of(FrameStage()).run(source).elements
    after = sounds(elements[[element.is_control for element in elements].index(True) :])
    assert [piece.samples for piece in after] == [b"\1\0" * 320, b"\1\0" * 10]


def test_another_form_begins_anew() -> None:
    """Sound of another rate or number of channels is not put behind what is left."""
    source = [Audio(bytes(700), 16_000), Audio(bytes(4 * 1000), 48_000, 2), Audio(bytes(4), 16_000)]
    pieces = sounds(Pipeline.of(FrameStage()).run(source).elements)
    assert [(piece.frames, piece.sample_rate, piece.channels) for piece in pieces] == [
        (320, 16_000, 1),
        (30, 16_000, 1),
        (960, 48_000, 2),
        (40, 48_000, 2),
        (2, 16_000, 1),
    ]


def test_channels_stay_apart() -> None:
    """Interleaved channels are cut between frames, never within one."""
    left_right = np.stack([np.arange(1000), -np.arange(1000)], axis=1).astype("<i2")
    source = [Audio(left_right[at : at + 77].tobytes(), 16_000, 2) for at in range(0, 1000, 77)]
    pieces = sounds(Pipeline.of(FrameStage()).run(source).elements)
    assert [piece.frames for piece in pieces] == [320, 320, 320, 40]
    assert np.array_equal(np.concatenate([piece.numpy() for piece in pieces]), left_right)


def test_a_length_that_is_no_whole_number_of_frames_is_rounded() -> None:
    """20 ms at 11,025 Hz are 220.5 frames: all pieces have 220."""
    pieces = sounds(Pipeline.of(FrameStage()).run([Audio(bytes(2 * 2205), 11_025)]).elements)
    assert [piece.frames for piece in pieces] == [220] * 10 + [5]


def test_other_content_passes_in_its_place() -> None:
    """Text goes on at once, between the pieces that were complete before and after it."""
    source = [Audio(bytes(700), 16_000), "text", Audio(bytes(700), 16_000)]
    elements = Pipeline.of(FrameStage()).run(source).elements
    assert [each.audio.frames if each.audio else each.text for each in elements] == [320, "text", 320, 60]


def test_metadata_is_that_of_the_piece_that_completes() -> None:
    """The envelope of a piece is the one of the element that it was completed by."""
    source = [StreamElement.of(Audio(bytes(400), 16_000), metadata={"n": n}) for n in range(4)]
    assert [each.metadata["n"] for each in Pipeline.of(FrameStage()).run(source).elements] == [1, 3, 3]


def test_it_holds_less_than_a_piece() -> None:
    """Of 20,000 empty and tiny pieces nothing is kept but their samples; memory does not grow."""

    async def main() -> int:
        def source() -> Iterator[Audio]:
            for number in range(20_000):
                yield Audio(b"" if number % 2 else b"\0\0", 16_000)

        count = 0
        async for _ in Pipeline.of(FrameStage(duration=0.3)).execute(source()):
            count += 1
        return count

    tracemalloc.start()
    try:
        assert run_virtual(main) == 3
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


class Ear(FrameStage):
    """Takes 16 kHz mono only."""

    def audio_in(self) -> AudioSpec:
        return AudioSpec(16_000, 1)


def test_the_form_is_known_behind_it() -> None:
    """What a `ResampleStage` before it makes is known behind it: nothing has to be inserted, and a clash is found."""
    config = PipelineConfig(auto_resample=True)
    pipeline = PipelineBuilder(config).chain(ResampleStage("a"), FrameStage(), Ear("ear")).build()
    assert pipeline.graph.nodes == ("a", "frame_stage", "ear")
    with pytest.raises(GraphError, match="takes sound of 16000 Hz mono, but what comes to it is 8000 Hz mono"):
        PipelineBuilder().chain(ResampleStage("a", sample_rate=8000), FrameStage(), Ear("ear")).build()


def test_laws() -> None:
    """It keeps the laws of a stage."""
    check_stage(FrameStage, list(cut(tone(0.1), [500])))
    check_stage(lambda: FrameStage(duration=0.03, pad=True), list(cut(tone(0.1), [320])))
