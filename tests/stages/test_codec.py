"""Sound encoded and decoded: round trips through every codec, in odd pieces, over turns, and through hostile bytes."""

from __future__ import annotations

import io
import math
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from forms import FORMS, Form
from voices import said

from rxstage import (
    Audio,
    AudioFormat,
    Event,
    GraphError,
    MapStage,
    Pipeline,
    PipelineBuilder,
    PipelineConfig,
    StageError,
    StreamElement,
    wire,
)
from rxstage.stages.codec import DecodeStage, EncodeStage
from rxstage.stages.resample import ResampleStage
from rxstage.testing import assert_no_leaks, check_stage, run_virtual
from rxstage.voice.coding import CODINGS
from rxstage.voice.decoder import DecodeError
from rxstage.voice.encoded import EncodedAudio
from rxstage.voice.pcm import audio_of, samples_of

Samples = np.ndarray[Any, Any]
FLOAT = AudioFormat.FLOAT32
SAMPLES = ("pcm16", "pcm32", "float32", "mulaw")
CODECS = ("opus", "ogg", "webm", "mp3", "aac", "flac", "wav")
needs_av = pytest.mark.needs("module:av", "module:soxr")

# What is lost: least signal to noise ratio [dB], frames at the rate of the codec by which the sound is later, and
# frames by which it is longer at most.
EXACT = {"pcm16": 90.0, "pcm32": 140.0, "float32": 140.0, "mulaw": 35.0, "flac": 90.0, "wav": 90.0}
LOSSY = {
    "opus": (25.0, 0, 960),
    "ogg": (25.0, 0, 0),
    "webm": (25.0, 0, 0),
    "mp3": (25.0, 1105, 2304),
    "aac": (18.0, 1024, 2048),
}


def chirp(seconds: float, rate: int, channels: int = 1) -> Samples:
    """A tone that rises, so that it fits in one place only; another one in the second channel."""
    times = np.arange(round(seconds * rate)) / rate
    both = [
        0.5 * np.sin(2 * np.pi * (200 + 600 * (1 - 2 * number) * times / seconds / 2 + 700 * number) * times)
        for number in range(channels)
    ]
    return np.stack(both, axis=1).astype(np.float32)


def pieces(
    samples: Samples, rate: int, sizes: Sequence[int] = (333, 1, 1000, 320, 17), format: AudioFormat = FLOAT
) -> Iterator[Audio]:
    at = number = 0
    while at < len(samples):
        size = sizes[number % len(sizes)]
        yield audio_of(samples[at : at + size], rate, format)
        at, number = at + size, number + 1


def sound(elements: Iterable[StreamElement]) -> Samples:
    return np.concatenate([samples_of(element.audio) for element in elements if element.audio is not None])


def encoded(codec: Any, source: Iterable[Any], **options: Any) -> list[EncodedAudio]:
    elements = Pipeline.of(EncodeStage(codec=codec, **options)).run(source).elements
    return [element.data for element in elements if element.data is not None]


def decoded(source: Iterable[Any], **options: Any) -> tuple[StreamElement, ...]:
    return (
        Pipeline.of(DecodeStage(format=FLOAT, **options))
        .run([item if isinstance(item, StreamElement) else StreamElement.of(item) for item in source])
        .elements
    )


def ratio(wanted: Samples, got: Samples) -> float:
    """Signal to noise ratio [dB], where the level may have changed by a constant."""
    gain = float(np.sum(wanted * got) / np.sum(got * got))
    rest = float(np.mean(np.square(wanted - gain * got, dtype=np.float64)))
    return 10 * math.log10(float(np.mean(np.square(wanted, dtype=np.float64))) / max(rest, 1e-20))


def stream(codec: Any, seconds: float = 1.0) -> tuple[bytes, str]:
    """A second of mono sound at 16 kHz, and its type."""
    made = encoded(codec, pieces(chirp(seconds, 16_000), 16_000))
    return b"".join(piece.data for piece in made), made[0].mime_type


def cut(data: bytes, mime_type: str, size: int) -> list[EncodedAudio]:
    return [EncodedAudio(data[at : at + size], mime_type, 16_000, 1) for at in range(0, len(data), size)]


# ------------------------------------------------------------------------------------------ round trips


