"""The contract of Rx at the edge of an inline graph: one terminal, and nothing after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Guard"]


class Guard:
    """Keeps elements and the terminal apart, without a lock on the way of the elements.

    An element is let in by entering a list (one atomic operation); the terminal is delivered by whoever sees
    that the list is empty after it was set, and only once.
    """

    __slots__ = ("_claim", "_inside", "_terminal", "closed", "step")

    def __init__(self, step: Callable[[Any], object]) -> None:
        self.step = step
        self.closed = False
        self._claim: list[None] = [None]  # whoever pops it has the terminal
        self._inside: list[None] = []
        self._terminal: list[Callable[[], object]] = []

    def on_next(self, value: Any) -> None:
        """Let one value in, unless the terminal has come."""
        inside = self._inside
        inside.append(None)
        try:
            if not self.closed:
                self.step(value)
        finally:
            inside.pop()
            if self.closed and not inside:
                self._deliver()

    def finish(self, terminal: Callable[[], object]) -> None:
        """The terminal has come: `terminal` is called once no value is inside; a second one is ignored."""
        try:
            self._claim.pop()
        except IndexError:
            return
        self._terminal.append(terminal)
        self.closed = True
        if not self._inside:
            self._deliver()

    def _deliver(self) -> None:
        try:
            terminal = self._terminal.pop()
        except IndexError:
            return
        terminal()
