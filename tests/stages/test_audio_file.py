"""Sound from files and into files, whole however an execution ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forms import FORMS, Form

from rxstage import (
    Audio,
    AudioFormat,
    GenerateStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    StageError,
    StreamElement,
)
from rxstage.stages.audio_file import AudioFileSink, AudioFileSource, audio_file
from rxstage.testing import assert_no_leaks, check_stage, run_virtual
from rxstage.voice.files import AudioFileError
from rxstage.voice.pcm import audio_of, samples_of

Samples = np.ndarray[Any, Any]
needs_soundfile = pytest.mark.needs("module:soundfile")


def sine(seconds: float, rate: int = 16_000, channels: int = 1) -> Samples:
    times = np.arange(round(seconds * rate)) / rate
    return np.stack(
        [0.5 * np.sin(2 * np.pi * 300 * (number + 1) * times) for number in range(channels)], axis=1
    ).astype(np.float32)


def pieces(
    samples: Samples, rate: int = 16_000, size: int = 333, format: AudioFormat = AudioFormat.PCM16
) -> list[Audio]:
    return [audio_of(samples[at : at + size], rate, format) for at in range(0, len(samples), size)]


def wav(path: Path, samples: Samples, rate: int = 16_000) -> Path:
    """A WAV file of 16 bits, made without anything of ours."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return path


def read(path: Path) -> tuple[int, int, int, bytes]:
    """Rate, channels, width and samples of a WAV file, without anything of ours."""
    with wave.open(str(path), "rb") as file:
        return file.getframerate(), file.getnchannels(), file.getsampwidth(), file.readframes(file.getnframes())


