"""Finds patterns in a text that is still coming: what may yet become a match is told apart from what cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rxstage.errors import require

__all__ = ["CONTEXT", "Finder"]

CONTEXT: Final = 64
"""Characters before the position where a search begins that it may look back at."""

_NEVER: Final = "\ufdd0"  # a noncharacter, which stands in no text


class Finder:
    """A pattern, searched with the package `regex` for its partial matches and its time limit.

    Args:
        source: the pattern.
        extra: what brings the package.
        ignore_case: whether upper and lower case are the same.
        timeout: seconds of computing for one search, or None.

    Raises:
        MissingExtra: `regex` is not installed.
        ValueError: the pattern is none, or matches the empty text.
    """

    def __init__(
        self, source: str, extra: str = "validation", *, ignore_case: bool = False, timeout: float | None = None
    ) -> None:
        regex = require("regex", extra)
        flags = regex.IGNORECASE if ignore_case else 0
        try:
            self._pattern: Any = regex.compile(source, flags)
        except regex.error as error:
            raise ValueError(f"{source!r} is no pattern: {error}") from error
        if "(?R)" in source or "(?0)" in source:
            raise ValueError(f"the pattern {source!r} calls itself, which cannot be searched while a text streams")
        end = "\n)" if self._pattern.flags & regex.VERBOSE else ")"  # a comment would swallow the parenthesis
        # Never matches, so that a partial match of it is a match that more text could make or lengthen.
        self._unfinished: Any = regex.compile(f"(?:{source}{end}{_NEVER}", flags)
        if self._pattern.search("") is not None:
            raise ValueError(f"the pattern {source!r} matches the empty text, which is everywhere")
        self._timeout = timeout
        self._dollar = "$" in source

    def find(self, text: str, start: int, final: bool) -> tuple[list[Any], int]:
        """The matches from `start` on that more text cannot change, and where the rest begins that it can.

        Raises:
            TimeoutError: a search took too long.
        """
        # `$` matches before a line break that ends the text; which one does is not known yet.
        end = max(start, len(text.rstrip("\n"))) if self._dollar and not final else len(text)
        first = self._pattern.search(text, start, end, partial=not final, timeout=self._timeout)
        if first is None:
            return [], end
        if first.partial:
            return [], first.start()
        settled = end if final else self.unfinished(text, start, end)
        found: list[Any] = []
        for match in self._pattern.finditer(text, start, end, timeout=self._timeout):
            if match.start() >= settled:
                break
            found.append(match)
            if not final and match.end() > settled:
                settled = self.unfinished(text, match.end(), end)
        return found, settled

    def unfinished(self, text: str, start: int, end: int | None = None) -> int:
        """Where the first match begins that more text could make, or change; the end of the text if there is none.

        Raises:
            TimeoutError: the search took too long.
        """
        end = len(text) if end is None else end
        match = self._unfinished.search(text, start, end, partial=True, timeout=self._timeout)
        return end if match is None else int(match.start())

    def all(self, text: str, start: int) -> Iterator[Any]:
        """A match for each place from `start` on where one begins, as the text is now; they may overlap."""
        matches: Iterator[Any] = self._pattern.finditer(text, start, overlapped=True, timeout=self._timeout)
        return matches
