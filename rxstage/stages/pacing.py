"""Sound at the pace at which it is heard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar, Final

from pydantic import Field

from rxstage.content import Audio, Data, EndOfTurn, Interrupt, Message, Text
from rxstage.conversation import Conversation, conversations, is_aside
from rxstage.element import StreamElement
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.floor import floor
from rxstage.voice.speech import Spoken

__all__ = ["PacingStage"]

_SOON: Final = 1e-6  # seconds that are not worth a wait, nor a clock's last digit


class PacingStage(Stage):
    """Lets sound go on when it is time to play it, in short frames, so that what was not played yet can be taken back.

    It keeps the account of what was heard: an `Interrupt` leaves of the answer in the conversation's history only the
    text whose sound had been played, by the `Spoken` marks between the sound, and nothing of the answers that wait
    behind it. It waits where an `InterruptionStage` tells it to.

    Args:
        name: name in the graph.
        pre_roll: seconds of sound that go ahead of their time, so that whoever plays it never runs dry.
        frame: seconds of sound in one element.

    Emits: `Audio` in frames, each when its time comes; everything else in its place between them.
    Holds: one piece of sound; a buffer of what follows, which slows whoever makes it.
    Completes: with its input, once the last frame has gone out.
    Fails: never by itself.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Audio,)
    emits: ClassVar[tuple[Any, ...]] = (Audio,)

    pre_roll: float = Field(default=0.2, ge=0)
    frame: float = Field(default=0.02, gt=0)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        held = floor(context)
        account = _Account(context)
        conversations(context).cutters.append(account.cut)
        newest: StreamElement | None = None
        async for element in elements:
            content = element.content
            if content.__class__ is Audio:
                newest = element
                account.hear(element.sequence)
                held.speaking = account.busy = True
                for frame in _frames(content, self.frame):
                    while not context.interrupted:
                        ahead = account.played - context.now()
                        if held.paused:
                            await context.sleep(self.frame)
                        elif ahead > self.pre_roll + _SOON:
                            await context.sleep(min(ahead - self.pre_roll, self.frame))
                        else:
                            break
                    if context.interrupted:
                        break
                    account.play(frame.duration)
                    yield element.replace(content=frame)
                else:
                    account.busy = False
                continue
            if content.__class__ is Data and content.value.__class__ is Spoken:
                account.mark(content.value.text)
            elif content.__class__ is Interrupt:
                account.interrupt(conversations(context).of(newest))
                held.over()
            elif content.__class__ is EndOfTurn:
                context.hold(element)
                while (left := account.played - context.now()) > _SOON and not context.interrupted:
                    await context.sleep(min(left, self.frame))
                if not context.interrupted:
                    held.done()
                    account.end()
            elif not element.is_control:
                account.go_on()
                if (said := _said(element)) is not None:
                    newest = element
                    account.hear(element.sequence)
                    account.say(said, whole=content.__class__ is Message)
            held.heard = account.heard()
            yield element


class _Account:
    """What has been played, and which text was heard in it.

    The history may be ahead of it by several answers, whose sound waits.
    """

    def __init__(self, context: StageContext) -> None:
        self._now = context.now
        self.played = 0.0  # when all that has gone out will have been played
        self.busy = False  # whether there is sound that has not gone out yet
        self._marks: list[tuple[float, str]] = []  # when each text will have been heard
        self._text: list[str] = []  # of the answer, as far as it has come
        self._whole = False  # whether that is all of it
        self._turn: int | None = None  # that it answers; None before the first
        self._left: tuple[str | None, int | None] | None = None  # what was heard, till whoever answers has asked
        self._asked = False  # whether whoever answers has heard of the interrupt first

    def play(self, seconds: float) -> None:
        """So much more sound has gone out."""
        self.go_on()
        self.played = max(self.played, self._now()) + seconds

    def hear(self, turn: int) -> None:
        """Something of the answer to that turn comes."""
        if turn != self._turn:
            self.end()
            self._turn = turn

    def say(self, text: str, whole: bool) -> None:
        """So much of the answer has come, or all of it."""
        if self._whole:  # that was the answer before
            self.end()
        if not whole or not self._text:
            self._text.append(text)
        self._whole = whole

    def mark(self, text: str) -> None:
        """The sound of that text has gone out."""
        self._marks.append((self.played, text))

    def heard(self) -> str:
        """The text of the answer that has gone out."""
        return "".join(text for _, text in self._marks)

    def end(self) -> None:
        """All of the answer has gone out; the next one begins."""
        self._marks.clear()
        self._text.clear()
        self._whole = False

    def go_on(self) -> None:
        """Something comes: an interrupt before it is history."""
        self._left = None

    def interrupt(self, conversation: Conversation) -> None:
        """The sound ends here. Whoever answers may still be adding what it had made: it asks then."""
        if not self._asked:
            self._left = self._so_far(), self._turn
            _cut(conversation, *self._left)
        self._asked = False
        self.played, self.busy = 0.0, False
        self.end()

    def cut(self, conversation: Conversation) -> None:
        """Leave of the answers what was heard, if they are being interrupted in their sound."""
        left, self._left = self._left, None
        if left is None:
            left, self._asked = (self._so_far(), self._turn), True
        _cut(conversation, *left)

    def _so_far(self) -> str | None:
        """What was heard of the answer; None if that was all of what has come.

        It is still being said where its sound is played or waits, or some of its text was not heard.
        """
        heard = "".join(text for at, text in self._marks if at <= self._now())
        ended = not self.busy and self.played <= self._now() and _letters(heard) >= _letters("".join(self._text))
        return None if ended else heard


def _cut(conversation: Conversation, heard: str | None, turn: int | None) -> None:
    if heard is not None and turn is not None:
        heard = _of_last(heard, conversation, conversation.answer(turn))
    conversation.cut(heard, turn)


def _of_last(heard: str, conversation: Conversation, answer: list[int]) -> str:
    """What was heard of the last message of an answer; before it come those that called tools."""
    for at in answer[:-1]:
        text = conversation.entries[at].message.text.strip()
        heard = heard.strip()
        if heard.startswith(text):
            heard = heard[len(text) :].lstrip()
        elif text.startswith(heard):
            return ""
    return heard


def _letters(text: str) -> int:
    return len("".join(text.split()))


def _said(element: StreamElement) -> str | None:
    """The text of an element that is part of an answer."""
    content = element.content
    if is_aside(element):
        return None
    if content.__class__ is Text or (content.__class__ is Message and content.role == "assistant"):
        return str(content.text)
    return None


def _frames(audio: Audio, seconds: float) -> Iterator[Audio]:
    size = max(round(audio.sample_rate * seconds), 1) * audio.format.width * audio.channels
    samples = audio.samples
    if len(samples) <= size:
        yield audio
        return
    for begin in range(0, len(samples), size):
        yield Audio(samples[begin : begin + size], audio.sample_rate, audio.channels, audio.format)
