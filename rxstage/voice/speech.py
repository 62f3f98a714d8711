"""What is told between the sound: when speech begins and ends, which text has been spoken."""

from __future__ import annotations

from msgspec import Struct

from rxstage import wire

__all__ = ["SpeechEnded", "SpeechStarted", "Spoken"]


class SpeechStarted(Struct, frozen=True):
    """Somebody has begun to speak. Travels as `Data`.

    Attributes:
        time: seconds from the beginning of the sound, in sample time, at which the speech begins.
    """

    time: float


class SpeechEnded(Struct, frozen=True):
    """The speech has ended; travels behind its sound.

    Attributes:
        time: seconds from the beginning of the sound, in sample time, at which the speech ended.
        duration: seconds of speech.
    """

    time: float
    duration: float


class Spoken(Struct, frozen=True):
    """The sound of this piece of text lies before this mark. Where the mark is played, the text was heard."""

    text: str


for _kind in (SpeechStarted, SpeechEnded, Spoken):
    wire.register(_kind, f"rxstage.{_kind.__name__}")
