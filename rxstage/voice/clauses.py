"""Cuts text that streams in into pieces that can be spoken: the first one soon, the others whole sentences."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ClauseSplitter"]

# A mark that ends a sentence with white space behind it: not the point of 3.14, nor that of an abbreviation.
_SENTENCE: Final = re.compile(r"[.!?…]+[\"')\]»”]*\s+|[。！？]|\n+")
_ANY: Final = re.compile(rf"{_SENTENCE.pattern}|[,;:–—]\s+|[、，；：]")
_ABBREVIATION: Final = re.compile(
    r"\b(?:\w|e\.g|i\.e|etc|vs|Mr|Mrs|Ms|Dr|Prof|St|No|Jr|Sr|z\.B|bzw|ca)\.\s+$", re.IGNORECASE
)
_LONGEST: Final = 400  # characters after which it is cut at a space, where nothing ends


class ClauseSplitter:
    """Collects text and gives what is complete.

    The first piece of an answer may end at a comma, so that the speech begins early; after that whole sentences sound
    better.

    Args:
        shortest: characters that the first piece has at least.
    """

    def __init__(self, shortest: int = 12) -> None:
        self._shortest = shortest
        self._text = ""
        self._begun = False

    def add(self, text: str) -> list[str]:
        """Take a piece of text; gives what can be spoken now."""
        self._text += text
        found: list[str] = []
        while (end := self._end()) is not None:
            found.append(self._text[:end])
            self._text = self._text[end:]
            self._begun = True
        return [piece for piece in found if piece.strip()]

    def rest(self) -> str:
        """What is left at the end of an answer; "" where that is nothing to be spoken. The next answer begins."""
        rest, self._text, self._begun = self._text, "", False
        return rest if rest.strip() else ""

    def _end(self) -> int | None:
        """Where the text can be cut first; not inside of code, which is not spoken."""
        text = self._text
        marks = _SENTENCE if self._begun else _ANY
        shortest = 2 if self._begun else self._shortest
        fence = text.find("```")
        for found in marks.finditer(text):
            end = found.end()
            if fence != -1 and end > fence:
                closed = text.find("```", fence + 3)
                return closed + 3 if closed != -1 else self._too_long()
            if end >= shortest and not _ABBREVIATION.search(text[:end]):
                return end
        return self._too_long()

    def _too_long(self) -> int | None:
        text = self._text
        return text.rfind(" ", 1, _LONGEST) + 1 or _LONGEST if len(text) > _LONGEST else None