@pytest.fixture(params=["soundfile", "without"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With soundfile and without it."""
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "soundfile", None)
    else:
        pytest.importorskip("soundfile")


# ------------------------------------------------------------------------------------------ reading


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2)])
def test_a_wav_file_comes_in_frames(tmp_path: Path, rate: int, channels: int) -> None:
    """The samples are those of the file, in pieces of 20 ms and a shorter one."""
    path = wav(tmp_path / "a.wav", sine(0.51, rate, channels), rate)
    audios = list(audio_file(path))
    assert [audio.frames for audio in audios[:-1]] == [round(rate * 0.02)] * 25
    assert {(audio.sample_rate, audio.channels, audio.format) for audio in audios} == {(rate, channels, "pcm16")}
    assert b"".join(audio.samples for audio in audios) == read(path)[3]


@needs_soundfile
@pytest.mark.parametrize(
    ("name", "subtype", "format", "worst"),
    [
        ("a.wav", "PCM_24", "pcm32", 1e-6),
        ("a.wav", "PCM_U8", "pcm16", 1e-2),
        ("a.wav", "FLOAT", "float32", 1e-7),
        ("a.wav", "ULAW", "pcm16", 2e-2),
        ("a.flac", "PCM_24", "pcm32", 1e-6),
        ("a.flac", "PCM_16", "pcm16", 1e-4),
        ("a.ogg", "VORBIS", "pcm16", 5e-2),
        ("a.mp3", "MPEG_LAYER_III", "pcm16", 5e-2),
    ],
)
def test_other_files(tmp_path: Path, name: str, subtype: str, format: str, worst: float) -> None:
    """What soundfile reads comes in the format that loses nothing of it."""
    import soundfile

    source = sine(0.5, 16_000)
    soundfile.write(tmp_path / name, source, 16_000, subtype)
    audios = list(audio_file(tmp_path / name, frame=0.1))
    result = np.concatenate([samples_of(audio) for audio in audios])
    assert {audio.format for audio in audios} == {format}
    assert len(result) == 8_000
    assert np.abs(result - source)[1600:-1600].max() < worst


@pytest.mark.needs("espeak-ng")
@pytest.mark.usefixtures("either")
def test_speech_from_a_program(tmp_path: Path) -> None:
    """The file that a speech synthesizer writes is read as it is."""
    path = tmp_path / "said.wav"
    subprocess.run(["espeak-ng", "-w", str(path), "This is a test."], check=True, timeout=60)
    rate, channels, _, samples = read(path)
    audios = list(audio_file(path))
    assert b"".join(audio.samples for audio in audios) == samples
    assert (audios[0].sample_rate, audios[0].channels) == (rate, channels)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_it_is_the_source_of_an_execution(form: Form, tmp_path: Path) -> None:
    """`pipeline.execute(audio_file(...))`, in every form."""
    path = wav(tmp_path / "a.wav", sine(0.1))
    elements, error = form(Pipeline.of(PassthroughStage("p")), audio_file(path))
    assert error is None
    assert [element.audio.frames for element in elements if element.audio] == [320] * 5


@pytest.mark.parametrize("blocking", [False, True])
def test_the_source_stage(tmp_path: Path, blocking: bool) -> None:
    """It produces the file, under its own name, beside what comes in; on a thread too."""
    path = wav(tmp_path / "a.wav", sine(0.1))
    pipeline = Pipeline.of(AudioFileSource("mic", path=path, frame=0.05, blocking=blocking))
    elements = run_virtual(_collected(pipeline.execute(["hello"])))
    assert sorted((element.source, element.text or "sound") for element in elements) == [
        ("", "hello"),
        ("mic", "sound"),
        ("mic", "sound"),
    ]


async def _collected(execution: Any) -> list[StreamElement]:
    async with assert_no_leaks():
        return [element async for element in execution]


def test_it_is_closed_when_nobody_wants_more(tmp_path: Path) -> None:
    """Whoever takes two frames of an hour leaves no open file, and little of it was read."""
    path = wav(tmp_path / "a.wav", np.zeros((16_000 * 60, 1), dtype=np.float32))
    for pipeline, source in (
        (Pipeline.of(AudioFileSource(path=path), PassthroughStage("p")), None),
        (Pipeline.of(AudioFileSource(path=path, blocking=True), PassthroughStage("p")), None),
        (Pipeline.of(PassthroughStage("p")), audio_file(path)),
    ):

        async def main(pipeline: Pipeline = pipeline, source: Any = source) -> int:
            async with assert_no_leaks():
                async with pipeline.execute(source) as execution:
                    iterator = aiter(execution)
                    audios = [(await anext(iterator)).audio for _ in range(2)]
                    return sum(audio.frames for audio in audios if audio)

        assert run_virtual(main) == 640


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"<html>not found</html>" * 20, b"RIFF\xff\xff\xff\xffWAVEfmt \0\0\0\0"]
)
def test_what_is_no_sound(tmp_path: Path, content: bytes) -> None:
    """A file that holds something else, is empty or cut in its header is named in the error."""
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"bad\.wav' cannot be opened as sound: \w"):
        Pipeline.of(AudioFileSource(path=path)).run()
    with pytest.raises(AudioFileError, match=r"bad\.wav' cannot be opened as sound: \w"):
        next(audio_file(path))


@pytest.mark.usefixtures("either")
def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    """A file that is shorter than its header says gives the whole frames that are there."""
    path = wav(tmp_path / "a.wav", sine(0.5, channels=2))
    path.write_bytes(path.read_bytes()[: 44 + 4 * 1000 + 3])
    assert sum(audio.frames for audio in audio_file(path)) == 1000


def test_what_is_not_there(tmp_path: Path) -> None:
    """The error names the path; a length that makes no sense is refused at once."""
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(AudioFileError, match=f"there is no file '{path}'"):
            next(audio_file(path))
    with pytest.raises(ValueError, match=r"frame must be above 0 s, got 0\.0"):
        audio_file("a.wav", frame=0.0)


def test_without_soundfile_other_files_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only whole numbers in WAV are read without it; the rest says what to install."""
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    with pytest.raises(ImportError, match=r"pip install 'rxstage\[audio\]'"):
        next(audio_file(tmp_path / "a.flac"))
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setparams((1, 3, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(300))
    with pytest.raises(AudioFileError, match=r"samples of 3 bytes need soundfile: pip install 'rxstage\[audio\]'"):
        next(audio_file(tmp_path / "b.wav"))


# ------------------------------------------------------------------------------------------ writing


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(("rate", "channels", "size"), [(8_000, 1, 160), (16_000, 1, 1), (44_100, 2, 100_000)])
def test_a_file_has_all_that_came(tmp_path: Path, rate: int, channels: int, size: int) -> None:
    """What is written is what came, whatever the pieces, and only controls go on."""
    source = pieces(sine(0.3, rate, channels), rate, size)
    pipeline = Pipeline.of(AudioFileSink("file", path=tmp_path / "out.wav"), PassthroughStage("p"))
    result = pipeline.run(["text", *source, StreamElement.end_of_turn(), *source])
    samples = b"".join(audio.samples for audio in source)
    assert read(tmp_path / "out.wav") == (rate, channels, 2, samples * 2)
    assert [type(element.content).__name__ for element in result.elements] == ["EndOfTurn"]


@needs_soundfile
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("format", list(AudioFormat))
def test_formats(tmp_path: Path, ending: str, format: AudioFormat) -> None:
    """Each format of samples goes into each kind of file, as exactly as that has it."""
    source = sine(0.5)
    Pipeline.of(AudioFileSink(path=tmp_path / f"out.{ending}")).run(pieces(source, format=format))
    result = np.concatenate([samples_of(audio) for audio in audio_file(tmp_path / f"out.{ending}")])
    worst = 5e-2 if ending in ("ogg", "mp3") or format is AudioFormat.MULAW else 1e-4
    assert len(result) == 8_000
    assert np.abs(result - source)[1600:-1600].max() < worst


def test_without_soundfile_every_format_goes_into_wav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 or 32 bits, by the first piece; a format that changes later is converted."""
    monkeypatch.setitem(sys.modules, "soundfile", None)
    source = sine(0.1)
    for format in AudioFormat:
        path = tmp_path / f"{format}.wav"
        Pipeline.of(AudioFileSink(path=path)).run(
            [*pieces(source, format=format), *pieces(source, format=AudioFormat.PCM16)]
        )
        assert read(path)[2] == (4 if format is AudioFormat.PCM32 else 2)
        result = np.concatenate([samples_of(audio) for audio in audio_file(path)])
        assert np.abs(result - np.concatenate([source, source])).max() < 2e-2


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("how", ["cancelled", "failed before it", "failed behind it", "interrupted"])
def test_the_file_is_whole_however_it_ends(tmp_path: Path, how: str) -> None:
    """What had come is in the file, with a header that says so, when the execution does not come to its end."""
    path = tmp_path / "out.wav"
    source = pieces(sine(1.0), size=320)

    def failing(element: StreamElement) -> StreamElement:
        raise ValueError(how)

    async def feed() -> Any:
        for number, audio in enumerate(source):
            if number == 40 and how == "failed before it":
                raise ValueError(how)
            yield audio
            await asyncio.sleep(0.02)
            if number == 40 and how == "failed behind it":
                yield StreamElement.end_of_turn()
                yield "text"
            if number == 40 and how == "interrupted":
                yield StreamElement.interrupt()

    builder = PipelineBuilder().chain(PassthroughStage("in"))
    tail = GenerateStage("never", lambda: iter(())) if how != "failed behind it" else PassthroughStage("other")
    pipeline = builder.branch("in", AudioFileSink("file", path=path), tail).build()

    async def main() -> None:
        async with assert_no_leaks():
            execution = pipeline.execute(feed(), raise_on_error=False)
            if how in ("cancelled", "failed behind it"):
                asyncio.get_running_loop().call_later(0.81, execution.cancel)
            async with execution:
                async for _ in execution:
                    pass

    run_virtual(main)
    rate, channels, width, samples = read(path)
    frames = len(samples) // 2
    assert (rate, channels, width) == (16_000, 1, 2)
    assert frames == 16_000 if how == "interrupted" else 39 * 320 <= frames <= 41 * 320
    assert samples == b"".join(audio.samples for audio in source)[: 2 * frames]


def test_another_form_is_an_error(tmp_path: Path) -> None:
    """A file has one rate and number of channels; what came before the change is in it."""
    path = tmp_path / "out.wav"
    with pytest.raises(
        StageError,
        match=r"begun with 1 channel\(s\) of 16000 Hz, and now comes sound with 1 of 8000 Hz; put a ResampleStage",
    ):
        Pipeline.of(AudioFileSink(path=path)).run([Audio(bytes(640), 16_000), Audio(bytes(640), 8_000)])
    assert len(read(path)[3]) == 640


@needs_soundfile
def test_what_cannot_be_written(tmp_path: Path) -> None:
    """A missing folder is told before anything runs, an unknown ending at the first sound, with what can be done."""
    with pytest.raises(StageError, match=r"cannot be written: there is no folder '.*none'"):
        Pipeline.of(AudioFileSink(path=tmp_path / "none" / "out.wav")).run([])
    with pytest.raises(
        StageError, match=r"'xyz' is no format that can be written; let its name end in one of \.wav, \.flac"
    ):
        Pipeline.of(AudioFileSink(path=tmp_path / "out.xyz")).run([Audio(bytes(640), 16_000)])
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(StageError, match=r"folder\.wav' cannot be opened as sound: \w"):
        Pipeline.of(AudioFileSink(path=tmp_path / "folder.wav")).run([Audio(bytes(640), 16_000)])


def test_no_sound_no_file(tmp_path: Path) -> None:
    """Where no sound came nothing is written, and what is there stays."""
    Pipeline.of(AudioFileSink(path=tmp_path / "out.wav")).run(["text", StreamElement.end_of_turn()])
    assert list(tmp_path.iterdir()) == []


@needs_soundfile
def test_from_file_to_file(tmp_path: Path) -> None:
    """A pipeline from one file to another needs no source."""
    path = wav(tmp_path / "a.wav", sine(0.5))
    PipelineBuilder().chain(AudioFileSource(path=path), AudioFileSink(path=tmp_path / "b.flac")).build().run()
    assert b"".join(audio.samples for audio in audio_file(tmp_path / "b.flac")) == read(path)[3]


def test_a_graph_with_files_is_data() -> None:
    """Both stages have a plain form, as a graph in JSON has it."""
    pipeline = PipelineBuilder().chain(AudioFileSource(path="a.wav"), AudioFileSink(path=Path("b.wav"))).build()
    again = Pipeline.from_spec(pipeline.to_spec())
    paths = [str(getattr(again.graph.stages[name], "path", None)) for name in again.graph.nodes]
    assert paths == ["a.wav", "b.wav"]


def test_laws(tmp_path: Path) -> None:
    """Both keep the laws of a stage."""
    path = wav(tmp_path / "a.wav", sine(0.1))
    check_stage(lambda: AudioFileSource(path=path), ["a", "b"])
    check_stage(lambda: AudioFileSink(path=tmp_path / "out.wav"), pieces(sine(0.1)))
