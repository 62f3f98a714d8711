"""Media out of messages, and messages of media."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar, Final, Literal

from msgspec.structs import replace
from pydantic import Field

from rxstage.content import Audio, EndOfTurn, Image, Interrupt, Message, Parts, Text, Video
from rxstage.conversation import HISTORY, PROMPT, is_aside
from rxstage.element import StreamElement
from rxstage.errors import RxStageError
from rxstage.priority import Priority
from rxstage.stage import Stage, StageContext, StageType

__all__ = ["PART", "ComposeMessageStage", "ExtractMediaStage"]

PART: Final = "part"
"""Key of the metadata: at which place of a message an element stood, from 0 on."""

_MEDIA: Final = (Image, Audio, Video)


class ExtractMediaStage(Stage):
    """Lets the images, sound and video of messages and of `Parts` go on as elements of their own, before the rest.

    So stages that work on images see those in messages too; a `ComposeMessageStage` behind them puts it all together.

    Args:
        name: name in the graph.
        keep: leave them in the message as well.

    Emits: each medium, with its place as `PART` in the metadata, then the message with the other parts; an empty one
        too, as it may end a turn. `Parts` of which nothing is left do not go on. History and prompts pass by.
    Holds: nothing.
    Completes: with its input.
    Fails: never.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Message, Parts)
    emits: ClassVar[tuple[Any, ...]] = (Image, Audio, Video, Message, Parts)

    keep: bool = False

    def apply(self, element: StreamElement) -> Iterator[StreamElement]:
        content: Message | Parts = element.content
        media = [(place, part) for place, part in enumerate(content.parts) if part.__class__ in _MEDIA]
        if not media or HISTORY in element.metadata or PROMPT in element.metadata:
            yield element
            return
        for place, part in media:
            yield element.replace(content=part, metadata={**element.metadata, PART: place})
        if self.keep:
            yield element
            return
        rest = tuple(part for part in content.parts if part.__class__ not in _MEDIA)
        if rest or content.__class__ is Message:
            yield element.replace(content=replace(content, parts=rest))


class ComposeMessageStage(Stage):
    """Makes one message of the text, images, sound and video of a turn.

    Where a message of that role comes itself they become parts of it: those that an `ExtractMediaStage` took out at the
    places that they had, others in front. Pieces of text that follow each other become one, as do pieces of sound of
    one form. Transcripts, history and prompts pass by.

    Args:
        name: name in the graph.
        role: who says the message.
        accepts: kinds of content that become parts; given to the constructor like `accepts` of any stage.
        max_bytes: of all parts of one message.

    Emits: a `Message` in the place of a message, of an `EndOfTurn` or of the end, before that. Everything else passes
        by.
    Holds: the parts of one message, `max_bytes` at most. An `Interrupt` takes them away.
    Completes: with its input.
    Fails: with `StageError` where a turn has more than `max_bytes`.
    """

    type: ClassVar[StageType] = StageType.ACCUMULATE
    accepts: ClassVar[tuple[Any, ...]] = (Text, Image, Audio, Video, Parts)
    emits: ClassVar[tuple[Any, ...]] = (Message,)

    role: Literal["system", "user", "assistant", "tool"] = "user"
    max_bytes: int = Field(default=32 * 1024 * 1024, gt=0)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        held: list[StreamElement] = []
        size = 0
        async for element in elements:
            content = element.content
            aside = is_aside(element)
            if content.__class__ in self.accepts and not aside:
                size += _size(content)
                if size > self.max_bytes:
                    raise RxStageError(
                        f"the message has more than {self.max_bytes} bytes; raise max_bytes, make the media smaller "
                        f"before it (ImageResizeStage, EncodeStage), or end the turn with an EndOfTurn"
                    )
                held.append(element)
                continue
            if held:
                if content.__class__ is Message and content.role == self.role and not aside:
                    yield _composed(held, element)
                    held, size = [], 0
                    continue
                if content.__class__ is EndOfTurn:
                    yield _composed(held, held[-1].replace(content=Message(self.role), priority=Priority.NORMAL))
                if content.__class__ in (EndOfTurn, Interrupt):
                    held, size = [], 0
            yield element
        if held:
            yield _composed(held, held[-1].replace(content=Message(self.role), priority=Priority.NORMAL))


def _composed(held: Sequence[StreamElement], message: StreamElement) -> StreamElement:
    """The message with those parts in it."""
    metadata: dict[str, Any] = {}
    for element in held:
        metadata |= element.metadata
    metadata = {**metadata, **message.metadata}
    metadata.pop(PART, None)
    parts = list(message.content.parts)
    placed = [element for element in held if PART in element.metadata]
    for element in sorted(placed, key=_place):
        parts.insert(_place(element), element.content)
    loose: list[Any] = []
    for element in held:
        if PART not in element.metadata:
            loose += element.content.parts if element.content.__class__ is Parts else (element.content,)
    joined = [part for _, group in groupby(loose, _form) for part in _joined(list(group))]
    return message.replace(content=replace(message.content, parts=(*joined, *parts)), metadata=metadata)


def _place(element: StreamElement) -> int:
    place: int = element.metadata[PART]
    return place


def _form(part: Any) -> Any:
    """What parts that can be one have in common."""
    if part.__class__ is Audio:
        return part.sample_rate, part.channels, part.format
    return part.__class__


def _joined(parts: list[Any]) -> list[Any]:
    """Parts of one form as one, where that can be."""
    first = parts[0]
    if len(parts) == 1 or first.__class__ not in (Text, Audio):
        return parts
    if first.__class__ is Text:
        return [Text("".join(part.text for part in parts))]
    return [replace(first, samples=b"".join(part.samples for part in parts))]


def _size(content: Any) -> int:
    if content.__class__ is Parts:
        return sum(map(_size, content.parts))
    if content.__class__ is Text:
        return len(content.text)
    return len(content.samples if content.__class__ is Audio else getattr(content, "data", b""))
