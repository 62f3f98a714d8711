"""Sound at the pace at which it is heard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar, Final

from pydantic import Field

from rxstage.content import Audio, Data, EndOfTurn, Interrupt
from rxstage.conversation import conversations
from rxstage.element import StreamElement
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.floor import floor
from rxstage.voice.speech import Spoken

__all__ = ["PacingStage"]

_SOON: Final = 1e-6  # seconds that are not worth a wait, nor a clock's last digit


class PacingStage(Stage):
    """Lets sound go on when it is time to play it, in short frames, so that what was not played yet can be taken back.

    It keeps the account of what was heard: an `Interrupt` leaves of the answer in the conversation's history only the
    text whose sound had been played, by the `Spoken` marks between the sound. It waits where an `InterruptionStage`
    tells it to.

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
        played = 0.0  # when all that has gone out will have been played
        newest: StreamElement | None = None
        marks: list[tuple[float, str]] = []  # when each text will have been heard
        async for element in elements:
            content = element.content
            if content.__class__ is Audio:
                newest = element
                held.speaking = True
                for frame in _frames(content, self.frame):
                    while not context.interrupted:
                        now = context.now()
                        if held.paused:
                            played = max(played, now) + self.frame
                            await context.sleep(self.frame)
                        elif played - now > self.pre_roll + _SOON:
                            await context.sleep(min(played - now - self.pre_roll, self.frame))
                        else:
                            break
                    if context.interrupted:
                        break
                    played = max(played, context.now()) + frame.duration
                    yield element.replace(content=frame)
                continue
            if content.__class__ is Data and content.value.__class__ is Spoken:
                marks.append((played, content.value.text))
            elif content.__class__ is Interrupt:
                if held.speaking and played > context.now():
                    heard = "".join(text for at, text in marks if at <= context.now())
                    conversations(context).of(newest).cut(heard)
                held.over()
                marks.clear()
                played = 0.0
            elif content.__class__ is EndOfTurn:
                context.hold(element)
                while (now := context.now()) + _SOON < played and not context.interrupted:
                    await context.sleep(min(played - now, self.frame))
                if not context.interrupted:
                    held.done()
                    marks.clear()
            held.heard = "".join(text for _, text in marks)
            yield element


def _frames(audio: Audio, seconds: float) -> Iterator[Audio]:
    size = max(round(audio.sample_rate * seconds), 1) * audio.format.width * audio.channels
    samples = audio.samples
    if len(samples) <= size:
        yield audio
        return
    for begin in range(0, len(samples), size):
        yield Audio(samples[begin : begin + size], audio.sample_rate, audio.channels, audio.format)
