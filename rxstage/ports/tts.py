"""The port to speech synthesis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from rxstage.content import Audio

__all__ = ["Tts"]


class Tts(ABC):
    """Makes speech of words. One object serves any number of calls at once, on any number of event loops.

    Attributes:
        name: what to call it.
        sample_rate: of what it makes [Hz], 16-bit mono.
    """

    name: str
    sample_rate: int

    @abstractmethod
    def speak(self, text: str) -> AsyncIterator[Audio]:
        """The sound of a text, in pieces as it is made. Closing the iterator stops it in mid-word.

        Raises:
            SpeechError: it could not be done.
        """

    async def aclose(self) -> None:  # noqa: B027 - there may be nothing to close
        """Let go of what it holds on the running loop; the object can be used again."""
