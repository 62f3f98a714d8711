"""Which kinds of content can be somewhere in a graph: the arithmetic behind the checks.

A `Supply` is never smaller than what the declarations allow: where they leave something open it errs on the side
of more, so that a check refuses only what cannot work. Two value types are taken to have instances in common where
one is a subclass of the other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

from rxstage.content import CONTENT_KINDS, CONTROL_KINDS, Data, Text
from rxstage.element import StreamElement
from rxstage.flow.callback import kinds_of

__all__ = ["ANYTHING", "NOTHING", "Supply", "in_words", "made_of", "only_controls", "passing", "taken", "union"]

_WIDEST: Final = 64  # value types that are told apart; more are taken for any, which keeps every step short


class Supply(NamedTuple):
    """Content that may come.

    Attributes:
        kinds: content kinds, `Data` not among them.
        open: whether `values` says what `Data` cannot hold instead of what it can.
        values: types of `Data` values.
    """

    kinds: frozenset[type]
    open: bool
    values: frozenset[type]

    def __bool__(self) -> bool:
        return bool(self.kinds or self.values) or self.open


_KINDS: Final = frozenset(CONTENT_KINDS - {Data})
_NONE: Final[frozenset[type]] = frozenset()
ANYTHING: Final = Supply(_KINDS, True, _NONE)
NOTHING: Final = Supply(_NONE, False, _NONE)


def made_of(types: tuple[type, ...]) -> Supply:
    """What a stage can make that declares to emit these types; none is anything."""
    return _made_of(types) if types else ANYTHING


@lru_cache(maxsize=4096)
def _made_of(types: tuple[type, ...]) -> Supply:
    kinds, values = kinds_of(types)
    if StreamElement in types:
        return ANYTHING
    # A declared base class may turn out to be a kind of its own: `object` can be a string, and so a Text.
    kinds |= {kind for kind in CONTENT_KINDS if any(_surely(kind, value) for value in values)}
    if any(_surely(str, value) or _surely(value, str) for value in values):
        kinds |= {Text}
    return _supply(kinds & _KINDS, Data in kinds, () if Data in kinds else values)


@lru_cache(maxsize=4096)
def taken(supply: Supply, types: tuple[type, ...]) -> Supply:
    """What of it may be of these types; none is all of it."""
    kinds, values = kinds_of(types)
    if not kinds and not values:
        return supply
    inner = supply.kinds & kinds
    if Data in kinds:
        return Supply(inner, supply.open, supply.values)
    if supply.open:
        return _supply(inner, False, [v for v in values if not any(_surely(v, out) for out in supply.values)])
    related = ((own, v) for own in supply.values for v in values if _related(own, v))
    return _supply(inner, False, [own if _surely(own, v) else v for own, v in related])


def passing(supply: Supply, types: tuple[type, ...]) -> Supply:
    """What of it may be of none of these types; where none are given, that is nothing."""
    return _passing(supply, types) if types else NOTHING


@lru_cache(maxsize=4096)
def _passing(supply: Supply, types: tuple[type, ...]) -> Supply:
    kinds, values = kinds_of(types)
    if not kinds and not values:
        return NOTHING
    outer = supply.kinds - kinds
    if Data in kinds:
        return Supply(outer, False, _NONE)
    if supply.open:
        return _supply(outer, True, (*supply.values, *values))
    return _supply(outer, False, [own for own in supply.values if not any(_surely(own, v) for v in values)])


def union(one: Supply, other: Supply) -> Supply:
    """What may come from either."""
    if one is ANYTHING or other is NOTHING:
        return one
    return other if one is NOTHING or other is ANYTHING else _union(one, other)


@lru_cache(maxsize=4096)
def _union(one: Supply, other: Supply) -> Supply:
    kinds = one.kinds | other.kinds
    if one.open and other.open:
        both = [v for v in one.values if any(_surely(v, o) for o in other.values)]
        return _supply(kinds, True, both + [o for o in other.values if any(_surely(o, v) for v in one.values)])
    if one.open or other.open:
        out, more = (one.values, other.values) if one.open else (other.values, one.values)
        return _supply(kinds, True, [v for v in out if not any(_related(v, m) for m in more)])
    return _supply(kinds, False, one.values | other.values)


def only_controls(types: tuple[type, ...]) -> bool:
    """Whether nothing but controls is of these types."""
    return bool(types) and CONTROL_KINDS.issuperset(types)


def in_words(supply: Supply) -> str:
    """For a message: `Audio, Text or Data of Order`."""
    if supply == ANYTHING:
        return "anything"
    names = sorted(kind.__name__ for kind in supply.kinds)
    values = ", ".join(sorted(value.__name__ for value in supply.values))
    if supply.open:
        names.append(f"Data (but {values})" if values else "Data")
    elif values:
        names.append(f"Data of {values}")
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or "no content at all"


def _supply(kinds: frozenset[type], open_: bool, values: Any) -> Supply:
    some = frozenset(values)
    return Supply(kinds, open_, some) if len(some) <= _WIDEST else Supply(kinds, True, _NONE)


def _surely(one: type, other: type) -> bool:
    """Whether every instance of one is an instance of the other."""
    try:
        return issubclass(one, other)
    except TypeError:  # a protocol with attributes: only an instance can tell
        return False


def _related(one: type, other: type) -> bool:
    """Whether something may be an instance of both."""
    try:
        return issubclass(one, other) or issubclass(other, one)
    except TypeError:
        return True
