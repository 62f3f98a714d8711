"""Length, patterns, banned words: what they find, however a text is cut, and what they cannot be made to do."""

from __future__ import annotations

import pickle
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import cut, cuts, stream, streamed

from rxstage.validation import BannedWords, Length, Pattern, StreamingValidator, Verdict

pytestmark = pytest.mark.needs("module:regex")


def verdict(validator: Any, text: str) -> Verdict:
    result = validator.check(text)
    assert isinstance(result, Verdict)
    return result


# ------------------------------------------------------------------------------------------ length


def test_length() -> None:
    """A maximum and a minimum, each alone and together; the score says how far a text is from the minimum."""
    assert verdict(Length(3), "abc") == Verdict.passed()
    assert verdict(Length(3), "abcd") == Verdict.failed("it is longer than 3 characters")
    assert verdict(Length(minimum=4), "abc") == Verdict.failed("it is shorter than 4 characters", 0.75)
    assert verdict(Length(4, 2), "abc").ok
    assert (Length(3).streams, Length(3).whole) == (True, False)
    assert (Length(minimum=1).streams, Length(minimum=1).whole) == (False, True)
    assert (Length(3, 1).streams, Length(3, 1).whole) == (True, True)


@pytest.mark.parametrize("options", [{}, {"maximum": 3, "minimum": 4}, {"maximum": -1}, {"minimum": -1}])
def test_length_refuses(options: dict[str, int]) -> None:
    """A length that says nothing, or contradicts itself, is an error."""
    with pytest.raises(ValueError, match="Length"):
        Length(**options)


def test_length_while_it_streams() -> None:
    """The place where it is too long is found at the piece that goes past it."""
    scan = Length(5).scan
    assert scan("abc", 0, 0, False) == ((), 3)
    (match,), settled = scan("abcdefg", 3, 0, False)
    assert (match.start, match.end, settled) == (5, 7, 7)
    (match,), _ = scan("xyz", 0, 4, False)  # four have gone before
    assert (match.start, match.end) == (1, 3)


# ------------------------------------------------------------------------------------------ patterns


def test_pattern() -> None:
    """A text with a match is refused, or with `required` one without; the reason names the pattern, not the match."""
    refused = verdict(Pattern(r"key-\d+"), "my key-4711 is")
    assert (refused.ok, refused.score, refused.reason, refused.quote) == (False, 0.0, r"it matches 'key-\\d+'", "")
    assert [(match.start, match.end) for match in refused.matches] == [(3, 11)]
    assert verdict(Pattern(r"key-\d+"), "nothing").ok
    assert verdict(Pattern("yes|no", required=True), "oh no").ok
    assert verdict(Pattern("^(?:yes|no)$", required=True), "oh no").reason == "it does not match '^(?:yes|no)$'"
    assert verdict(Pattern("SECRET", ignore_case=True), "a secret").ok is False
    assert verdict(Pattern("(?i)SECRET"), "a secret").ok is False


@pytest.mark.parametrize(
    ("pattern", "says"),
    [("(", "is no pattern"), ("a*", "matches the empty text"), (r"\((?:[^()]|(?R))*\)", "calls itself")],
)
def test_pattern_refuses(pattern: str, says: str) -> None:
    """What is no pattern, or none that can be looked for in a stream, is an error that quotes it."""
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        Pattern(pattern)
    assert pattern in str(caught.value).replace("\\\\", "\\")


def test_pattern_holds_what_may_become_a_match() -> None:
    """Only what may be the begin of a match is held back; the rest leaves at once."""
    ssn = Pattern(r"\b\d{3}-\d{2}-\d{4}\b", replacement="#")
    assert stream(["no 12", "3-4", "5-678", "9", " end"], ssn)[0] == ["no ", "", "", "", "# end", ""]
    assert stream(["no 12", " or 123-", "x"], ssn)[0] == ["no ", "12 or ", "123-x", ""]
    assert stream(["the quick", " brown fox"], ssn)[0] == ["the quick", " brown fox", ""]
    plain = Pattern("secret: [a-z]+;")
    assert stream(["a sec", "ond", " secret: abc", "; b"], plain)[0] == ["a ", "second", " ", "[redacted] b", ""]


