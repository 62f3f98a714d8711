"""What `rxstage demo` finds in a text and in a sound."""

from __future__ import annotations

import asyncio
import io
import math
import re
import wave
from collections.abc import Callable, Iterator
from email.message import Message
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from typer.testing import CliRunner

import rxstage
from rxstage import Audio, Pipeline, PipelineConfig, StreamElement
from rxstage.cli.app import app
from rxstage.cli.command import CommandError
from rxstage.cli.sound import sound_pipeline
from rxstage.cli.source import Input, open_input
from rxstage.cli.text import text_pipeline

LIMIT: Final = 60.0  # seconds for one run
CONFIG: Final = PipelineConfig()
DOCUMENT: Final = """\
# Of pipes

A pipe carries water. It leaks!
See [the plan](plan.md) and [another](gone.md), or https://example.org/pipes.

```python
import os
def leak(): return 1
```

| part | size |
| --- | --- |
| bend | 3 |
| tee | 4 |

## More   ##
1984
"""


def findings(pipeline: Pipeline, source: Any) -> set[tuple[int, str, str]]:
    """`(sequence, stage, text)` of all that a pipeline emits."""
    result = pipeline.run(source, timeout=LIMIT)
    assert all(element.text is not None for element in result.elements)
    return {(element.sequence, element.source, element.text or "") for element in result.elements}


def wav(path: Path, plan: list[tuple[float, float]], *, rate: int = 16000, channels: int = 1, width: int = 2) -> Path:
    """A WAV file of tones `(Hz, seconds)` at half of the full scale; 0 Hz is silence."""
    samples = bytearray()
    for hertz, seconds in plan:
        for index in range(round(seconds * rate)):
            value = math.sin(2 * math.pi * hertz * index / rate) / 2
            scaled = int(value * (2 ** (8 * width - 1) - 1))
            one = bytes([scaled + 128]) if width == 1 else scaled.to_bytes(width, "little", signed=True)
            samples += one * channels
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(samples))
    return path


def invoke(*arguments: str, stdin: str | bytes | None = None) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(arguments), input=stdin)


# ------------------------------------------------------------------------------------------ text


def test_document(tmp_path: Path) -> None:
    """Headings, paragraphs, code, tables, links and words of a document are told, with their lines."""
    (tmp_path / "plan.md").write_text("plan")
    assert findings(text_pipeline(CONFIG, tmp_path), DOCUMENT.splitlines()) == {
        (1, "heading", "Of pipes"),
        (3, "prose", "12 words in 3 sentences, 4 s to read, longest word 'carries'"),
        (4, "look_up", "plan.md: found"),
        (4, "look_up", "gone.md: MISSING"),
        (4, "look_up", "https://example.org/pipes: elsewhere"),
        (6, "code", "2 lines of python, it parses: 2 statements, 1 import, 1 definition"),
        (11, "table", "2 rows of 2: part, size"),
        (16, "heading", "  More"),
        (17, "prose", "4 characters without a word"),
        (16, "vocabulary", "33 words, 30 different; most often: pipes 2, plan 2, pipe 1, carries 1, water 1"),
    }


@pytest.mark.parametrize(
    ("language", "code", "told"),
    [
        ("python", "def f(:", "1 line of python, it does not parse: "),
        ("py", "", None),
        ("json", '{"a": 1}', "1 line of json, it parses: one dict"),
        ("json", "{", "1 line of json, it does not parse: "),
        ("toml", "a = 1", "1 line of toml, it parses: 1 key"),
        ("", "ls -l", "1 line of something, 5 characters"),
    ],
)
def test_code(language: str, code: str, told: str | None) -> None:
    """Code is parsed where its language is known; an empty block is none."""
    found = findings(text_pipeline(CONFIG), [f"```{language}", *code.splitlines(), "```"])
    codes = [text for _, stage, text in found if stage == "code"]
    assert len(codes) == (told is not None)
    assert told is None or codes[0].startswith(told)


def test_fence_without_end() -> None:
    """A fence that is not closed ends with the text; another kind of fence within it is code."""
    found = findings(text_pipeline(CONFIG), ["~~~", "```", "# no heading", "~~~~"])
    assert (1, "code", "2 lines of something, 16 characters") in found
    found = findings(text_pipeline(CONFIG), ["```", "a", "b"])
    assert (1, "code", "2 lines of something, 3 characters") in found


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("#part", "#part: in this document"),
        ("a.md", "a.md: not looked up"),
        ("mailto:a@b.c", "mailto:a@b.c: elsewhere"),
    ],
)
def test_links_without_a_directory(link: str, told: str) -> None:
    """Where there is no directory, relative links are not looked up."""
    assert (1, "look_up", told) in findings(text_pipeline(CONFIG), [f"see [it]({link})"])