@needs_av
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("codec", [*SAMPLES, *CODECS])
def test_round_trip(codec: Any, rate: int, channels: int) -> None:
    """The sound comes back: as long as it was or longer by what the codec adds, each channel in its place."""
    import soxr

    source = chirp(1.0, rate, channels)
    elements = Pipeline.of(EncodeStage(codec=codec), DecodeStage(format=FLOAT)).run(pieces(source, rate)).elements
    (form,) = {(each.audio.sample_rate, each.audio.channels) for each in elements if each.audio}
    least, later, longer = LOSSY.get(codec, (EXACT.get(codec, 0.0), 0, 0))
    result = sound(elements)
    assert form == (48_000 if codec in ("opus", "ogg", "webm") else rate, channels)
    assert 0 <= len(result) - round(form[0] * len(source) / rate) <= longer
    back = np.asarray(soxr.resample(result[later:], form[0], rate)).reshape(-1, channels)[: len(source)]
    middle = slice(rate // 10, -rate // 10)
    for channel in range(channels):
        assert ratio(source[middle, channel], back[middle, channel]) > least, f"channel {channel}"


@needs_av
@pytest.mark.needs("espeak-ng")
@pytest.mark.parametrize(
    ("codec", "least"), [("ogg", 8.0), ("mp3", 12.0), ("aac", 12.0), ("mulaw", 30.0), ("flac", 60.0)]
)
def test_speech_is_still_the_same(codec: Any, least: float) -> None:
    """A spoken sentence comes back like itself, not only in its loudest tones."""
    import soxr

    spoken = said("Five quick brown foxes jump over seven lazy dogs.")[:, None]
    elements = (
        Pipeline.of(EncodeStage(codec=codec), DecodeStage(format=FLOAT)).run(pieces(spoken, 16_000, [320])).elements
    )
    result, rate = sound(elements), next(each.audio.sample_rate for each in elements if each.audio)
    _, later, _ = LOSSY.get(codec, (0.0, 0, 0))
    back = np.asarray(soxr.resample(result[later:], rate, 16_000)).reshape(-1, 1)[: len(spoken)]
    assert len(back) == len(spoken)
    assert ratio(spoken, back) > least


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@needs_av
def test_it_works_in_every_form(form: Form) -> None:
    """However a pipeline is run, the same comes out."""
    elements, error = form(
        Pipeline.of(EncodeStage(codec="ogg"), DecodeStage(format=FLOAT)), list(pieces(chirp(0.2, 16_000), 16_000))
    )
    assert error is None
    assert len(sound(elements)) == 9600


@needs_av
@pytest.mark.parametrize("codec", [*SAMPLES, *(codec for codec in CODECS if codec != "opus")])
@pytest.mark.parametrize("size", [1, 7, 100, 10_000_000])
def test_bytes_may_be_cut_anywhere(codec: Any, size: int) -> None:
    """However a transport has cut the bytes, the same sound is in them."""
    data, mime_type = stream(codec, 0.3)
    once = sound(decoded(cut(data, mime_type, 500)))
    assert np.array_equal(sound(decoded(cut(data, mime_type, size))), once)


@needs_av
@pytest.mark.parametrize(
    ("codec", "behind"), [("opus", 0.05), ("ogg", 0.1), ("webm", 0.3), ("mp3", 0.2), ("aac", 0.3), ("mulaw", 0.0)]
)
def test_it_streams(codec: Any, behind: float) -> None:
    """Sound comes out while more goes in: what has not come yet is never longer than the codec's frames make it."""

    async def main() -> float:
        given = got = most = 0.0

        def source() -> Iterator[Audio]:
            nonlocal given
            for audio in pieces(chirp(2.0, 16_000), 16_000, [320]):
                given += audio.duration
                yield audio

        pipeline = Pipeline.of(EncodeStage(codec=codec), DecodeStage(), config=PipelineConfig(buffer_size=1))
        async for element in pipeline.execute(source()):
            assert element.audio is not None
            got += element.audio.duration
            most = max(most, given - got)
        return most

    assert run_virtual(main) <= behind + 0.12  # what lies in the buffers between the stages


@needs_av
def test_what_it_says_about_the_bytes() -> None:
    """Each piece has type, rate and channels, the seconds in it add up, and the first one begins the stream."""
    codec: Any
    for codec in CODINGS:
        made = encoded(codec, pieces(chirp(0.5, 16_000, 2), 16_000, [320]))
        assert {(piece.mime_type, piece.sample_rate, piece.channels) for piece in made} == {
            (CODINGS[codec].mime_type, 16_000, 2)
        }
        assert sum(piece.duration for piece in made) == pytest.approx(0.5)
        assert [piece.begins for piece in made] == [True] + [False] * (len(made) - 1)
        assert wire.from_json(wire.to_json(StreamElement.of(made[0]))).data == made[0]


@needs_av
def test_a_rate_that_the_codec_has_not() -> None:
    """It is resampled inside, to the next higher rate that there is, or to the one that is wanted."""
    cases = {("ogg", 22_050): 24_000, ("ogg", 44_100): 48_000, ("mp3", 96_000): 48_000, ("aac", 12_345): 16_000}
    for (codec, rate), wanted in cases.items():
        assert encoded(codec, pieces(chirp(0.1, rate), rate))[0].sample_rate == wanted
    assert encoded("mp3", pieces(chirp(0.1, 16_000), 16_000), sample_rate=44_100)[0].sample_rate == 44_100


@needs_av
def test_bit_rate_and_options_reach_the_codec() -> None:
    """Fewer bits are fewer bytes, and an option of FFmpeg's makes a difference."""
    source = list(pieces(chirp(2.0, 48_000), 48_000))
    sizes = [
        sum(len(piece.data) for piece in encoded("ogg", source, bit_rate=rate, options={"vbr": "off"}))
        for rate in (16_000, 64_000)
    ]
    assert sizes[1] > 2.5 * sizes[0]
    assert 13_000 < sizes[1] < 20_000  # two seconds of 64 kbit/s, with the container's share


# ------------------------------------------------------------------------------------------ turns


@needs_av
@pytest.mark.parametrize("codec", [*SAMPLES, *CODECS])
def test_each_turn_is_a_stream(codec: Any) -> None:
    """All of a turn comes before its end, in both directions, and the next turn begins anew."""
    turn = [*pieces(chirp(0.3, 16_000), 16_000), StreamElement.end_of_turn()]
    elements = Pipeline.of(EncodeStage(codec=codec), DecodeStage(format=FLOAT)).run([*turn, "between", *turn]).elements
    ends = [index for index, element in enumerate(elements) if element.is_control]
    first, second = sound(elements[: ends[0]]), sound(elements[ends[0] : ends[1]])
    assert elements[ends[0] + 1].text == "between"
    assert ends[1] == len(elements) - 1
    assert np.array_equal(first, second)
    assert len(first) >= 4800


@needs_av
@pytest.mark.parametrize("codec", [*SAMPLES, *CODECS])
def test_an_interrupt_takes_away_what_has_not_come_out(codec: Any) -> None:
    """Nothing of the interrupted turn is heard in the next one, which is whole."""
    loud = list(pieces(chirp(0.25, 16_000), 16_000))
    quiet = [Audio(bytes(640), 16_000)] * 20
    elements = (
        Pipeline.of(EncodeStage(codec=codec), DecodeStage(format=FLOAT))
        .run([*loud, StreamElement.interrupt(), *quiet])
        .elements
    )
    after = sound(elements[[element.is_control for element in elements].index(True) :])
    assert np.abs(after).max() < 1e-3
    rate = 48_000 if codec in ("opus", "ogg", "webm") else 16_000
    assert 0.4 * rate <= len(after) <= 0.4 * rate + 2304


@needs_av
def test_another_form_is_another_stream() -> None:
    """Where rate or channels change, one stream of bytes ends and another one begins; both are heard whole."""
    source = [*pieces(chirp(0.2, 16_000), 16_000), *pieces(chirp(0.2, 48_000, 2), 48_000)]
    codec: Any
    for codec in CODINGS:
        begins = [piece for piece in encoded(codec, source) if piece.begins]
        assert [(piece.sample_rate, piece.channels) for piece in begins] == [(16_000, 1), (48_000, 2)]
        elements = Pipeline.of(EncodeStage(codec=codec), DecodeStage()).run(source).elements
        lengths = dict.fromkeys((1, 2), 0.0)
        for element in elements:
            assert element.audio is not None
            lengths[element.audio.channels] += element.audio.duration
        assert [lengths[1], lengths[2]] == pytest.approx([0.2, 0.2], abs=0.16)
        assert min(lengths.values()) > 0.1999


@needs_av
def test_another_type_is_another_stream() -> None:
    """Without any mark, pieces of another type begin another stream."""
    ogg, mp3 = stream("ogg", 0.2), stream("mp3", 0.2)
    result = sound(decoded([*cut(*ogg, 100), *cut(*mp3, 100), *cut(*ogg, 100)]))
    assert len(result) >= 9600 + 3200 + 9600


def test_metadata_and_other_content() -> None:
    """What is not of its kind passes by in its place; what it makes has the metadata of what it was made of."""
    source = ["before", StreamElement.of(Audio(bytes(320), 16_000), metadata={"call": 7}), StreamElement.of({"n": 1})]
    elements = Pipeline.of(EncodeStage(codec="mulaw"), DecodeStage()).run(source).elements
    assert [each.audio.frames if each.audio else each.text or each.data for each in elements] == [
        "before",
        160,
        {"n": 1},
    ]
    assert elements[1].metadata == {"call": 7}


# ------------------------------------------------------------------------------------------ what cannot be


@needs_av
@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != "opus"])
@pytest.mark.parametrize(
    "junk", [b"<html>404 not found</html>" * 100, bytes(5000), bytes(range(256)) * 20], ids=["html", "zeros", "bytes"]
)
def test_what_is_no_sound(codec: Any, junk: bytes) -> None:
    """Bytes that are something else end in an error that names the type and the remedy, and leave no thread."""
    mime_type = CODINGS[codec].mime_type
    with assert_no_leaks():
        with pytest.raises(
            StageError, match=f"{mime_type.split(';')[0]}.*send the whole of it, with the mime_type that it has"
        ):
            decoded(cut(junk, mime_type, 700))


