"""Sound in pieces of one length."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

from pydantic import Field

from rxstage.audiospec import AudioSpec
from rxstage.content import Audio, EndOfTurn, Interrupt
from rxstage.element import StreamElement
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.framer import Framer

__all__ = ["FrameStage"]


class FrameStage(Stage):
    """Cuts and joins sound to pieces of exactly one length, whatever lengths it comes in.

    What is left at an `EndOfTurn`, at the end and where the form of the sound changes goes out as a shorter piece.

    Args:
        name: name in the graph.
        duration: seconds of sound in a piece; rounded to whole frames of its rate.
        pad: fill the last piece up with silence.

    Emits: `Audio`, each in the envelope of the piece that completed it. Everything else passes by.
    Holds: less than one piece.
    Completes: with its input.
    Fails: never.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Audio,)
    emits: ClassVar[tuple[Any, ...]] = (Audio,)

    duration: float = Field(default=0.02, gt=0)
    pad: bool = False

    def audio_out(self, incoming: AudioSpec) -> AudioSpec:
        """That of what comes in."""
        return incoming

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        framer: Framer | None = None
        newest: StreamElement | None = None
        async for element in elements:
            audio = element.content
            if audio.__class__ is Audio:
                if framer is None or not framer.fits(audio):
                    if framer is not None and newest is not None and (rest := framer.rest(self.pad)) is not None:
                        yield newest.replace(content=rest)
                    framer = Framer(audio, self.duration)
                newest = element
                for piece in framer.cut(audio):
                    yield element if piece is audio else element.replace(content=piece)
                continue
            if framer is not None and newest is not None:
                if audio.__class__ is EndOfTurn:
                    if (rest := framer.rest(self.pad)) is not None:
                        yield newest.replace(content=rest)
                elif audio.__class__ is Interrupt:
                    framer = None
            yield element
        if framer is not None and newest is not None and (rest := framer.rest(self.pad)) is not None:
            yield newest.replace(content=rest)