def test_link_that_is_no_name(tmp_path: Path) -> None:
    """What no file can be called is missing."""
    target = "x" * 5000
    assert (1, "look_up", f"{target}: MISSING") in findings(text_pipeline(CONFIG, tmp_path), [f"[it]({target})"])


def test_blocks_are_bounded() -> None:
    """A text without an empty line is taken in blocks of 500 lines."""
    found = findings(text_pipeline(CONFIG), ["word"] * 1201)
    assert {(line, text.partition(" ")[0]) for line, stage, text in found if stage == "prose"} == {
        (1, "500"),
        (501, "500"),
        (1001, "201"),
    }


def test_vocabulary_is_bounded() -> None:
    """Past 20,000 different words those seen once are forgotten, and the count of all words stays right."""

    def lines() -> Iterator[str]:
        letters = "abcdefghijklmnopqrstuvwxyz"
        yield "often often often"
        for index in range(20_001):
            yield "".join(letters[index // 26**digit % 26] for digit in range(4))

    found = [text for _, stage, text in findings(text_pipeline(CONFIG), lines()) if stage == "vocabulary"]
    assert len(found) == 1
    match = re.match(r"([\d,]+) words, ([\d,]+) different; most often: often 3", found[0])
    assert match is not None
    assert match[1] == "20,004"
    assert int(match[2].replace(",", "")) < 20_001


def test_empty_text() -> None:
    """No line gives no finding."""
    assert findings(text_pipeline(CONFIG), []) == set()
    assert findings(text_pipeline(CONFIG), ["", " "]) == set()


# ------------------------------------------------------------------------------------------ sound


def heard(path: Path) -> list[tuple[float, str, str]]:
    """`(start, stage, text)` of all that is heard in a WAV file, without the meter."""
    with open_input(str(path)) as source:
        assert source.kind == "wav"
        result = sound_pipeline(CONFIG).run(source.source, timeout=LIMIT)
    found = [(round(each.metadata["start"], 3), each.source, each.text or "") for each in result.elements]
    return sorted(each for each in found if each[1] != "meter")


@pytest.mark.parametrize(
    ("rate", "channels", "width"), [(16000, 1, 2), (8000, 1, 1), (44100, 2, 3), (48000, 1, 4), (11025, 2, 2)]
)
def test_loud_and_silent(tmp_path: Path, rate: int, channels: int, width: int) -> None:
    """Loud segments with their pitch and the silence between them are told alike at every rate and width."""
    path = wav(tmp_path / "a.wav", [(0, 0.4), (440, 0.6), (0, 1.0)], rate=rate, channels=channels, width=width)
    (first, loud, second) = heard(path)
    assert first[:2] == (0.0, "pause")
    assert first[2].startswith("silent for 0.4")
    assert (loud[0], second[0]) == pytest.approx((0.4, 1.0), abs=0.03)
    assert (loud[1], second[1]) == ("pitch", "pause")
    match = re.fullmatch(r"loud for (0\.6\d?\d?) s, peak -6\.\d dBFS, about (\d+) Hz", loud[2])
    assert match is not None
    assert float(match[1]) == pytest.approx(0.6, abs=0.03)
    assert float(match[2]) == pytest.approx(440, abs=4)
    assert second[2].startswith(("silent for 0.98", "silent for 1.0", "silent for 0.99"))


def test_short_dip(tmp_path: Path) -> None:
    """A dip of a tenth of a second does not end a loud segment."""
    path = wav(tmp_path / "a.wav", [(300, 0.2), (0, 0.1), (300, 0.2)])
    assert [each[1] for each in heard(path)] == ["pitch"]


def test_segments_are_bounded(tmp_path: Path) -> None:
    """A segment of more than ten seconds is told in parts."""
    path = wav(tmp_path / "a.wav", [(0, 21.0)], rate=8000)
    assert [each[2].split(" at ")[0] for each in heard(path)] == [
        "silent for 10.00 s",
        "silent for 10.00 s",
        "silent for 1.00 s",
    ]


def test_noise_has_no_pitch(tmp_path: Path) -> None:
    """A single click has no pitch that could be told."""
    samples = bytearray(2 * 320)
    samples[100:102] = (30000).to_bytes(2, "little")
    audio = Audio(bytes(samples), 16000)
    (found,) = [text for _, stage, text in findings(sound_pipeline(CONFIG), [_at(audio)]) if stage == "pitch"]
    assert found.endswith("no clear pitch")


def test_meter(tmp_path: Path) -> None:
    """The meter tells level and peak of each half second, and of what is left."""
    path = wav(tmp_path / "a.wav", [(1000, 1.1)])
    with open_input(str(path)) as source:
        result = sound_pipeline(CONFIG).run(source.source, timeout=LIMIT)
    meter = [(each.metadata["start"], each.text) for each in result.elements if each.source == "meter"]
    assert [start for start, _ in meter] == [0.0, 0.5, 1.0]
    assert all(text is not None and text.endswith("-9.0 dBFS, peak -6.0") for _, text in meter)


def _at(audio: Audio) -> StreamElement:
    return StreamElement.of(audio, metadata={"start": 0.0})


# ------------------------------------------------------------------------------------------ what is read


def test_wav_cut_within_a_frame(tmp_path: Path) -> None:
    """A file that ends in the middle of a sample gives the samples before it."""
    whole = wav(tmp_path / "a.wav", [(440, 0.1)], channels=2).read_bytes()
    (tmp_path / "b.wav").write_bytes(whole[:-1])
    with open_input(str(tmp_path / "b.wav")) as source:
        frames = [element.content.frames for element in source.source]
    assert frames == [320, 320, 320, 320, 319]


@pytest.mark.parametrize(
    "content", [b"RIFF", b"RIFF\x24\0\0\0WAVE", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + b"\x55\0" * 8]
)
def test_broken_wav(tmp_path: Path, content: bytes) -> None:
    """A WAV file that is cut in its header, or no PCM, is told in a line that says what to do."""
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(CommandError, match=r"no WAV file that can be read .*; convert it to PCM"):
        open_input(str(path))


def test_text_that_begins_like_a_wav(tmp_path: Path) -> None:
    """The word RIFF makes no sound."""
    path = tmp_path / "a.txt"
    path.write_text("RIFFs are great\n")
    with open_input(str(path)) as source:
        assert source.kind == "text"
        assert list(source.source) == ["RIFFs are great"]


def test_text_of_any_encoding(tmp_path: Path) -> None:
    """A byte order mark is dropped, and what is no UTF-8 is replaced."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\n\xff\n")
    with open_input(str(path)) as source:
        assert list(source.source) == ["a", "\ufffd"]


# ------------------------------------------------------------------------------------------ the command


def test_text_file(tmp_path: Path) -> None:
    """The findings in a file are printed with their lines, and at the end the table of the stages."""
    path = tmp_path / "a.md"
    path.write_text(DOCUMENT)
    result = invoke("demo", str(path))
    assert result.exit_code == 0
    assert "     1  heading     Of pipes\n" in result.stdout
    assert re.search(r"│ blocks +│ +17 │ +6 │", result.stdout)
    assert f"completed: 17 elements from {path} in, 10 out, in " in result.stdout
    assert result.stderr == ""


def test_wav_file(tmp_path: Path) -> None:
    """The findings in a sound are printed with their times."""
    result = invoke("demo", str(wav(tmp_path / "a.wav", [(200, 0.5)])))
    assert result.exit_code == 0
    assert "   0.00 s  pitch       loud for 0.50 s, peak -6.0 dBFS, about 200 Hz\n" in result.stdout


def test_escapes_are_harmless(tmp_path: Path) -> None:
    """Control characters of the input do not reach the terminal."""
    path = tmp_path / "a.md"
    path.write_bytes(b"# \x1b[31mred\x07\n")
    result = invoke("demo", str(path), "--no-metrics")
    assert "heading     \ufffd[31mred\ufffd\n" in result.stdout
    assert "\x1b" not in result.stdout


def test_quiet_and_no_metrics(tmp_path: Path) -> None:
    """--quiet leaves the table, --no-metrics the elements, and both nothing."""
    path = tmp_path / "a.md"
    path.write_text("# a\n")
    quiet = invoke("demo", str(path), "--quiet")
    assert "heading     a" not in quiet.stdout
    assert "│ heading" in quiet.stdout
    bare = invoke("demo", str(path), "--no-metrics")
    assert bare.stdout.splitlines() == [
        "     1  heading     a",
        "     1  vocabulary  1 word, 1 different; most often: none",
    ]
    assert invoke("demo", str(path), "-q", "--no-metrics").stdout == ""


def test_json(tmp_path: Path) -> None:
    """--json prints one line that a program can read, and nothing else."""
    path = tmp_path / "a.md"
    path.write_text(DOCUMENT)
    result = invoke("demo", str(path), "--json")
    assert result.exit_code == 0
    report = msgspec.json.decode(result.stdout)
    assert report["state"] == "completed"
    assert report["error"] is None
    assert (report["received"], report["emitted"]) == (17, 10)
    assert report["stages"]["blocks"]["emitted"] == 6
    assert report["stages"]["prose"]["p50"] > 0
    edges = {(edge["source"], edge["target"]): edge for edge in report["edges"]}
    assert edges["lines", "blocks"]["capacity"] == 16
    assert edges["blocks", "heading"]["capacity"] == 0


def test_buffer_size(tmp_path: Path) -> None:
    """--buffer-size bounds what the buffers hold."""
    path = tmp_path / "a.md"
    path.write_text("line\n" * 200)
    report = msgspec.json.decode(invoke("demo", str(path), "--json", "--buffer-size", "3").stdout)
    (edge,) = [edge for edge in report["edges"] if (edge["source"], edge["target"]) == ("lines", "blocks")]
    assert edge["capacity"] == 3
    assert 1 <= edge["peak"] <= 3


def test_slow_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --slow each element waits that long, and the source is held back meanwhile."""
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float, result: Any = None) -> Any:
        if seconds:
            slept.append(seconds)
        return await real(0, result)

    monkeypatch.setattr("rxstage.cli.stream.asyncio.sleep", sleep)
    path = tmp_path / "a.md"
    path.write_text("# a\n" * 30)
    result = invoke("demo", str(path), "--slow", "0.25", "--json")
    assert slept.count(0.25) == msgspec.json.decode(result.stdout)["emitted"] == 31


def test_svg(tmp_path: Path) -> None:
    """--svg writes the picture of the pipeline."""
    path, picture = tmp_path / "a.md", tmp_path / "a.svg"
    path.write_text("# a\n")
    assert invoke("demo", str(path), "-q", "--svg", str(picture)).exit_code == 0
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    assert "vocabulary" in picture.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gone.txt"], "rxstage: gone.txt cannot be read: No such file or directory\n"),
        (["."], "rxstage: . is a directory; name a file in it\n"),
    ],
)
def test_nothing_to_read(arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read is told on one line."""
    monkeypatch.chdir(tmp_path)
    result = invoke("demo", *arguments)
    assert result.exit_code == 1
    assert result.stderr == told
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [["--slow", "-1"], ["--buffer-size", "0"], ["--nonsense"]])
def test_wrong_usage(arguments: list[str]) -> None:
    """Wrong options are told, with exit code 2."""
    result = invoke("demo", *arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_a_second_file() -> None:
    """It is refused by name."""
    result = invoke("demo", "a", "b")
    assert (result.exit_code, result.stderr) == (2, "rxstage: only `demo voice` takes a second file, got 'b'\n")


def test_standard_input_by_name() -> None:
    """A dash reads standard input, whatever it is."""
    result = invoke("demo", "-", "--no-metrics", stdin="# Piped\n")
    assert result.exit_code == 0
    assert result.stdout.startswith("     1  heading     Piped\n")


# ------------------------------------------------------------------------------------------ the README


def test_readme_of_the_checkout() -> None:
    """Without an input the demo reads the README."""
    result = invoke("demo")
    assert result.exit_code == 0
    assert "heading     rxstage\n" in result.stdout
    assert "MISSING" not in result.stdout


def _metadata(text: str | None) -> Callable[[str], Message]:
    def metadata(name: str) -> Message:
        if text is None:
            raise PackageNotFoundError(name)
        message = Message()
        message.set_payload(text)
        return message

    return metadata


def test_readme_of_the_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a checkout it is the description of the installed distribution."""
    monkeypatch.setattr(rxstage, "__file__", str(tmp_path / "rxstage" / "__init__.py"))
    monkeypatch.setattr("rxstage.cli.demo.metadata", _metadata("# Installed\n"))
    result = invoke("demo")
    assert result.exit_code == 0
    assert "heading     Installed\n" in result.stdout
    assert "elements from the README in" in result.stdout


@pytest.mark.parametrize("text", [None, ""])
def test_no_readme(text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no description either, a line says what to do."""
    monkeypatch.setattr(rxstage, "__file__", str(tmp_path / "rxstage" / "__init__.py"))
    monkeypatch.setattr("rxstage.cli.demo.metadata", _metadata(text))
    result = invoke("demo")
    assert result.exit_code == 1
    assert result.stderr == "rxstage: there is nothing to read: name a text or WAV file, or pipe one in\n"


def test_input_is_closed() -> None:
    """An input closes what it reads when it is left, though it was never read."""
    file = io.BufferedReader(io.BytesIO(b"text"))
    with Input(file, "x", None):
        assert not file.closed
    assert file.closed
