"""Lets so many in at once; a further one waits for its turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Turnstile"]


class Turnstile:
    """Admits up to `limit` holders; those that wait are called in the order in which they came. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside = 0
        self._waiting: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()

    def enter(self, admitted: Callable[[], object]) -> Callable[[], None]:
        """Call `admitted` when there is room, at once if there is; gives a function that leaves or stops waiting."""

        def ticket() -> None:  # one of its own, where the same function waits several times
            admitted()

        with self._lock:
            at_once = self._inside < self.limit
            if at_once:
                self._inside += 1
            else:
                self._waiting.append(ticket)
        left = False

        def leave() -> None:
            nonlocal left
            following: Callable[[], object] | None = None
            with self._lock:
                if left:
                    return
                left = True
                if not at_once and ticket in self._waiting:
                    self._waiting.remove(ticket)
                elif self._waiting:
                    following = self._waiting.popleft()
                else:
                    self._inside -= 1
            if following is not None:
                following()

        if at_once:
            admitted()
        return leave
