"""Who has the floor in a voice conversation: whether the assistant is heard, how far, whether it has to wait."""

from __future__ import annotations

from rxstage.stage import StageContext

__all__ = ["Floor", "floor"]


class Floor:
    """What the stages of one execution know of the sound that is played.

    The stage that paces the sound tells it, and the one that understands speech; the one that listens for interruptions
    reads it and has the sound pause.

    Attributes:
        turns: turns of the user that are being answered: from the end of each to the end of its answer's sound.
        speaking: whether the answer's sound is being played, or paused in the middle.
        paused: whether it was told to wait.
        heard: the text of the answer that was played so far, by the marks between the sound.
        understanding: whether an utterance of the user is being understood, and its words are not there yet.
        voiced: seconds of speech in the newest utterance of the user so far; None where nobody listens for it here.
    """

    __slots__ = ("heard", "paused", "speaking", "turns", "understanding", "voiced")

    def __init__(self) -> None:
        self.turns = 0
        self.speaking = False
        self.paused = False
        self.heard = ""
        self.understanding = False
        self.voiced: float | None = None

    @property
    def answering(self) -> bool:
        """Whether a turn of the user is being answered."""
        return self.turns > 0

    def done(self) -> None:
        """The sound of an answer has ended."""
        self.turns = max(self.turns - 1, 0)
        self.speaking, self.heard = False, ""

    def over(self) -> None:
        """All answers are cut off."""
        self.turns, self.speaking, self.paused, self.heard = 0, False, False, ""


def floor(context: StageContext) -> Floor:
    """The floor of the execution that a stage runs in."""
    return context.shared(Floor, Floor)