def test_pattern_knows_a_match_that_more_text_changes() -> None:
    """A match that may grow, or may stop to be one, is not taken before that is known."""
    assert streamed(["1234", " 56", "78."], Pattern(r"\d{4}(?: \d{4})?"))[0] == "[redacted]."
    assert streamed(["ab", "c", "d"], Pattern("abcd|ab"))[0] == "[redacted]"
    assert streamed(["foo", "bar foo", "z"], Pattern("foo(?!bar)"))[0] == "foobar [redacted]z"
    assert streamed(["abcdef", "g defg"], Pattern("abcde|defg"))[0] == "[redacted]fg [redacted]"
    assert streamed(["x", "ab", "c"], Pattern("xabc|b"))[0] == "[redacted]"
    assert streamed(["the e", "nd"], Pattern("end$"))[0] == "the [redacted]"
    assert streamed(["the e", "nd", "s"], Pattern("end$"))[0] == "the ends"
    assert streamed(["end\n", "more"], Pattern("end$"))[0] == "end\nmore"
    assert streamed(["end", "\n"], Pattern("end$"))[0] == "[redacted]\n"
    assert streamed(["a # b", "c"], Pattern("(?x) b c  # a comment"))[0] == "a # [redacted]"


PATTERNS = [
    r"\b\d{3}-\d{2}-\d{4}\b",
    r"\d{4}(?: \d{4})?",
    "abcd|ab|b+c",
    "ab[^b]{3}|cd1|1 a",
    "a.*b",
    "a[^b]*?b",
    "(?<=a)b+",
    "a(?=b)",
    "foo(?!bar)",
    "(?i)straße",
    r"(\w)\1",
    "b$",
    "^ab",
    "(?m)^b|b$",
    r"a\Z",
    "(?<!a)b{2}",
    r"\w+ \w+-",
    "(?s)1.{0,4}4",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.text("ab cd1234-\nfor", max_size=60), places=cuts)
@settings(max_examples=150, deadline=None)
def test_pattern_does_not_see_the_cuts(pattern: str, text: str, places: list[int]) -> None:
    """What is found and what leaves does not depend on how a text is cut."""
    validator = Pattern(pattern, replacement="#", timeout=10.0)
    assert streamed(cut(text, places), validator) == streamed([text], validator)


@given(text=st.text("ab cd1234-\nfor", max_size=60), places=cuts)
@settings(max_examples=300, deadline=None)
def test_several_do_not_see_the_cuts(text: str, places: list[int]) -> None:
    """Nor do several validators together, whose matches overlap."""
    several: list[StreamingValidator] = [
        Pattern(r"\d{4}(?: \d{4})?", replacement="1"),
        BannedWords("cd", "for a", replacement="2"),
        Pattern("a.{2,5}b", replacement="3", timeout=10.0),
    ]
    assert streamed(cut(text, places), *several) == streamed([text], *several)


@pytest.mark.parametrize("pattern", [r"(a|aa)+$", r"(?:a|a)+b", "(?:a|b|aa)+$"])
def test_a_pattern_that_explodes_is_stopped(pattern: str) -> None:
    """A search that would take for ever ends at its time limit and counts as a match; the text does not pass."""
    validator = Pattern(pattern, timeout=0.02)
    attack = "a" * 60 + " "
    begin = time.process_time()
    refused = verdict(validator, attack)
    matches, settled = validator.scan(attack, 0, 0, False)
    assert time.process_time() - begin < 5.0
    assert (refused.ok, settled) == (False, len(attack))
    assert "took longer than 0.02 s" in refused.reason
    assert [(match.start, match.end, match.kind) for match in matches] == [(0, len(attack), "timeout")]
    assert verdict(Pattern(pattern, timeout=0.02, required=True), attack).ok is False


# ------------------------------------------------------------------------------------------ banned words


