"""Engines of speech by name."""

from __future__ import annotations

import sys

import pytest

from rxstage import MissingExtra
from rxstage.adapters.espeak import EspeakTts
from rxstage.adapters.openai_speech import OpenAIStt, OpenAITts
from rxstage.adapters.pocketsphinx import PocketsphinxStt
from rxstage.adapters.speech import stt_of, tts_of
from rxstage.adapters.whisper import WhisperStt


def test_names() -> None:
    """A name, and what stands behind its colon."""
    voice = tts_of("espeak:de")
    assert isinstance(voice, EspeakTts)
    assert voice.voice == "de"
    assert isinstance(tts_of("espeak"), EspeakTts)
    spoken, heard = tts_of("openai:tts-1"), stt_of("openai")
    assert isinstance(spoken, OpenAITts)
    assert isinstance(heard, OpenAIStt)
    assert (spoken.model, heard.model) == ("tts-1", "gpt-4o-mini-transcribe")
    local, dictation, whisper = stt_of("pocketsphinx"), stt_of("pocketsphinx:dictation"), stt_of("whisper:tiny")
    assert isinstance(local, PocketsphinxStt)
    assert isinstance(dictation, PocketsphinxStt)
    assert local.phrases
    assert dictation.phrases is None
    assert isinstance(whisper, WhisperStt)
    assert whisper.model == "tiny"


@pytest.mark.parametrize(
    ("name", "told"),
    [("espaek", "did you mean 'espeak'"), ("siri", "there are espeak, openai"), ("", "there are espeak, openai")],
)
def test_unknown_voices(name: str, told: str) -> None:
    """An unknown name is told with the nearest one."""
    with pytest.raises(ValueError, match=told):
        tts_of(name)


def test_unknown_ears() -> None:
    """The same for recognition; an unknown kind of pocketsphinx, too."""
    with pytest.raises(ValueError, match="did you mean 'whisper'"):
        stt_of("wisper")
    with pytest.raises(ValueError, match="'pocketsphinx:local' or 'pocketsphinx:dictation', got 'x'"):
        stt_of("pocketsphinx:x")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package an engine names the extra, when it is used."""
    import asyncio

    from rxstage import Audio

    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingExtra, match=r"rxstage\[whisper\]"):
        asyncio.run(stt_of("whisper").transcribe(Audio(bytes(320), 16_000)))
