"""Engines of speech by script: what they say and hear is known, and how long they take."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

from rxstage.content import Audio
from rxstage.ports.stt import Stt, Transcript
from rxstage.ports.tts import Tts

__all__ = ["ScriptedStt", "ScriptedTts"]


class ScriptedTts(Tts):
    """Makes sound of a known length of a text, in pieces.

    Args:
        seconds: of sound for each character.
        piece: seconds of sound in a piece.
        delay: seconds before each piece.
        sample_rate: of the sound [Hz].
        error: raised in place of the sound of a text that has one of these keys in it.

    Attributes:
        said: the texts, in order.
        stopped: the texts that were stopped before their end.
    """

    name = "scripted"

    def __init__(
        self,
        *,
        seconds: float = 0.05,
        piece: float = 0.06,
        delay: float = 0.0,
        sample_rate: int = 16_000,
        error: dict[str, BaseException] | None = None,
    ) -> None:
        self.sample_rate = sample_rate
        self.said: list[str] = []
        self.stopped: list[str] = []
        self._seconds, self._piece, self._delay, self._errors = seconds, piece, delay, error or {}

    async def speak(self, text: str) -> AsyncIterator[Audio]:
        """A steady signal, as long as the text."""
        self.said.append(text)
        left = round(len(text) * self._seconds * self.sample_rate)
        done = False
        try:
            for key, error in self._errors.items():
                if key in text:
                    raise error
            while left > 0:
                await asyncio.sleep(self._delay)
                frames = min(left, round(self._piece * self.sample_rate))
                left -= frames
                yield Audio(b"\x10\x27" * frames, self.sample_rate)
            done = True
        finally:
            if not done:
                self.stopped.append(text)


class ScriptedStt(Stt):
    """Hears the next text of a list in each utterance.

    Args:
        texts: what it hears, in order; an exception is raised.
        delay: seconds for each utterance.
        sample_rate: that it listens to [Hz].

    Attributes:
        heard: the utterances that it was given.
    """

    name = "scripted"

    def __init__(
        self, texts: Iterable[str | BaseException] = (), *, delay: float = 0.0, sample_rate: int = 16_000
    ) -> None:
        self.sample_rate = sample_rate
        self.heard: list[Audio] = []
        self._texts = deque(texts)
        self._delay = delay

    async def stream(self, audio: AsyncIterator[Audio]) -> AsyncIterator[Transcript]:
        """The next text, a word more with each half second of sound."""
        pieces: list[Audio] = []
        text = self._texts.popleft() if self._texts else ""
        words = [] if isinstance(text, BaseException) else text.split()
        heard = told = 0.0
        async for piece in audio:
            pieces.append(piece)
            heard += piece.duration
            if heard - told >= 0.5 and words:
                told = heard
                count = min(round(heard / 0.5), len(words))
                yield Transcript(" ".join(words[:count]), final=False)
        self.heard.append(Audio(b"".join(piece.samples for piece in pieces), self.sample_rate))
        await asyncio.sleep(self._delay)
        if isinstance(text, BaseException):
            raise text
        yield Transcript(text, confidence=1.0)

    async def transcribe(self, audio: Audio) -> Transcript:
        """The next text."""
        self.heard.append(audio)
        text = self._texts.popleft() if self._texts else ""
        await asyncio.sleep(self._delay)
        if isinstance(text, BaseException):
            raise text
        return Transcript(text, confidence=1.0)
