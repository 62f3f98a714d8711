"""A text on its way past the validators that look at it as it streams."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import Final

from rxstage.validation.base import Match, StreamingValidator
from rxstage.validation.errors import ValidatorError
from rxstage.validation.finder import CONTEXT

__all__ = ["Finding", "Passage"]

_TRIM: Final = 256  # characters that have left before the part that is kept is cut

Finding = tuple[int, Sequence[Match]]
"""The number of a validator, and what it has found: places in the whole text."""


class Passage:
    """A text that comes piece by piece, and leaves once all validators have settled it.

    Of what has left, `CONTEXT` characters at least are kept for the validators to look back at.

    Args:
        validators: look at it, each at every piece.
        begin: place in the whole text where it begins.
    """

    __slots__ = ("_base", "_matches", "_settled", "_text", "_validators", "_waits", "end", "left")

    def __init__(self, validators: Sequence[StreamingValidator], begin: int = 0) -> None:
        self._validators = validators
        self._settled = [begin] * len(validators)
        self._waits = [0] * len(validators)
        self._matches: list[tuple[int, int, Match]] = []  # to be replaced: begin, number of the validator, match
        self._text = ""
        self._base = begin  # place of the first character of `_text`
        self.end = begin  # place behind the last character that has come
        self.left = begin  # place behind the last character that has left

    @property
    def held(self) -> int:
        """Characters that have come and not left."""
        return self.end - self.left

    @property
    def safe(self) -> int:
        """The place up to which all validators have settled it."""
        return min(self._settled, default=self.end)

    def feed(self, piece: str, final: bool = False) -> list[Finding]:
        """Take a piece; gives what was found in what is settled now.

        Raises:
            ValidatorError: a validator raised.
        """
        text = self._text = self._text + piece
        base = self._base
        self.end = base + len(text)
        found: list[Finding] = []
        settled, waits = self._settled, self._waits
        for number, validator in enumerate(self._validators):
            start = settled[number] - base
            # What is held for long is searched again only where it has grown by an eighth: else the time that a long
            # text takes would grow with the square of its length.
            if len(text) - start < waits[number] and not final:
                continue
            try:
                matches, upto = validator.scan(text, start, base, final)
            except Exception as error:
                raise ValidatorError(validator.name, f"{type(error).__name__}: {error}") from error
            if not start <= upto <= len(text):
                upto = max(start, min(upto, len(text)))
            settled[number] = upto + base
            waits[number] = (len(text) - upto) * 9 // 8
            if matches:
                found.append((number, [Match(m.start + base, m.end + base, m.kind, m.replacement) for m in matches]))
        return found

    def replace(self, number: int, matches: Sequence[Match]) -> None:
        """Have what a validator has found replaced."""
        for match in matches:
            insort(self._matches, (match.start, number, match), key=_place)

    def take(self, upto: int) -> str:
        """What may leave now: the text up to a place, matches replaced."""
        base, text, place = self._base, self._text, self.left
        if upto <= place:
            return ""
        pieces: list[str] = []
        taken = 0
        for start, _, match in self._matches:
            if start >= upto:
                break
            taken += 1
            if start >= place:
                pieces += text[place - base : start - base], match.replacement
            place = max(place, match.end)
        del self._matches[:taken]
        if place < upto:
            pieces.append(text[place - base : upto - base])
            place = upto
        self.left = place
        if place - base > _TRIM:
            cut = max(min((place, *self._settled)) - CONTEXT, base)
            self._text, self._base = text[cut - base :], cut
        return "".join(pieces)


def _place(entry: tuple[int, int, Match]) -> tuple[int, int]:
    return entry[:2]
