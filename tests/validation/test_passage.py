"""A text on its way: what leaves when, what is replaced, what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from texts import stream

from rxstage.validation import Match, StreamingValidator, ValidatorError
from rxstage.validation.finder import CONTEXT
from rxstage.validation.passage import Passage


class Marks(StreamingValidator):
    """Finds a character, and settles everything but the last `back` characters."""

    mark: str = "x"
    width: int = 1
    back: int = 0

    def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
        settled = len(text) if final else max(start, len(text) - self.back)
        places = [place for place in range(start, settled) if text[place] == self.mark]
        return [Match(place, place + self.width, "", self.replacement) for place in places], settled

    def reason(self, matches: Sequence[Match]) -> str:
        return f"{len(matches)} marks"


def test_without_validators() -> None:
    """Nothing is held where nobody looks."""
    assert stream(["ab", "c"])[0] == ["ab", "c", ""]


def test_the_slowest_decides() -> None:
    """A text leaves as far as all have settled it."""
    assert stream(["abc", "def", "g"], Marks(back=1), Marks(back=4), Marks())[0] == ["", "ab", "c", "defg"]


def test_matches_that_meet_are_replaced_once() -> None:
    """Where matches overlap, the replacement of the first stands for all of them."""
    first, second = Marks(mark="x", width=3, replacement="[1]"), Marks(mark="y", width=3, replacement="[2]")
    assert stream(["axbyczd-"], first, second)[0] == ["a[1]d-", ""]
    assert stream(["ax", "byc", "zd-"], first, Marks(mark="y", width=3, replacement="[2]", back=1))[0] == [
        *("a", "[1]", "d", "-")
    ]
    assert stream(["xyzab"], first, second)[0] == ["[1]b", ""]
    assert stream(["abxcdey"], first, second)[0] == ["ab[1]e[2]", ""]


def test_a_match_reaches_into_what_comes() -> None:
    """Of a match that goes on behind what has come, the rest is replaced too."""
    assert stream(["ax", "bcd"], Marks(width=3))[0] == ["a[redacted]", "d", ""]


def test_little_is_kept() -> None:
    """Of what has left, no more is kept than the validators may look back at, and a bit."""
    seen: list[tuple[int, int, int]] = []

    class Watch(Marks):
        def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
            seen.append((len(text), start, offset))
            return super().scan(text, start, offset, final)

    left, _ = stream(["0123456789"] * 1000, Watch())
    assert "".join(left) == "0123456789" * 1000
    assert max(length for length, _, _ in seen) <= 4 * CONTEXT + 2 * 10
    assert all(start >= CONTEXT or offset == 0 for _, start, offset in seen)
    assert seen[-1][1] + seen[-1][2] == 10_000


def test_what_is_held_for_long_is_not_searched_at_each_piece() -> None:
    """A text of which all is held is searched as often as it grows by an eighth, not as often as a piece comes."""
    searches: list[int] = []

    class Never(Marks):
        def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
            searches.append(len(text))
            return [], len(text) if final else start

    left, _ = stream(["0123"] * 4000, Never())
    assert left[-1] == "0123" * 4000
    assert sum(searches) < 12 * 16_000
    assert searches[:3] == [4, 8, 12]


def test_places_count_from_the_begin() -> None:
    """What is found is given as places in the whole text, wherever it begins."""
    passage = Passage([Marks()], begin=100)
    passage.feed("ab")
    assert (passage.take(passage.safe), passage.held) == ("ab", 0)
    ((number, matches),) = passage.feed("cx")
    assert (number, matches[0].start, passage.end) == (0, 103, 104)


@pytest.mark.parametrize("upto", [100, -5])
def test_a_validator_that_is_wrong_about_itself(upto: int) -> None:
    """What it says of text that has not come yet does not count."""

    class Wrong(Marks):
        def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
            matches, _ = super().scan(text, start, offset, final)
            return matches, upto

    left, found = stream(["ab", "x", "cd"], Wrong())
    assert ("".join(left), set(found)) == ("ab[redacted]cd", {"2-3"})


def test_a_validator_raises() -> None:
    """The error names the validator and keeps its cause."""

    class Raises(Marks):
        def scan(self, text: str, start: int, offset: int, final: bool) -> Any:
            raise LookupError("no table")

    with pytest.raises(ValidatorError, match="'raises' failed: LookupError: no table") as caught:
        Passage([Marks(), Raises()]).feed("a")
    assert caught.value.validator == "raises"
    assert isinstance(caught.value.__cause__, LookupError)
