"""Personal data that has a form: addresses, and numbers that can be checked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Final, Literal, TypeAlias, get_args

from rxstage.errors import require
from rxstage.validation.base import Match, StreamingValidator
from rxstage.validation.finder import CONTEXT, Finder
from rxstage.validation.fold import fold

__all__ = ["PII", "PIIKind"]

PIIKind: TypeAlias = Literal["email", "credit_card", "iban", "phone", "ip_address", "us_ssn"]

# What may be one, from the place where it begins; a check says whether it is, and where it ends.
_CANDIDATES: Final[dict[str, str]] = {
    "email": r"(?<![a-z0-9._%+-])[a-z0-9._%+-]{1,64}@(?:[\p{L}\p{M}\p{N}-]{1,63}\.){1,8}\p{L}[\p{L}\p{M}\p{N}-]{1,62}",
    "credit_card": r"(?<!\d)[2-6]\d(?:[ -]?\d){11,17}(?!\d)",
    "iban": r"(?<!\w)[a-z]{2}\d\d(?:[ -]?[a-z0-9]){11,30}(?!\w)",
    "phone": r"(?<![\w+])\+?\(?\d(?:[ ./()-]{0,3}\d){6,16}(?!\w)",
    "ip_address": r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"
    r"|(?:[0-9a-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{0,4})(?![\w:]))",
    "us_ssn": r"(?<![\w-])\d{3}-\d\d-\d{4}(?![\w-])",
}
_LOUD: Final = re.compile("[0-9@:]")  # without one of them, only an address can be under way
_LONGEST_NAME: Final = 64  # of an address, before the @
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d(?!\d)")
_SEPARATORS: Final = str.maketrans("", "", " -")
_NAMES: Final = {"ip_address": "IP address", "us_ssn": "US social security number", "iban": "IBAN"}


class PII(StreamingValidator):
    """Refuses personal data: addresses of mail and of machines, numbers of cards, accounts, phones and insurances.

    What can be checked is: cards by prefix and checksum and accounts by theirs (`stdnum`), phone numbers by the plans
    of their countries (`phonenumbers`). Forms of digits and letters do not matter, nor do invisible characters.

    Args:
        kinds: what to look for; by default all: `"email"`, `"credit_card"`, `"iban"`, `"phone"`, `"ip_address"`,
            `"us_ssn"`.
        regions: countries (`"US"`, `"DE"`) whose numbers are phone numbers without a `+` and a country's code, too.
        replacement: what stands in the place of one after `redact`; `{kind}` is what it was.

    Raises:
        rxstage.MissingExtra: a library is not installed (extra `pii`).
        ValueError: an unknown kind or region.
    """

    kinds: tuple[PIIKind, ...] = get_args(PIIKind)
    regions: tuple[str, ...] = ("US",)

    def __init__(self, *kinds: PIIKind, **options: Any) -> None:
        if kinds:
            options["kinds"] = kinds
        super().__init__(**options)
        if not self.kinds:
            raise ValueError("PII needs at least one kind")
        assert self._kinds  # raises what is wrong

    @cached_property
    def _kinds(self) -> list[tuple[str, Finder, Callable[[str], int], str]]:
        """Name, candidates, check and replacement of each kind."""
        return [
            (
                kind,
                Finder(_CANDIDATES[kind], "pii"),
                self._check_of(kind),
                self.replacement.replace("{kind}", _name(kind)),
            )
            for kind in self.kinds
        ]

    @cached_property
    def _any(self) -> Finder:
        return Finder("|".join(_CANDIDATES[kind] for kind in self.kinds), "pii")

    def _check_of(self, kind: str) -> Callable[[str], int]:
        if kind == "credit_card":
            return partial(_prefix, require("stdnum.luhn", "pii").is_valid, least=13)
        if kind == "iban":
            return partial(_prefix, require("stdnum.iban", "pii").is_valid, least=15)
        if kind == "us_ssn":
            return partial(_prefix, require("stdnum.us.ssn", "pii").is_valid, least=9)
        if kind == "phone":
            library = require("phonenumbers", "pii")
            unknown = set(self.regions) - set(library.SUPPORTED_REGIONS)
            if unknown:
                raise ValueError(
                    f"PII(regions=...): {sorted(unknown)} are no countries, which are such as 'US' or 'DE'"
                )
            return partial(_phone, library.PhoneNumberMatcher, self.regions or (None,))
        return _ip_address if kind == "ip_address" else len

    @property
    def secret(self) -> bool:
        return True

    def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
        low = max(start - CONTEXT, 0)
        piece = fold(text[low:] if low else text)
        folded, begin = piece.text, piece.index(start - low)
        if _LOUD.search(folded, begin) is None:
            settled = len(folded) if final else max(begin, _last_word(folded))
            return (), low + piece.place(settled)
        settled = len(folded) if final else self._any.unfinished(folded, begin)
        matches: list[Match] = []
        for place, _, found, kind, check, replacement in self._candidates(folded, begin):
            if place < begin:
                continue
            if place >= settled:
                break
            if length := check(found):
                begin = place + length
                matches.append(Match(low + piece.place(place), low + piece.end(begin), kind, replacement))
                if begin > settled:
                    settled = self._any.unfinished(folded, begin)
        return matches, max(low + piece.place(settled), matches[-1].end if matches else 0)

    def _candidates(self, text: str, start: int) -> list[Any]:
        return sorted(
            (match.start(), rank, match.group(), kind, check, replacement)
            for rank, (kind, finder, check, replacement) in enumerate(self._kinds)
            for match in finder.all(text, start)
        )

    def reason(self, matches: Sequence[Match]) -> str:
        return f"personal data is in it: {', '.join(sorted({_name(match.kind) for match in matches}))}"


def _name(kind: str) -> str:
    return _NAMES.get(kind, kind.replace("_", " "))


def _last_word(text: str) -> int:
    """Where the last word begins, as far as an address can reach back."""
    return max(text.rfind(" "), text.rfind("\n"), len(text) - _LONGEST_NAME - 1) + 1


def _prefix(valid: Callable[[str], bool], text: str, least: int) -> int:
    """How much of a candidate is valid, the longest that ends with a group of its characters; 0 for nothing."""
    for end in range(len(text), least - 1, -1):
        whole_group = text[end - 1].isalnum() and (end == len(text) or not text[end].isalnum())
        if whole_group and valid(text[:end].translate(_SEPARATORS)):
            return end
    return 0


def _ip_address(text: str) -> int:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 0
    return 0 if address.is_unspecified or address.is_loopback else len(text)


def _phone(matcher: Callable[[str, str | None], Any], regions: Sequence[str | None], text: str) -> int:
    if _DATE.match(text):
        return 0
    for region in regions:
        first = next(iter(matcher(text, region)), None)
        if first is not None and first.start == 0:
            return int(first.end)
    return 0
