"""`tts_of` and `stt_of`: which name is which engine, and what is wrong with a name."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from rxstage import Audio, MissingExtra
from rxstage.adapters.espeak import EspeakTts
from rxstage.adapters.openai_speech import OpenAIStt, OpenAITts
from rxstage.adapters.piper import PiperTts
from rxstage.adapters.pocketsphinx import PocketsphinxStt
from rxstage.adapters.speech import stt_of, tts_of
from rxstage.adapters.whisper import WhisperStt
from rxstage.ports import SpeechError, Stt, Tts
from rxstage.stages.stt import STTStage
from rxstage.stages.tts import TTSStage


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    """What looks like a voice of Piper's."""
    path = tmp_path / "joe.onnx"
    path.write_bytes(b"")
    (tmp_path / "joe.onnx.json").write_text('{"audio": {"sample_rate": 22050}}', encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("espeak", EspeakTts, "EspeakTts('en-us')"),
        ("espeak:de", EspeakTts, "EspeakTts('de')"),
        ("espeak:en-us+f3", EspeakTts, "EspeakTts('en-us+f3')"),
        ("openai", OpenAITts, "OpenAITts('gpt-4o-mini-tts')"),
        ("openai:tts-1", OpenAITts, "OpenAITts('tts-1')"),
    ],
)
def test_engines_that_speak(name: str, kind: type[Tts], text: str) -> None:
    """A name with and without what stands behind its colon."""
    tts = tts_of(name)
    assert type(tts) is kind
    assert repr(tts) == text
    assert tts.name == name.partition(":")[0]


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("pocketsphinx", PocketsphinxStt, "<PocketsphinxStt 'pocketsphinx': dictation>"),
        ("pocketsphinx:assistant", PocketsphinxStt, "<PocketsphinxStt 'pocketsphinx': grammar>"),
        ("whisper", WhisperStt, "WhisperStt('base')"),
        ("whisper:/models/base.en", WhisperStt, "WhisperStt('/models/base.en')"),
        ("openai", OpenAIStt, "OpenAIStt('gpt-4o-mini-transcribe')"),
        ("openai:whisper-1", OpenAIStt, "OpenAIStt('whisper-1')"),
    ],
)
def test_engines_that_understand(name: str, kind: type[Stt], text: str) -> None:
    """A name with and without what stands behind its colon."""
    stt = stt_of(name)
    assert type(stt) is kind
    assert repr(stt) == text
    assert stt.name == name.partition(":")[0]


def test_files(voice: Path, tmp_path: Path) -> None:
    """A voice of Piper's and a grammar are files."""
    tts = tts_of(f"piper:{voice}", speed=2.0)
    assert type(tts) is PiperTts
    assert tts.sample_rate == 22_050
    (tmp_path / "yes.gram").write_text("public <said> = yes | no;", encoding="utf-8")
    assert repr(stt_of(f"pocketsphinx:{tmp_path / 'yes.gram'}")) == "<PocketsphinxStt 'pocketsphinx': grammar>"


def test_options_are_passed_on() -> None:
    """What the class takes can be said beside the name."""
    with pytest.raises(ValueError, match="rate is 80 to 450, got 1"):
        tts_of("espeak", rate=1)
    assert tts_of("espeak:de", rate=90).sample_rate == 22_050
    assert repr(stt_of("pocketsphinx", keywords=["stop"], name="ear")) == "<PocketsphinxStt 'ear': keywords>"


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (tts_of, "espaek", "no engine that speaks 'espaek'; did you mean 'espeak'? There are espeak, piper, openai"),
        (tts_of, "", "there is no engine that speaks ''. There are espeak, piper, openai"),
        (tts_of, "pocketsphinx", "There are espeak, piper, openai"),
        (
            stt_of,
            "wisper:base",
            "no engine that understands speech 'wisper:base'; did you mean 'whisper'? There are pocketsphinx, whisper,",
        ),
        (stt_of, "pocketsphinx:nope.gram", "there is no grammar 'nope.gram' for pocketsphinx; name 'assistant', or a"),
        (tts_of, "piper", "piper needs a voice: 'piper:' and the path of its file"),
    ],
)
def test_names_that_are_none(make: Any, name: str, message: str) -> None:
    """The error says what there is, and the nearest."""
    with pytest.raises(ValueError) as told:
        make(name)
    assert message in str(told.value)


def test_a_voice_that_is_not_there(tmp_path: Path) -> None:
    """The error names the files that lack, or what is wrong with the description."""
    path = tmp_path / "joe.onnx"
    with pytest.raises(SpeechError, match=r"there is no .*joe\.onnx and no .*joe\.onnx\.json"):
        tts_of(f"piper:{path}")
    path.write_bytes(b"")
    for text in ("{", "[]", "{}", '{"audio": {"sample_rate": "x"}}'):
        (tmp_path / "joe.onnx.json").write_text(text, encoding="utf-8")
        with pytest.raises(SpeechError, match=r"describes no voice of Piper's"):
            tts_of(f"piper:{path}")


def test_stages_take_names() -> None:
    """The stages make engines of names, and say which names they do not know."""
    assert type(TTSStage(tts="espeak:de").tts) is str
    assert type(STTStage(stt="pocketsphinx:assistant").stt) is str
    with pytest.raises(ValueError, match="there is no engine that speaks 'nope'"):
        TTSStage(tts="nope")
    with pytest.raises(ValueError, match="there is no engine that understands speech 'nope'"):
        STTStage(stt="nope")


@pytest.mark.parametrize(
    ("module", "extra", "name"),
    [
        ("piper", "piper", "piper"),
        ("faster_whisper", "whisper", "whisper"),
        ("pocketsphinx", "pocketsphinx", "pocketsphinx"),
    ],
)
def test_what_is_not_installed(
    module: str, extra: str, name: str, voice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine whose package is missing can be made; at the first use the error names the extra."""
    monkeypatch.setitem(sys.modules, module, None)

    async def use() -> None:
        if name == "piper":
            async for _ in tts_of(f"piper:{voice}").speak("Hello"):
                pass
        else:
            await stt_of(name).transcribe(Audio(b"\0\0" * 16_000, 16_000))

    with pytest.raises(MissingExtra, match=rf"pip install 'rxstage\[{extra}\]'"):
        asyncio.run(use())
