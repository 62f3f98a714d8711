"""The contract of Rx at the edge of an inline graph: one terminal, and nothing after it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Guard"]


class Guard:
    """Keeps elements and the terminal apart, without a lock on the way of the elements.

    Whoever brings an element appends to `inside` first (one atomic operation), looks at `closed`, and removes
    his entry at last. The terminal is delivered by whoever sees `inside` empty after it was set, and only once.
    """

    __slots__ = ("_claim", "_terminal", "closed", "inside")

    def __init__(self) -> None:
        self.closed = False
        self.inside: list[None] = []
        self._claim: list[None] = [None]  # whoever pops it has the terminal
        self._terminal: list[Callable[[], object]] = []

    def finish(self, terminal: Callable[[], object]) -> None:
        """The terminal has come: `terminal` is called once nothing is inside; a second one is ignored."""
        try:
            self._claim.pop()
        except IndexError:
            return
        self._terminal.append(terminal)
        self.closed = True
        if not self.inside:
            self.deliver()

    def deliver(self) -> None:
        """Call the terminal, unless somebody else has."""
        try:
            terminal = self._terminal.pop()
        except IndexError:
            return
        terminal()
