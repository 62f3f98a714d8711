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
_FENCE: Final = "```"
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
        begin, fence = 0, self._text.find(_FENCE)
        while (end := self._end(begin, fence)) is not None:
            found.append(self._text[begin:end])
            begin, self._begun = end, True
            if -1 < fence < begin:
                fence = self._text.find(_FENCE, begin)
        self._text = self._text[begin:]
        return [piece for piece in found if piece.strip()]

    def rest(self) -> str:
        """What is left at the end of an answer; "" where that is nothing to be spoken. The next answer begins."""
        rest, self._text, self._begun = self._text, "", False
        return rest if rest.strip() else ""

    def _end(self, begin: int, fence: int) -> int | None:
        """Where what begins there can be cut first. Code stays whole, as it is not spoken; it begins at `fence`."""
        text = self._text
        marks = _SENTENCE if self._begun else _ANY
        shortest = begin + (2 if self._begun else self._shortest)
        for found in marks.finditer(text, begin):
            end = found.end()
            if -1 < fence < end:
                break
            if end >= shortest and not _ABBREVIATION.search(text[begin:end]):
                return end
        if -1 < fence <= begin + _LONGEST:
            closed = text.find(_FENCE, fence + len(_FENCE))
            return closed + len(_FENCE) if closed != -1 else None
        if len(text) - begin <= _LONGEST:
            return None
        return text.rfind(" ", begin + 1, begin + _LONGEST) + 1 or begin + _LONGEST