def test_banned_words() -> None:
    """Whole words, in any case; the reason does not say which, the quote does."""
    validator = BannedWords("darn", "very bad", "c++")
    refused = verdict(validator, "Oh DARN.")
    assert (refused.ok, refused.reason, refused.quote) == (False, "it has a word in it that is banned", "darn")
    assert streamed(["darned darn, (c++) very  bad every badge undarn"], validator)[0] == (
        "darned [redacted], ([redacted]) [redacted] every badge undarn"
    )
    with pytest.raises(ValueError, match="at least one word"):
        BannedWords()
    with pytest.raises(ValueError, match="none that is empty"):
        BannedWords("a", " \u200b")


EVASIONS = {
    "full width": "ｄａｒｎ",
    "mathematical": "𝐝𝒂𝓻𝔫",
    "zero width": "d\u200ba\u200cr\u200dn",
    "soft hyphen": "da\u00adrn",
    "word joiner": "da\u2060rn",
    "byte order mark": "da\ufeffrn",
    "right to left mark": "dar\u200fn",
    "variation selector": "da\ufe0frn",
    "grapheme joiner": "da\u034frn",
    "filler": "da\u3164rn",
    "upper case": "DARN",
    "circled": "ⓓⓐⓡⓝ",
}


@pytest.mark.parametrize("how", EVASIONS)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_banned_words_are_not_evaded(how: str, size: int) -> None:
    """Another form of the letters, and what cannot be seen between them, does not help, nor does a cut in the word."""
    text = f"say {EVASIONS[how]}! now"
    pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
    assert streamed(pieces, BannedWords("darn"))[0] == "say [redacted]! now"


def test_banned_words_of_other_scripts() -> None:
    """Letters with marks are compared as one and as several characters; where words have no spaces, anywhere."""
    assert streamed(["schon schön scho\u0308n SCHÖN"], BannedWords("schön"))[0] == (
        "schon [redacted] [redacted] [redacted]"
    )
    assert streamed(["STRASSE Straße"], BannedWords("straße"))[0] == "[redacted] [redacted]"
    assert streamed(["这是坏话吗"], BannedWords("坏话"))[0] == "这是[redacted]吗"
    assert streamed(["über uber"], BannedWords("uber"))[0] == "über [redacted]"


def test_banned_words_hold_the_begin_of_a_word_only() -> None:
    """A piece leaves at once unless it ends with the begin of one of the words."""
    validator = BannedWords("darn", "very bad")
    assert stream(["The", " quick", " da", "y", " is very", " good", " dar", "n"], validator)[0] == [
        *("The", " quick", " ", "day", " is ", "very good", " ", "", "[redacted]")
    ]


@given(text=st.text("darn bv\u200bｄy", max_size=40), places=cuts)
@settings(max_examples=300, deadline=None)
def test_banned_words_do_not_see_the_cuts(text: str, places: list[int]) -> None:
    """What is found does not depend on how a text is cut, invisible characters and all."""
    validator = BannedWords("darn", "very bad", "yd")
    assert streamed(cut(text, places), validator) == streamed([text], validator)


def test_many_words() -> None:
    """A thousand words are one pattern, in which each is found."""
    words = [f"w{number:03x}q" for number in range(1000)]
    validator = BannedWords(*words)
    assert all(not verdict(validator, f"a {word} b").ok for word in words)
    assert verdict(validator, "w3e8x w3e8 w000").ok


# ------------------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("validator", [Length(5), Pattern("a+b"), BannedWords("a", "b c")], ids=lambda v: v.name)
def test_they_are_plain_data(validator: StreamingValidator) -> None:
    """They are compared by what they were told, cannot be changed, and go to another process."""
    again = pickle.loads(pickle.dumps(validator))
    assert again == validator
    assert again.scan("aab", 0, 0, True)[1] == 3
    with pytest.raises(ValueError, match="frozen"):
        validator.name = "other"
    assert type(validator)(**validator.model_dump()) == validator


def test_banned_words_may_be_a_list() -> None:
    """Words one by one, or as one list of them, are the same."""
    assert BannedWords(["darn", "heck"]).words == BannedWords("darn", "heck").words
