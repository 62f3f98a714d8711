"""Texts as they are compared: without the differences that people use to slip past a filter."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

__all__ = ["Folded", "fold"]

_IGNORED: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")  # blank, but of no such category


class Folded:
    """A text in lower case and in compatible characters, without invisible ones.

    Attributes:
        text: the folded text.
        places: for each of its characters and for its end the position in the text it was made of; None where all are
            the same.
    """

    __slots__ = ("places", "text")

    def __init__(self, text: str, places: Sequence[int] | None = None) -> None:
        self.text, self.places = text, places

    def place(self, position: int) -> int:
        """The position in the original text."""
        return position if self.places is None else self.places[position]

    def index(self, place: int) -> int:
        """The position here of what stands at `place` in the original text, or behind it."""
        return place if self.places is None else bisect_left(self.places, place)

    def end(self, position: int) -> int:
        """The position behind the character before `position`, in the original text."""
        return position if self.places is None or position == 0 else self.places[position - 1] + 1


def fold(text: str) -> Folded:
    """Fold a text: compatibility forms and letters with marks decomposed (NFKD), case folded, decimal digits as ASCII,
    invisible characters left out."""
    if text.isascii():
        return Folded(text.lower())
    pieces: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        if piece := _folded(character):
            pieces.append(piece)
            places.extend([place] * len(piece))
    places.append(len(text))
    return Folded("".join(pieces), places)


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    if (
        unicodedata.category(character) == "Cf"
        or character in _IGNORED
        or unicodedata.name(character, "").startswith("VARIATION SELECTOR")
    ):
        return ""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    return "".join(str(unicodedata.decimal(each)) if each.isdecimal() else each for each in plain)
