"""A history in pieces that are kept or left out as a whole, and the turn of a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rxstage.content import Message, Parts, Text, ToolResult
from rxstage.conversation import HISTORY, PROMPT
from rxstage.element import StreamElement

__all__ = ["Incoming", "newest_turn", "pieces", "text_of"]

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
    """

    __slots__ = ("_length", "_texts", "empty", "metadata")

    def __init__(self) -> None:
        self.empty = True
        self.metadata: Mapping[str, Any] = {}
        self._texts: list[str] = []
        self._length = 0

    @property
    def text(self) -> str:
        """What the user says in it; of a very long turn the beginning."""
        return "".join(self._texts)

    def add(self, element: StreamElement) -> None:
        """Take an element that belongs to the turn, or that ends it."""
        content = element.content
        if PROMPT in element.metadata or HISTORY in element.metadata:
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
