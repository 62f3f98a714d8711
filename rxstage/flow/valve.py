"""What a full buffer closes and the pumps before it obey."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Valve"]


class Valve:
    """The state of a region of synchronous nodes: open, or closed by somebody.

    A full buffer closes the valve in front of it. Where regions fan out or in, valves form a graph of
    their own: a closed valve closes those upstream of it, so a pump asks only the one it pushes into.
    `closers` is a set, never replaced: closing twice by one closer is one effect, and two closers must
    both open. A valve that is linked to a closed one starts closed.

    Attributes:
        closers: who keeps it closed; pumps test its truth after every element.
        wakers: called, in turn, each time it opens; every one re-tests `closers` first.
    """

    __slots__ = ("_upstream", "closers", "wakers")

    def __init__(self) -> None:
        self.closers: set[object] = set()
        self.wakers: list[Callable[[], object]] = []
        self._upstream: list[Valve] = []

    def link(self, upstream: Valve) -> None:
        """Close `upstream` while this one is closed."""
        self._upstream.append(upstream)
        if self.closers:
            upstream.close(self)

    def unlink(self, upstream: Valve) -> None:
        """Undo `link`; what this one kept closed opens."""
        self._upstream.remove(upstream)
        upstream.open(self)

    def close(self, closer: object) -> None:
        """Close for `closer`."""
        if not self._upstream:
            self.closers.add(closer)
            return
        pending = [(self, closer)]
        while pending:
            valve, who = pending.pop()
            if not valve.closers:
                pending.extend((upstream, valve) for upstream in valve._upstream)
            valve.closers.add(who)

    def open(self, closer: object) -> None:
        """Take `closer` back; wakes the pumps where nobody else keeps it closed."""
        if not self._upstream:
            closers = self.closers
            if closer in closers:
                closers.discard(closer)
                if not closers:
                    for wake in self.wakers:
                        wake()
            return
        pending = [(self, closer)]
        opened: list[Valve] = []
        while pending:
            valve, who = pending.pop()
            if who not in valve.closers:
                continue
            valve.closers.discard(who)
            if not valve.closers:
                opened.append(valve)
                pending.extend((upstream, valve) for upstream in valve._upstream)
        for valve in opened:
            for wake in valve.wakers:
                wake()

    def __repr__(self) -> str:
        return f"Valve({'closed' if self.closers else 'open'})"
