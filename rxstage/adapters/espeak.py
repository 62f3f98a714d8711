"""Speech from espeak-ng: offline, in a hundred languages, within milliseconds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from rxstage.adapters._espeak_engine import RATE, THREADS, Manner, say
from rxstage.adapters._spoken_text import speakable, text_pieces
from rxstage.adapters._threads import Making
from rxstage.content import Audio
from rxstage.ports.tts import Tts

__all__ = ["EspeakTts"]

_LONGEST: Final = 200  # characters that are said at a time: 15 s of sound, made in 10 ms


class EspeakTts(Tts):
    """The voice of espeak-ng: plainly a machine's, and at once there.

    It is the library of the package `espeakng-loader` (extra `espeak`) or, where that is not installed, the program
    `espeak-ng`. Both are GPL-3. The library keeps its state in variables of the process, so one text is said at a time;
    whoever speaks gets a turn for a piece of up to 200 characters, which takes milliseconds, and then it is another's.
    What waits to be taken is one such piece.

    Args:
        voice: a language, `"en-us"`, `"de"`, or a variant of its voice, `"en-us+f3"`.
        rate: words per minute, 80 to 450.
        pitch: 0 to 99.
        volume: 0 to 200.
        ssml: whether the text is SSML; then it is said in one piece, of up to 5 minutes. Not for text of strangers.
        program: the program to be run instead of the library, such as `"espeak-ng"`.
    """

    name = "espeak"
    sample_rate = RATE

    def __init__(
        self,
        voice: str = "en-us",
        *,
        rate: int = 175,
        pitch: int = 50,
        volume: int = 100,
        ssml: bool = False,
        program: str | None = None,
    ) -> None:
        if not voice or not voice.isprintable() or voice.startswith("-"):
            raise ValueError(f"EspeakTts: voice is a name such as 'en-us' or 'en-us+f3', got {voice!r}")
        for option, value, least, most in (
            ("rate", rate, 80, 450),
            ("pitch", pitch, 0, 99),
            ("volume", volume, 0, 200),
        ):
            if not least <= value <= most:
                raise ValueError(f"EspeakTts: {option} is {least} to {most}, got {value!r}")
        self._manner = Manner(voice, rate, pitch, volume, ssml)
        self._program = program

    def __repr__(self) -> str:
        return f"EspeakTts({self._manner.voice!r})"

    async def speak(self, text: str) -> AsyncIterator[Audio]:
        """The sound of a text, in chunks of up to 60 ms; the first comes within 10 ms. Closing it stops in mid-word.

        Raises:
            MissingExtra: neither the library nor the program is installed.
            SpeechError: there is no such voice, or the engine fails.
        """
        text = speakable(text)
        pieces = [text] if self._manner.ssml and text.strip() else text_pieces(text, _LONGEST)
        for piece in pieces:
            making: Making[bytes] = Making(THREADS, say, self._program, piece, self._manner)
            async with aclosing(making.pieces()) as chunks:
                async for chunk in chunks:
                    yield Audio(chunk, RATE)
