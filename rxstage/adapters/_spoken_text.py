"""Text as engines of speech can take it: without control characters, and in pieces of a bounded length."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["speakable", "text_pieces"]

# C0 and C1 but for white space, among them NUL, which ends a string of C, and those that begin commands of espeak's;
# and halves of characters, which cannot be sent anywhere.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]+")
_ENDS: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (r".*[.!?…][\"')\]»”]*\s|.*[。！？\n]", r".*[,;:–—]\s|.*[、，；：]", r".*\s")
)


def speakable(text: str) -> str:
    """The text without what no engine speaks and some take for commands."""
    return _CONTROLS.sub(" ", text)


def text_pieces(text: str, longest: int) -> Iterator[str]:
    """The text in pieces of at most `longest` characters; cut behind a sentence if possible, else a clause, a word.

    What is white space only is left out.
    """
    begin = 0
    while begin < len(text):
        end = begin + longest
        if end < len(text):
            found = (pattern.match(text, begin, end) for pattern in _ENDS)
            end = next((match.end() for match in found if match), end)
        if piece := text[begin:end].strip():
            yield piece
        begin = end
