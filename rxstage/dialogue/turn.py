"""What comes in till a turn ends, and the one message of the user that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rxstage.content import Message, Parts, Text
from rxstage.conversation import PROMPT
from rxstage.element import Metadata, StreamElement

__all__ = ["Turn"]


class Turn:
    """Collects the contents of a turn.

    Attributes:
        instructions: messages that hold for this turn only, system messages first.
        element: the first element of the turn, None before.
        metadata: of its elements together; the later ones' win.
    """

    __slots__ = ("_contents", "element", "instructions", "metadata")

    def __init__(self) -> None:
        self.instructions: list[Message] = []
        self.element: StreamElement | None = None
        self.metadata: Mapping[str, Any] = {}
        self._contents: list[Any] = []

    @property
    def empty(self) -> bool:
        """Whether nothing has come that could be answered."""
        return not self._contents

    def add(self, element: StreamElement) -> None:
        """Take one element."""
        content = element.content
        if PROMPT in element.metadata:
            self.instructions.append(content if content.__class__ is Message else Message.system(content))
            self.instructions.sort(key=lambda message: message.role != "system")
            return
        self._contents.append(content)
        if self.element is None:
            self.element, self.metadata = element, element.metadata
        elif element.metadata:
            self.metadata = {**self.metadata, **element.metadata}

    def message(self) -> Message | None:
        """The user's message: what came in, with neighbouring texts joined; None where nothing came."""
        contents = self._contents
        if not contents:
            return None
        if len(contents) == 1 and contents[0].__class__ is Message:
            only: Message = contents[0]
            return only
        parts: list[Any] = []
        name = None
        for content in contents:
            if content.__class__ is Message:
                name = name or content.name
                parts.extend(content.parts)
            elif content.__class__ is Parts:
                parts.extend(content.parts)
            elif content.__class__ is Text and parts and parts[-1].__class__ is Text:
                parts[-1] = Text(parts[-1].text + content.text)
            else:
                parts.append(content)
        return Message("user", tuple(parts), name=name)

    def envelope(self, stage: str) -> StreamElement:
        """What the answer's elements are made from."""
        first = self.element or StreamElement("")
        return StreamElement(
            "", metadata=Metadata(self.metadata), sequence=first.sequence, timestamp=first.timestamp, source=stage
        )
