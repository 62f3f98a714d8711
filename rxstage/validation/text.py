"""Validators of the plain text: its length, patterns in it, words that must not be said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

from pydantic import Field

from rxstage.errors import require
from rxstage.validation.base import Match, StreamingValidator, Verdict
from rxstage.validation.finder import CONTEXT, Finder
from rxstage.validation.fold import fold

__all__ = ["BannedWords", "Length", "Pattern"]

_NO_SPACES: Final = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"  # between words


class Length(StreamingValidator):
    """Refuses what is too long or too short. A text that streams is stopped at `maximum`.

    Args:
        maximum: most characters, or None.
        minimum: fewest characters; above 0 the text is held till it is long enough to see.
    """

    redacts: ClassVar[bool] = False

    maximum: int | None = Field(default=None, ge=0)
    minimum: int = Field(default=0, ge=0)

    def __init__(self, maximum: int | None = None, minimum: int = 0, **options: Any) -> None:
        super().__init__(maximum=maximum, minimum=minimum, **options)
        if maximum is None and not minimum:
            raise ValueError("Length needs a maximum, a minimum or both")
        if maximum is not None and maximum < minimum:
            raise ValueError(f"Length(maximum={maximum}, minimum={minimum}) refuses every text")

    @property
    def streams(self) -> bool:
        return self.maximum is not None

    @property
    def whole(self) -> bool:
        return self.minimum > 0

    def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
        end = len(text)
        if self.maximum is None or end + offset <= self.maximum:
            return (), end
        return (Match(max(self.maximum - offset, start), end),), end

    def reason(self, matches: Sequence[Match]) -> str:
        return f"it is longer than {self.maximum} characters"

    def check(self, text: str) -> Verdict:
        length = len(text)
        if self.maximum is not None and length > self.maximum:
            return Verdict.failed(self.reason(()))
        if length < self.minimum:
            return Verdict.failed(f"it is shorter than {self.minimum} characters", length / self.minimum)
        return Verdict.passed()


class Pattern(StreamingValidator):
    """Refuses what a regular expression finds, or with `required` a text in which it finds nothing.

    It is searched with the package `regex`, whose syntax is that of `re` and more. While a text streams, what may be
    the begin of a match is held back, as long as it may. A search that takes longer than `timeout` counts as a match.

    Args:
        pattern: the regular expression. `^` and `$` are the begin and the end of the whole text.
        required: refuse a text without a match, instead of one with a match; the text is then held.
        ignore_case: whether upper and lower case are the same.
        timeout: seconds of computing that one search may take, during which nothing else runs.
        replacement: what stands in the place of a match after `redact`.

    Raises:
        rxstage.MissingExtra: `regex` is not installed (extra `validation`).
        ValueError: `pattern` is none, or matches the empty text.
    """

    pattern: str
    required: bool = False
    ignore_case: bool = False
    timeout: float = Field(default=0.1, gt=0)

    def __init__(self, pattern: str, **options: Any) -> None:
        super().__init__(pattern=pattern, **options)
        assert self._finder is not None  # raises what is wrong with the pattern

    @property
    def secret(self) -> bool:
        return not self.required

    @property
    def streams(self) -> bool:
        return not self.required

    @property
    def whole(self) -> bool:
        return self.required

    @cached_property
    def _finder(self) -> Finder:
        return Finder(self.pattern, ignore_case=self.ignore_case, timeout=self.timeout)

    def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
        try:
            found, settled = self._finder.find(text, start, final)
        except TimeoutError:
            return (Match(start, len(text), "timeout", self.replacement),), len(text)
        return [Match(each.start(), each.end(), "", self.replacement) for each in found], settled

    def reason(self, matches: Sequence[Match]) -> str:
        if any(match.kind == "timeout" for match in matches):
            return f"the search for {self.pattern!r} took longer than {self.timeout:g} s; make the pattern simpler"
        return f"it matches {self.pattern!r}"

    def check(self, text: str) -> Verdict:
        matches, _ = self.scan(text, 0, 0, True)
        if self.required and matches and matches[0].kind != "timeout":
            return Verdict.passed()
        if self.required and not matches:
            return Verdict.failed(f"it does not match {self.pattern!r}")
        return Verdict(not matches, float(not matches), self.reason(matches) if matches else "", tuple(matches))


class BannedWords(StreamingValidator):
    """Refuses texts with certain words or phrases in them.

    Whole words are compared, without regard to case, to the width and form of letters and to invisible characters
    between them. In scripts without spaces between words a word is found anywhere. Between the words of a phrase may
    stand up to 8 spaces.

    Args:
        words: the words and phrases, one by one or as one list.
        replacement: what stands in the place of one after `redact`.

    Raises:
        rxstage.MissingExtra: `regex` is not installed (extra `validation`).
        ValueError: no words are given, or an empty one.
    """

    words: tuple[str, ...]

    def __init__(self, *words: str | Iterable[str], **options: Any) -> None:
        given = tuple(words[0]) if len(words) == 1 and not isinstance(words[0], str) else words
        super().__init__(words=given or options.pop("words", ()), **options)
        assert self._finder is not None  # raises what is wrong with the words

    @cached_property
    def _finder(self) -> Finder:
        folded = [" ".join(fold(word).text.split()) for word in self.words]
        if not folded or not all(folded):
            raise ValueError("BannedWords needs at least one word, and none that is empty")
        return Finder(_alternatives(folded))

    def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
        low = max(start - CONTEXT, 0)
        piece = fold(text[low:] if low else text)
        found, settled = self._finder.find(piece.text, piece.index(start - low), final)
        matches = [
            Match(low + piece.place(each.start()), low + piece.end(each.end()), each.group(), self.replacement)
            for each in found
        ]
        return matches, max(low + piece.place(settled), matches[-1].end if matches else 0)

    def reason(self, matches: Sequence[Match]) -> str:
        return "it has a word in it that is banned"

    def quote(self, match: Match) -> str:
        return match.kind


def _alternatives(words: Iterable[str]) -> str:
    """One pattern for all words: as a tree, in which a search takes the same time for a thousand as for ten."""
    regex = require("regex", "validation")
    edgeless = regex.compile(_NO_SPACES)
    trees: dict[tuple[bool, bool], dict[str, Any]] = {}
    for word in words:
        begins, ends = (
            regex.match(r"\w", edge) is not None and edgeless.match(edge) is None for edge in (word[0], word[-1])
        )
        node = trees.setdefault((begins, ends), {})
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return "|".join(
        f"{_BEGIN if begins else ''}(?:{_branch(tree)}){_END if ends else ''}"
        for (begins, ends), tree in sorted(trees.items())
    )


_BEGIN: Final = r"(?<!\w)"
_END: Final = r"(?!\w)"
_GAP: Final = r"\s{1,8}"


def _branch(tree: dict[str, Any]) -> str:
    regex = require("regex", "validation")
    branches = [
        (_GAP if character == " " else regex.escape(character)) + _branch(below)
        for character, below in sorted(tree.items())
        if character
    ]
    if not branches:
        return ""
    several = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
    return f"(?:{several})?" if "" in tree else several
