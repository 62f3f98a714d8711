"""What a conversation looks like, and what it looks like plainly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from rxstage.cli.chat_text import called, clean, one_line
from rxstage.content import ToolCall, ToolResult

__all__ = ["LONGEST", "NARROWEST", "PlainScreen", "Screen"]

NARROWEST: Final = 20  # columns
LONGEST: Final = 1000  # columns of a note


class Screen(ABC):
    """Shows answers, and what is told beside them. Nothing that is told to it reaches the terminal unclean."""

    @abstractmethod
    def begin(self) -> None:
        """An answer is being waited for."""

    @abstractmethod
    def text(self, piece: str) -> None:
        """The next piece of the answer."""

    @abstractmethod
    def void(self, why: str) -> None:
        """What was shown of the answer is void, it begins again."""

    @abstractmethod
    def finish(self) -> None:
        """The answer has ended, or no more of it comes."""

    @abstractmethod
    def note(self, message: str, style: str = "dim") -> None:
        """What is told beside the answer, in as many rows as it takes."""

    @abstractmethod
    def glance(self, message: str, style: str = "dim") -> None:
        """The same, but one row at most."""

    @abstractmethod
    def markdown(self, *sources: str) -> None:
        """Texts that are no answer, each as a whole."""

    @abstractmethod
    def verbatim(self, text: str) -> None:
        """Lines as they are."""

    @abstractmethod
    def pairs(self, rows: Mapping[str, str]) -> None:
        """Two columns: names, and what there is to say of each."""

    def call(self, call: ToolCall) -> None:
        """The model asks for a tool."""
        self.glance(f"→ {called(call)}")

    def result(self, result: ToolResult) -> None:
        """A tool has a result."""
        self.glance(f"← {result.value}", "red" if result.is_error else "dim")


class PlainScreen(Screen):
    """Writes the text as it comes.

    Args:
        out: gets the answers, piece by piece.
        notes: gets what is told beside them.
        tools: whether calls of tools and their results are told.
    """

    def __init__(self, out: TextIO, notes: Console, *, tools: bool = True) -> None:
        self._out, self._notes, self._tools = out, notes, tools
        self._ends = ""  # line feeds that are written once something follows them
        self._written = False

    def begin(self) -> None:
        self._ends, self._written = "", False

    def text(self, piece: str) -> None:
        piece = clean(piece)
        if not self._written:
            piece = piece.lstrip("\n")
        body = piece.rstrip("\n")
        if body:
            self._out.write(self._ends + body)
            self._out.flush()
            self._ends, self._written = "", True
        self._ends += piece[len(body) :]

    def void(self, why: str) -> None:
        self.finish()
        self.note(f"what stands above of this answer is void, it begins again: {why}", "yellow")

    def finish(self) -> None:
        if self._written:
            self._out.write("\n")
            self._out.flush()
        self.begin()

    def note(self, message: str, style: str = "dim") -> None:
        self.finish()
        self._notes.print(Text(one_line(message, LONGEST), style), soft_wrap=True)

    def glance(self, message: str, style: str = "dim") -> None:
        self.note(one_line(message, max(self._notes.width - 1, NARROWEST)), style)

    def markdown(self, *sources: str) -> None:
        for source in sources:
            self.finish()
            self.text(source)
            self.finish()

    def verbatim(self, text: str) -> None:
        self.markdown(text)

    def pairs(self, rows: Mapping[str, str]) -> None:
        width = max(map(len, rows), default=0)
        self.verbatim("\n".join(f"{name:{width}}  {what}" for name, what in rows.items()))

    def call(self, call: ToolCall) -> None:
        if self._tools:
            super().call(call)

    def result(self, result: ToolResult) -> None:
        if self._tools:
            super().result(result)
