"""Personal data: what is some and what only looks like it, however a text is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import cut, cuts, stream, streamed

from rxstage.validation import PII, Verdict

pytestmark = pytest.mark.needs("module:regex", "module:phonenumbers", "module:stdnum")

FOUND = {
    "mail": ("write to Anna.Schmidt+x@mail.example.co.uk.", "write to [email]."),
    "mail in brackets": ("<anna@example.org>", "<[email]>"),
    "mail of an international domain": ("anna@bücher.example", "[email]"),
    "mail in a text without spaces": ("联系anna@example.org吧。", "联系[email]。"),
    "mail in full width": ("ａｎｎａ＠ｅｘａｍｐｌｅ．ｏｒｇ", "[email]"),
    "card": ("card 4111 1111 1111 1111, ok", "card [credit card], ok"),
    "card with dashes": ("4111-1111-1111-1111", "[credit card]"),
    "card in one": ("x4111111111111111x", "x[credit card]x"),
    "card of fifteen": ("3782 822463 10005", "[credit card]"),
    "card with what is on its back": ("4111 1111 1111 1111 123", "[credit card] 123"),
    "card behind a number": ("12 4111 1111 1111 1111", "12 [credit card]"),
    "card in full width": ("４１１１ １１１１ １１１１ １１１１", "[credit card]"),
    "card in Arabic digits": ("٤١١١١١١١١١١١١١١١", "[credit card]"),
    "card with invisible characters": ("4111\u200b1111\u200b1111\u200b1111", "[credit card]"),
    "account": ("to DE89 3704 0044 0532 0130 00 by Monday", "to [IBAN] by Monday"),
    "account in one": ("gb82west12345698765432", "[IBAN]"),
    "phone of a country": ("call (415) 555-2671 or 415.555.2671", "call [phone] or [phone]"),
    "phone of the world": ("call +49 30 901820.", "call [phone]."),
    "address of a machine": ("at 192.168.0.12.", "at [IP address]."),
    "long address of a machine": ("at fe80::1ff:fe23:4567:890a, now", "at [IP address], now"),
    "insurance": ("SSN 536-90-4399", "SSN [US social security number]"),
    "two of a kind": ("a@b.example c@d.example", "[email] [email]"),
}
FINE = {
    "words": "The quick brown fox (really) jumps: over @ the dog, C++ and std::vector :: a@b",
    "card with a wrong digit": "4111 1111 1111 1112",
    "account with a wrong digit": "GB82 WEST 1234 5698 7654 33",
    "time": "2026-10-12 10:30:45, 12:30:45 and 2026-10-12 10",
    "small numbers": "order 1234567, 3 of 12, 99.5 %",
    "this machine": "127.0.0.1 and ::1",
    "version": "1.2.3 and 10.20.30.40.50 and 300.1.1.1",
    "insurance that is not given out": "000-12-3456 and 666-12-3456",
    "phone of nobody": "(000) 555-2671",
    "machine's number": "00:1a:2b:3c:4d:5e",
}
SHOWN = PII(replacement="[{kind}]")


@pytest.mark.parametrize("which", FOUND)
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_found(which: str, size: int) -> None:
    """It is found and replaced, in pieces of any size."""
    text, left = FOUND[which]
    pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
    assert streamed(pieces, SHOWN)[0] == left


@pytest.mark.parametrize("which", FINE)
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_fine(which: str, size: int) -> None:
    """What cannot be any passes."""
    text = FINE[which]
    pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
    assert streamed(pieces, SHOWN) == (text, [])


@given(
    parts=st.lists(
        st.sampled_from([*(text for text, _ in FOUND.values()), *FINE.values(), "+", "(", "4111", "@", "::", "-"]),
        max_size=4,
    ),
    between=st.sampled_from([" ", "", ", ", "\n"]),
    places=cuts,
)
@settings(max_examples=200, deadline=None)
def test_the_cuts_do_not_matter(parts: list[str], between: str, places: list[int]) -> None:
    """What is found and what leaves does not depend on how a text is cut."""
    text = between.join(parts)
    assert streamed(cut(text, places), SHOWN) == streamed([text], SHOWN)


def test_only_what_was_asked_for() -> None:
    """Kinds that were not asked for pass; without a region only numbers of the world are phone numbers."""
    text = "a@b.example 4111 1111 1111 1111 (415) 555-2671 +1 415 555 2671"
    assert streamed([text], PII("email"))[0] == "[redacted] 4111 1111 1111 1111 (415) 555-2671 +1 415 555 2671"
    assert streamed([text], PII("phone", regions=()))[0] == (
        "a@b.example 4111 1111 1111 1111 (415) 555-2671 [redacted]"
    )
    assert streamed(["030 901820"], PII("phone", regions=("US", "DE")))[0] == "[redacted]"


def test_a_verdict_does_not_tell() -> None:
    """The reason says what kind of data it is, and nothing of the data; nothing is quoted."""
    verdict: Any = PII().check("a@b.example, again c@d.example and 536-90-4399")
    assert isinstance(verdict, Verdict)
    assert (verdict.ok, verdict.score, verdict.quote) == (False, 0.0, "")
    assert verdict.reason == "personal data is in it: US social security number, email"
    assert PII().secret


def test_what_is_held() -> None:
    """The last word is held back, as a name may go on to be an address; of a long one its last 64 characters."""
    assert stream(["Hello, how", " are", " you? "], SHOWN)[0] == ["Hello, ", "how ", "are you? ", ""]
    left = stream(["x" * 500], SHOWN)[0]
    assert [len(piece) for piece in left] == [436, 64]
    digits = stream(list("1 2 3 4 5 6 7 8 9 " * 20), SHOWN)[0]
    held = longest = 0
    for came, went in zip([1] * 360 + [0], map(len, digits), strict=True):
        held += came - went
        longest = max(longest, held)
    assert longest <= 64


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"regions": ("XX",)}, r"\['XX'\] are no countries"),
        ({"kinds": ()}, "at least one kind"),
        ({"kinds": ("mail",)}, "Input should be"),
    ],
)
def test_refuses(options: dict[str, Any], says: str) -> None:
    """An unknown kind or country is an error where it is made."""
    with pytest.raises(ValueError, match=says):
        PII(**options)