@needs_av
@pytest.mark.parametrize("codec", ["pcm16", "ogg", "mp3", "aac", "flac"])
def test_what_is_cut_off(codec: Any) -> None:
    """A stream that ends in the middle of a frame gives the sound before that, then the error."""
    data, mime_type = stream(codec)
    result = Pipeline.of(DecodeStage()).run(cut(data[: len(data) // 2 + 3], mime_type, 100), raise_on_error=False)
    assert 0.3 < sum(each.audio.duration for each in result.elements if each.audio) < 0.7
    assert isinstance(result.error, StageError)
    assert isinstance(result.error.__cause__, DecodeError)
    assert "is broken after 0." in str(result.error)


@needs_av
@pytest.mark.parametrize("codec", ["mp3", "aac"])
def test_what_is_damaged(codec: Any) -> None:
    """Damage in the middle is an error where the codec sees it, with the seconds that were heard."""
    data, mime_type = stream(codec)
    middle = len(data) // 2
    with pytest.raises(StageError, match=r"is broken after 0\.[456]\d s of sound"):
        decoded(cut(data[:middle] + b"\xaa" * 300 + data[middle + 300 :], mime_type, 100))


@needs_av
def test_packets_that_are_none() -> None:
    """Junk in the place of an Opus packet is an error; an empty one is nothing."""
    assert decoded([EncodedAudio(b"", "audio/opus", 48_000, 1)]) == ()
    with pytest.raises(StageError, match="audio/opus' is broken"):
        decoded([EncodedAudio(b"\xff" * 40, "audio/opus", 48_000, 1)])
    with pytest.raises(StageError, match="bare packets of Opus have one channel or two, got 6; send it as audio/ogg"):
        decoded([EncodedAudio(b"\xff" * 40, "audio/opus", 48_000, 6)])


@needs_av
def test_a_stream_without_sound_is_not_endless() -> None:
    """Megabytes in which no frame is found are given up, not kept."""
    with pytest.raises(StageError, match="there is no sound in 8454144 bytes of 'audio/mpeg'"):
        decoded(EncodedAudio(bytes(65_536), "audio/mpeg") for _ in range(200))


@pytest.mark.parametrize("policy", ["emit", "skip"])
@needs_av
def test_a_broken_turn_need_not_end_the_call(policy: Any) -> None:
    """With `"emit"` a `Failure` stands for the rest of the stream, with `"skip"` an event tells; the next is heard."""
    good, mime_type = stream("mp3", 0.3)
    broken = [*cut(b"<html>404 not found</html>" * 50, mime_type, 100), *cut(good, mime_type, 100)]
    source = [*broken, StreamElement.end_of_turn(), *cut(good, mime_type, 100), StreamElement.end_of_turn()]

    async def main() -> tuple[list[StreamElement], list[Event]]:
        pipeline = Pipeline.of(DecodeStage("ears", on_error=policy))
        events: list[Event] = []
        pipeline.events.subscribe(lambda event: events.append(event) if event.type == "audio.decode.failed" else None)
        return list((await pipeline.execute(source)).elements), events

    elements, events = run_virtual(main)
    shown = ["sound" if each.audio else type(each.content).__name__ for each in elements]
    shown = [name for index, name in enumerate(shown) if name != "sound" or shown[index - 1] != "sound"]
    assert shown == [*(["Failure"] if policy == "emit" else []), "EndOfTurn", "sound", "EndOfTurn"]
    assert [event.stage for event in events] == ["ears"]
    assert "audio/mpeg" in events[0].data["error"]


@pytest.mark.parametrize("mime_type", ["audio/x-unheard-of", "text/html; charset=utf-8", "", "audio/pcm; format=pcm99"])
def test_a_type_that_is_unknown(mime_type: str) -> None:
    """The error names the types that are known."""
    with pytest.raises(StageError, match="cannot be decoded; known are audio/pcm, audio/pcmu"):
        decoded([EncodedAudio(b"abc", mime_type)])


def test_bare_samples_have_to_say_their_rate() -> None:
    """The rate comes from the piece or its type, else the error says what to do; that of telephony is 8 kHz."""
    with pytest.raises(
        StageError, match=r"the rate of 'audio/pcm' is not known; say it: EncodedAudio\(..., sample_rate"
    ):
        decoded([EncodedAudio(bytes(320), "audio/pcm")])
    for mime_type, form in {
        "audio/pcm;rate=24000": (24_000, 1),
        "Audio/PCM; Rate=24000; channels=2": (24_000, 2),
        "audio/pcmu": (8_000, 1),
    }.items():
        (element,) = decoded([EncodedAudio(bytes(320), mime_type)])
        assert element.audio is not None
        assert (element.audio.sample_rate, element.audio.channels) == form


@needs_av
@pytest.mark.parametrize(
    ("codec", "channels", "options"),
    [("mp3", 6, {}), ("ogg", 9, {}), ("ogg", 1, {"options": {"application": "loud"}}), ("aac", 1, {"sample_rate": 17})],
)
def test_what_a_codec_cannot_take(codec: Any, channels: int, options: dict[str, Any]) -> None:
    """Sound or options that a codec refuses end in an error that names both and a remedy."""
    with pytest.raises(StageError, match=f"{codec} cannot .*put .*ResampleStage"):
        encoded(codec, [Audio(bytes(640 * channels), 16_000, channels)], **options)


def test_bare_samples_are_not_resampled() -> None:
    """A rate that is wanted of bare samples has to come: found at build, or inserted, or an error at the first."""
    stage = EncodeStage(codec="pcm16", sample_rate=24_000)
    with pytest.raises(GraphError, match="takes sound of 24000 Hz, but what comes to it is 16000 Hz mono pcm16"):
        PipelineBuilder().chain(ResampleStage(), stage).build()
    with pytest.raises(StageError, match="pcm16 at 24000 Hz cannot be made of sound of 16000 Hz; put a ResampleStage"):
        Pipeline.of(stage).run([Audio(bytes(640), 16_000)])
    pipeline = PipelineBuilder(PipelineConfig(auto_resample=True)).chain(stage).build()
    assert sum(len(each.data.data) for each in pipeline.run([Audio(bytes(3200), 16_000)]).elements) == 4800


def test_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bare samples need nothing; a codec names the extra."""
    monkeypatch.setitem(sys.modules, "av", None)
    source = [Audio(bytes(640), 16_000)]
    assert sound(Pipeline.of(EncodeStage(codec="float32"), DecodeStage()).run(source).elements).shape == (320, 1)
    for stage, value in ((EncodeStage(codec="ogg"), source[0]), (DecodeStage(), EncodedAudio(b"x", "audio/mpeg"))):
        with pytest.raises(StageError, match=r"this needs the package 'av': pip install 'rxstage\[codecs\]'"):
            Pipeline.of(stage).run([value])


# ------------------------------------------------------------------------------------------ what others send


@needs_av
def test_a_tag_before_mp3_is_no_sound() -> None:
    """An ID3 tag of any size is passed over, wherever it is cut; what is in it is never decoded."""
    data, mime_type = stream("mp3", 0.3)
    tag = b"ID3\x04\0\0\0\0\x10\0" + b"\xff\xfb\x90\0" * 512
    plain = sound(decoded(cut(data, mime_type, 100)))
    for size in (1, 5, 100, 100_000):
        assert np.array_equal(sound(decoded(cut(tag + data, mime_type, size))), plain)


@needs_av
@pytest.mark.parametrize("mime_type", ["audio/mp4", "audio/webm", "audio/wav", "audio/flac", "application/ogg"])
def test_files_of_others(mime_type: str) -> None:
    """Whole files that somebody else has written are decoded, with their own rate."""
    import av

    kinds = {
        "audio/mp4": ("mp4", "aac"),
        "audio/webm": ("webm", "libopus"),
        "audio/wav": ("wav", "pcm_s16le"),
        "audio/flac": ("flac", "flac"),
        "application/ogg": ("ogg", "libopus"),
    }
    container, codec = kinds[mime_type]
    file = io.BytesIO()
    options = {"movflags": "frag_keyframe+empty_moov"} if container == "mp4" else {}
    output: Any
    with av.open(file, "w", format=container, container_options=options) as output:
        stream = output.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame("s16", "mono", 48_000)
        frame.sample_rate, frame.pts = 48_000, 0
        frame.planes[0].update((chirp(1.0, 48_000) * 32767).astype("<i2").tobytes())
        resampler = av.AudioResampler(
            stream.codec_context.format, "mono", 48_000, stream.codec_context.frame_size or None
        )
        for each in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(each))
        output.mux(stream.encode(None))
    elements = decoded(
        [EncodedAudio(file.getvalue()[at : at + 997], mime_type) for at in range(0, len(file.getvalue()), 997)]
    )
    assert {each.audio.sample_rate for each in elements if each.audio} == {48_000}
    assert 48_000 <= len(sound(elements)) <= 50_048


@needs_av
def test_no_more_is_decoded_than_is_asked_for() -> None:
    """Ten minutes of silence in a few bytes is decoded frame by frame: whoever stops early has paid for little."""
    second = Audio(bytes(2 * 48_000), 48_000)
    data = b"".join(piece.data for piece in encoded("flac", [second] * 600))
    assert len(data) < 300_000  # of 57 MB of samples

    async def main() -> int:
        async with assert_no_leaks():
            count = 0
            async with Pipeline.of(DecodeStage(), config=PipelineConfig(buffer_size=2)).execute(
                [EncodedAudio(data, "audio/ogg")]
            ) as execution:
                async for _ in execution:
                    count += 1
                    if count == 3:
                        break
            assert execution.metrics().stages["decode_stage"].emitted < 10
            return count

    assert run_virtual(main) == 3


@needs_av
def test_the_thread_of_a_container_ends_with_its_execution() -> None:
    """A cancelled execution, one that fails elsewhere, and one that is interrupted leave no thread behind."""
    data, mime_type = stream("webm", 0.5)

    def fail(element: StreamElement) -> StreamElement:
        raise ValueError("elsewhere")

    with assert_no_leaks():
        with pytest.raises(StageError, match="elsewhere"):
            PipelineBuilder().chain(DecodeStage(), MapStage("fail", fail)).build().run(cut(data, mime_type, 100))
        decoded([*cut(data, mime_type, 100)[:9], StreamElement.interrupt(), *cut(data, mime_type, 100)])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rxstage: demuxer")]


# ------------------------------------------------------------------------------------------ laws


@needs_av
@pytest.mark.parametrize("codec", list(CODINGS))
def test_laws(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both keep the laws of a stage, with every codec."""
    container = CODINGS[codec].container
    if container:  # streams have random numbers, by which they can stand one behind the other in a file
        monkeypatch.setitem(CODINGS[codec].options, "fflags", "bitexact")
    source = list(pieces(chirp(0.15, 16_000), 16_000, [320]))
    check_stage(lambda: EncodeStage(codec=codec), source)
    skip = {"controls": "the end of a turn ends a stream of bytes, so none can stand in the middle of one"}
    check_stage(DecodeStage, encoded(codec, source), skip=skip if container in ("ogg", "webm", "wav") else None)
