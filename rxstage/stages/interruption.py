"""Talking over the assistant stops it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import ClassVar, Final

from pydantic import Field

from rxstage.content import Data, EndOfTurn, Interrupt, Message, Text
from rxstage.conversation import TRANSCRIPT
from rxstage.element import StreamElement
from rxstage.errors import RxStageError
from rxstage.priority import Priority
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.floor import Floor, floor
from rxstage.voice.speech import SpeechEnded, SpeechStarted

__all__ = ["BACK_CHANNEL", "InterruptionStage"]

BACK_CHANNEL: Final = (
    "ah",
    "aha",
    "hm",
    "hmm",
    "huh",
    "mhm",
    "mhmm",
    "mm",
    "mm-hmm",
    "oh",
    "ok",
    "okay",
    "right",
    "uh",
    "uh-huh",
    "um",
    "yeah",
    "yes",
    "yep",
)
"""Words that say "I am listening" and interrupt nobody."""

_DECIDE: Final = object()  # posted when the time is up
_SOON: Final = 0.01  # seconds that make no difference
_AGAIN: Final = 0.02  # seconds between two looks whether the user's words are there
_WORDS: Final = re.compile(r"[\w'-]+")


class InterruptionStage(Stage):
    """Sends an `Interrupt` where the user talks while a turn is being answered.

    It stands behind the detection of speech, and behind recognition and turn taking where they are; before whatever
    answers.
    When speech begins, the sound of the answer waits at once; then it is decided:

    - with `minimum_words=0` the speech has to last `minimum_duration` seconds;
    - else its transcript has to have that many words that are not in `ignore`.

    Where it was nothing, the sound goes on where it waited, and what was said of no weight is dropped. A user who goes
    on before the words so far are understood interrupts as soon as they are, so that they are not lost.

    Args:
        name: name in the graph.
        minimum_duration: seconds that speech has to last.
        minimum_words: words that it has to have; 0 does not wait for words.
        patience: seconds to wait for them, after which the sound goes on.
        ignore: words that do not count.
        pause: have the sound wait till it is decided.

    Emits: what comes in; an `Interrupt` before the utterance that interrupts.
    Holds: nothing.
    Completes: with its input.
    Fails: never by itself.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM

    minimum_duration: float = Field(default=0.0, ge=0)
    minimum_words: int = Field(default=0, ge=0)
    patience: float = Field(default=5.0, gt=0)
    ignore: tuple[str, ...] = BACK_CHANNEL
    pause: bool = True

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        held, loop = floor(context), asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None  # runs while it is open whether speech interrupts
        weightless = False  # whether what was said was no interruption, and its message is still to come
        try:
            async for element in elements:
                content = element.content
                value = content.value if content.__class__ is Data else None
                if timer is not None and value is _DECIDE and (missing := self._missing(held)):
                    timer = loop.call_later(missing, _wake, context)
                elif timer is not None:
                    decided = self._decided(element, held)
                    if decided is not None:
                        timer.cancel()
                        timer = None
                        held.paused = False
                        if decided:
                            yield self._interrupt(held, context)
                        weightless = not decided and self.minimum_words > 0
                if weightless and content.__class__ is Message:
                    weightless = False
                    if self._weight(content.text) < self.minimum_words:
                        context.emit_event("interruption.ignored", text=content.text)
                        continue  # nobody has to answer it
                if content.__class__ is Interrupt:
                    held.over()
                elif value.__class__ is SpeechStarted and held.answering and timer is None:
                    if self.minimum_words or self.minimum_duration or _gets_words(held):
                        held.paused = self.pause
                        wait = self.patience if self.minimum_words else self.minimum_duration or _AGAIN
                        timer = loop.call_later(wait, _wake, context)
                    else:
                        yield self._interrupt(held, context)
                elif content.__class__ is EndOfTurn:
                    held.turns += 1
                if value is not _DECIDE:
                    yield element
        finally:
            if timer is not None:
                timer.cancel()
                held.paused = False

    def _interrupt(self, held: Floor, context: StageContext) -> StreamElement:
        held.over()
        context.emit_event("interruption")
        return StreamElement.interrupt("barge-in", source=context.stage)

    def _missing(self, held: Floor) -> float:
        """Seconds of speech that are missing for an interruption: the user may be silent since, and not at the end."""
        if self.minimum_words:
            return 0.0
        if _gets_words(held):
            return _AGAIN
        if held.voiced is None or held.voiced >= self.minimum_duration - _SOON:
            return 0.0
        return max(self.minimum_duration - held.voiced, _SOON)

    def _weight(self, text: str) -> int:
        """How many words count."""
        return sum(word not in self.ignore for word in _WORDS.findall(text.casefold()))

    def _decided(self, element: StreamElement, held: Floor) -> bool | None:
        """Whether the speech interrupts; None where that is still open."""
        content = element.content
        if content.__class__ is Interrupt:
            return False
        value = content.value if content.__class__ is Data else None
        if self.minimum_words:
            if _is_said(element):
                enough = self._weight(content.text) >= self.minimum_words
                final = content.__class__ is Message or element.metadata[TRANSCRIPT] == "final"
                return True if enough else False if final else None
            return False if value is _DECIDE or value.__class__ is SpeechEnded else None
        if value.__class__ is SpeechEnded:
            return bool(value.duration >= self.minimum_duration) and not _gets_words(held)
        return True if value is _DECIDE else None


def _gets_words(held: Floor) -> bool:
    """Whether what the user said before is still being understood: an interrupt would take it away and stop nothing."""
    return held.understanding and not held.speaking


def _wake(context: StageContext) -> None:
    with suppress(RxStageError):  # the input has ended
        context.post(StreamElement(Data(_DECIDE), priority=Priority.CRITICAL))


def _is_said(element: StreamElement) -> bool:
    content = element.content
    return (content.__class__ is Message and content.role == "user") or (
        content.__class__ is Text and TRANSCRIPT in element.metadata
    )
