"""The contract of Rx inside an inline graph: one terminal and nothing after it, and one call at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Guard", "Serial"]


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


class Serial:
    """Runs calls of several threads one at a time, in their order, and blocks none of them.

    A call that comes while another thread's is running is left to that thread, so whatever lock its caller
    holds, nobody waits for anybody. A call from inside a running one is done at once.
    """

    __slots__ = ("_calls", "_lock", "_owner")

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._owner = 0

    def run(self, call: Callable[..., object], *args: Any) -> None:
        """Do `call(*args)`, now or on the thread that is at it."""
        me = threading.get_ident()
        if self._owner == me:
            call(*args)
            return
        self._calls.append((call, args))
        while self._calls and self._lock.acquire(blocking=False):
            self._owner = me
            try:
                while self._calls:
                    following, given = self._calls.popleft()
                    following(*given)
            finally:
                self._owner = 0
                self._lock.release()
