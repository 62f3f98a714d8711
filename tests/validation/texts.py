"""A text that streams past validators, as the tests of this folder see it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import strategies as st

from rxstage.validation import StreamingValidator
from rxstage.validation.passage import Passage

__all__ = ["cut", "cuts", "stream", "streamed"]


def stream(pieces: Iterable[str], *validators: StreamingValidator) -> tuple[list[str], list[str]]:
    """What leaves at each piece and at the end, everything that is found replaced; and what was found, in its words."""
    passage = Passage(validators)
    left: list[str] = []
    found: list[str] = []

    def take(final: bool, piece: str = "") -> None:
        for number, matches in passage.feed(piece, final):
            passage.replace(number, matches)
            found.extend(f"{match.start}-{match.end}" for match in matches)
        left.append(passage.take(passage.end if final else passage.safe))

    for piece in pieces:
        take(False, piece)
    take(True)
    return left, found


def streamed(pieces: Iterable[str], *validators: StreamingValidator) -> tuple[str, list[str]]:
    """The text that leaves, and what was found."""
    left, found = stream(pieces, *validators)
    return "".join(left), sorted(found)


def cut(text: str, places: Sequence[int]) -> list[str]:
    """A text in pieces."""
    ends = sorted(place % (len(text) + 1) for place in places)
    return [text[begin:end] for begin, end in zip([0, *ends], [*ends, len(text)], strict=True)]


cuts = st.lists(st.integers(0, 10_000), max_size=40)
"""Places to cut a text at."""
