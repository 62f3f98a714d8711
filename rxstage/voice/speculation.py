"""Turns that are answered before it is certain that they are over, and what hangs on whether they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from rxstage.stage import StageContext

__all__ = ["SPECULATIVE", "Speculation", "Speculations", "speculations"]

SPECULATIVE: Final = "speculative"
"""Key of the metadata: number of the speculation that an element belongs to, a turn's message or its answer."""

_REMEMBERED: Final = 16  # speculations of which elements may still be on their way


class Speculation:
    """A turn that may be over: open, then either confirmed or withdrawn, once and for ever.

    Attributes:
        number: what its elements carry in their metadata.
        confirmed: whether the turn was over; None while that is open.
    """

    __slots__ = ("_decided", "_then", "confirmed", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.confirmed: bool | None = None
        self._decided = asyncio.Event()
        self._then: list[Callable[[], object]] = []

    @property
    def open(self) -> bool:
        """Whether it is not decided yet."""
        return self.confirmed is None

    def decide(self, confirmed: bool) -> None:
        """Confirm or withdraw it; what was decided before stays."""
        if self.confirmed is None:
            self.confirmed = confirmed
            self._decided.set()
            then, self._then = self._then, []
            for call in then:
                call()

    def then(self, call: Callable[[], object]) -> None:
        """Have something called as soon as it is decided: at once where it is."""
        if self.confirmed is None:
            self._then.append(call)
        else:
            call()

    async def decision(self) -> AsyncIterator[bool]:
        """Whether it is confirmed, once it is decided: for `StageContext.interruptible`."""
        await self._decided.wait()
        yield bool(self.confirmed)


class Speculations:
    """The speculations of one execution.

    Attributes:
        gates: stages that hold speculative answers.
        answering: turns that have ended and whose end has not come to such a stage yet.
    """

    __slots__ = ("_count", "_known", "answering", "gates")

    def __init__(self) -> None:
        self.gates = 0
        self.answering = 0
        self._count = 0
        self._known: dict[int, Speculation] = {}

    def begin(self) -> Speculation:
        """A new one."""
        self._count += 1
        begun = self._known[self._count] = Speculation(self._count)
        self._known.pop(self._count - _REMEMBERED, None)
        return begun

    def of(self, metadata: Mapping[str, Any]) -> Speculation | None:
        """The one that an element with such metadata belongs to; None for an ordinary element."""
        number = metadata.get(SPECULATIVE)
        return None if number is None else self._known.get(number)


def speculations(context: StageContext) -> Speculations:
    """The speculations of the execution that a stage runs in."""
    return context.shared(Speculations, Speculations)
