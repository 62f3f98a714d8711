"""A history in pieces that are kept or left out as a whole, and the turn of a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rxstage.content import Message, Parts, Text, ToolResult
from rxstage.conversation import CONVERSATION, HISTORY, PROMPT, TRANSCRIPT
from rxstage.element import StreamElement

__all__ = ["Incoming", "Turns", "newest_turn", "pieces", "text_of"]

_TEXT: Final = 100_000  # characters of a turn that are looked at


def pieces(history: Sequence[Message]) -> list[tuple[int, int]]:
    """Where the pieces of a history begin and end.

    A piece is a turn: a user's message with all that follows up to the next, so that no tool's result is parted from
    its call. A system message begins one of its own.
    """
    if not history:
        return []
    begins = [index for index, message in enumerate(history) if message.role in ("user", "system")]
    if not begins or begins[0] != 0:
        begins.insert(0, 0)
    return list(zip(begins, [*begins[1:], len(history)], strict=True))


def newest_turn(history: Sequence[Message]) -> int:
    """Where the newest turn begins: at the last message of the user, or 0."""
    for index in range(len(history) - 1, -1, -1):
        if history[index].role == "user":
            return index
    return 0


def text_of(content: Any) -> str:
    """The text in a content, or ""."""
    if content.__class__ is Text:
        text: str = content.text
        return text
    if content.__class__ in (Message, Parts):
        return "".join(part.text for part in content.parts if part.__class__ is Text)
    return ""


class Incoming:
    """What has come in of a turn, as far as a prompt needs to know it.

    Attributes:
        empty: whether nothing has come that a model could answer.
        metadata: of its elements together; the later ones' win.
        last: its newest element.
        held: elements of it that are kept back.
        passed: whether something of it has gone on that cannot be taken back.
    """

    __slots__ = ("_length", "_texts", "empty", "held", "last", "metadata", "passed")

    def __init__(self) -> None:
        self.empty = True
        self.last: StreamElement | None = None
        self.held: list[StreamElement] = []
        self.passed = False
        self.metadata: Mapping[str, Any] = {}
        self._texts: list[str] = []
        self._length = 0

    @property
    def text(self) -> str:
        """What the user says in it; of a very long turn the beginning."""
        return "".join(self._texts)

    def add(self, element: StreamElement) -> None:
        """Take an element that belongs to the turn, or that ends it."""
        self.last = element
        content = element.content
        if PROMPT in element.metadata or HISTORY in element.metadata or TRANSCRIPT in element.metadata:
            return
        if element.metadata:
            self.metadata = {**self.metadata, **element.metadata} if self.metadata else element.metadata
        if element.is_control or content.__class__ is ToolResult:
            return
        if content.__class__ is Message and content.role != "user":
            return
        self.empty = False
        if self._length < _TEXT and (text := text_of(content)):
            self._texts.append(text[: _TEXT - self._length])
            self._length += len(self._texts[-1])


class Turns:
    """The turns that come in, one of each conversation: what belongs to one never shows in another's prompt."""

    __slots__ = ("_incoming",)

    def __init__(self) -> None:
        self._incoming: dict[str, Incoming] = {}

    def of(self, element: StreamElement) -> Incoming:
        """The turn that an element belongs to."""
        return self._incoming.setdefault(str(element.metadata.get(CONVERSATION, "")), Incoming())

    def ended(self, element: StreamElement | None) -> list[Incoming]:
        """Take out the turns that end: that of the element's conversation; all where it is a control that names none.

        Args:
            element: what ends a turn; None at the end of the input.
        """
        if element is not None and (not element.is_control or CONVERSATION in element.metadata):
            turns = [self.of(element)]
            del self._incoming[str(element.metadata.get(CONVERSATION, ""))]
        else:
            turns = list(self._incoming.values())
            self._incoming.clear()
        for turn in turns:
            if element is not None and element.is_control:
                turn.add(element)
        return turns

    def clear(self) -> None:
        """An interrupt has come: all of them are over."""
        self._incoming.clear()
