"""What a user has said in a turn, as elements: which they are, and how several become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rxstage.content import Data, Image, Message, Parts, Text
from rxstage.conversation import HISTORY, PROMPT
from rxstage.element import Metadata, StreamElement
from rxstage.ports.media import MediaReference

__all__ = ["belongs", "is_words", "joined", "text_of"]


def is_words(element: StreamElement) -> bool:
    """Whether it is a message in which the user says something now."""
    content, metadata = element.content, element.metadata
    return (
        content.__class__ is Message and content.role == "user" and PROMPT not in metadata and HISTORY not in metadata
    )


def belongs(element: StreamElement) -> bool:
    """Whether an element beside the words is part of the turn, as an image is, or an instruction."""
    content = element.content
    if content.__class__ is Data:
        return content.value.__class__ is MediaReference
    if content.__class__ is Message:
        return PROMPT in element.metadata
    return content.__class__ in (Text, Image, Parts) and HISTORY not in element.metadata


def text_of(words: Sequence[StreamElement]) -> str:
    """The text of messages, with spaces between."""
    return " ".join(filter(None, (each.content.text.strip() for each in words)))


def joined(words: Sequence[StreamElement], marks: Mapping[str, Any] | None = None) -> StreamElement:
    """One message of several, and `marks` in its metadata.

    Of the metadata the newest win, but the sound reaches from the `"start"` of the first to the `"end"` of the last.
    """
    newest = words[-1]
    if len(words) == 1 and not marks:
        return newest
    metadata: dict[str, Any] = {}
    for each in words:
        metadata.update(each.metadata)
    if "start" in words[0].metadata:
        metadata["start"] = words[0].metadata["start"]
    metadata.update(marks or {})
    if len(words) == 1:
        return newest.replace(metadata=Metadata(metadata))
    parts: list[Any] = []
    for each in words:
        for part in each.content.parts:
            if part.__class__ is Text and parts and parts[-1].__class__ is Text:
                part = Text(f"{parts.pop().text.rstrip()} {part.text.lstrip()}")
            parts.append(part)
    return newest.replace(content=Message("user", tuple(parts), name=newest.content.name), metadata=Metadata(metadata))
