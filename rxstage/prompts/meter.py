"""How much a template may make: its text, and the work that making it is."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

from msgspec import Struct

from rxstage.prompts.errors import PromptLimit

__all__ = ["LIMITS", "Meter", "RenderLimits", "metered"]

_CHUNK: Final = 16  # characters that count as one unit of work
_DEPTH: Final = 50  # of nested lists and mappings
_BITS: Final = 4096  # of a whole number


class RenderLimits(Struct, frozen=True):
    """How much the rendering of one template may come to.

    Both are counts and not seconds, so that a template that is within them on one machine is so on all.

    Attributes:
        characters: length of the text, and of any text on the way to it.
        work: units of work: an iteration, a call, a filter, an item of a list that something looks through, 16
            characters that something copies. A unit takes a third of a microsecond or so.
    """

    characters: int = 200_000
    work: int = 500_000


LIMITS: Final = RenderLimits()


class Meter:
    """What is left of the limits, while one template is rendered."""

    __slots__ = ("characters", "left", "work")

    def __init__(self, limits: RenderLimits) -> None:
        self.characters = limits.characters
        self.work = self.left = limits.work

    def spend(self, units: int) -> None:
        """Take units of work off.

        Raises:
            PromptLimit: there are not so many left.
        """
        self.left -= max(1, units)
        if self.left < 0:
            raise PromptLimit(
                f"the template needs more than {self.work} units of work: it loops too long or makes too much; "
                f"simplify it, or raise RenderLimits(work=...)"
            )

    def weigh(self, value: Any, depth: int = 0) -> None:
        """Take off what it costs to look through a value."""
        if isinstance(value, (str, bytes)):
            self.spend(len(value) // _CHUNK)
        elif isinstance(value, (list, tuple, set, frozenset)):
            if depth > _DEPTH:
                raise PromptLimit(f"a list or mapping is nested more than {_DEPTH} deep, or contains itself")
            self.spend(1)
            for item in value:
                self.weigh(item, depth + 1)
        elif isinstance(value, dict):
            if depth > _DEPTH:
                raise PromptLimit(f"a list or mapping is nested more than {_DEPTH} deep, or contains itself")
            self.spend(1)
            for key, item in value.items():
                self.weigh(key, depth + 1)
                self.weigh(item, depth + 1)
        elif isinstance(value, range):
            self.spend(len(value))
        else:
            self.spend(1)

    def made(self, value: Any) -> Any:
        """Take off what it costs to look through a value that the template has made, and give it back.

        Raises:
            PromptLimit: it is too long for a text.
        """
        self.weigh(value)
        if isinstance(value, str):
            self.fits(len(value))
        return value

    def fits(self, length: int) -> None:
        """Check a length of text, before it is made where that can be told.

        Raises:
            PromptLimit: it is too long.
        """
        if length > self.characters:
            raise PromptLimit(
                f"the template makes a text of {length} characters, and may make {self.characters}; make it shorter, "
                f"or raise RenderLimits(characters=...)"
            )

    def number(self, bits: int) -> None:
        """Check the size of a whole number before it is made.

        Raises:
            PromptLimit: it is too big.
        """
        if bits > _BITS:
            raise PromptLimit(f"the template makes a number of {bits} bits, and may make {_BITS}")


metered: Final[ContextVar[Meter]] = ContextVar("metered")
"""The meter of the rendering that is under way."""
