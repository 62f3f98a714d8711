"""The port to speech recognition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Final

from msgspec import Struct

from rxstage.content import Audio
from rxstage.errors import RxStageError

__all__ = ["UNINTELLIGIBLE", "SpeechError", "Stt", "Transcript"]

UNINTELLIGIBLE: Final = "[unintelligible]"
"""Stands in a transcript for words that were said and not understood, so that whoever answers can ask again."""


class Transcript(Struct, frozen=True):
    """What was said, as far as it was understood.

    Attributes:
        text: the words; "" where there were none.
        final: whether it will not change any more.
        confidence: 0 to 1, or None where the engine does not say.
        language: of the words, as in BCP 47, or "".
    """

    text: str
    final: bool = True
    confidence: float | None = None
    language: str = ""


class SpeechError(RxStageError):
    """Speech could not be recognised or made.

    Attributes:
        engine: name of the engine.
        retryable: whether the same call may succeed later.
    """

    def __init__(self, message: str, *, engine: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.engine = engine
        self.retryable = retryable


class Stt(ABC):
    """Makes words of speech. One object serves any number of calls at once, on any number of event loops.

    Attributes:
        name: what to call it.
        sample_rate: what it listens to [Hz]; what has another rate is resampled before.
    """

    name: str
    sample_rate: int = 16_000

    @abstractmethod
    async def transcribe(self, audio: Audio) -> Transcript:
        """The words of one utterance: 16-bit mono at `sample_rate`. Cancelling it gives the call up.

        Raises:
            SpeechError: it could not be done.
        """

    async def prepare(self) -> None:  # noqa: B027 - nothing is a good default
        """Get ready for the first utterance, where that takes time: load a model, open a connection."""

    async def stream(self, audio: AsyncIterator[Audio]) -> AsyncIterator[Transcript]:
        """The words as they are said: partial transcripts, each in place of the one before, then a final one.

        By default one final transcript at the end.
        """
        pieces: list[Audio] = [piece async for piece in audio]
        if pieces:
            first = pieces[0]
            yield await self.transcribe(
                Audio(b"".join(piece.samples for piece in pieces), first.sample_rate, first.channels, first.format)
            )

    async def aclose(self) -> None:  # noqa: B027 - there may be nothing to close
        """Let go of what it holds on the running loop; the object can be used again."""
