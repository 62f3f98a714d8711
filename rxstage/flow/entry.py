"""Where elements enter an execution: numbered, stamped, and steered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rxstage.content import EndOfStream
from rxstage.element import StreamElement, stamped
from rxstage.flow.port import Port
from rxstage.flow.scope import Scope
from rxstage.flow.valve import Valve

__all__ = ["Entry"]


class Entry:
    """The one door into a running graph.

    Attributes:
        port: the first node.
        received: how many elements have entered.
        closed: whether it takes nothing more.
        pending: what was sent on the loop's own thread and enters at its next turn: a source that pushes waits for it.
    """

    __slots__ = ("_on_end", "closed", "keeps", "pending", "port", "received", "scope")

    def __init__(self, scope: Scope, port: Port, on_end: Callable[[], object], keeps: bool = False) -> None:
        self.scope = scope
        self.port = port
        self.received = 0
        self.closed = False
        self.pending = 0
        self.keeps = keeps  # whether sequence and time of an enclosing execution stay
        self._on_end = on_end

    def enter(self, value: Any) -> None:
        """Take one element or raw value. An `EndOfStream` closes the door and releases the source."""
        if self.closed:
            return
        scope = self.scope
        if self.keeps:
            element = StreamElement.of(value)
            if not element.sequence:
                element = stamped(element, scope.next_sequence(), scope.clock())
        else:
            element = stamped(value, scope.next_sequence(), scope.clock())
        if element.__class__ is StreamElement:
            self.received += 1
            self.port.push(element)
        elif element.content.__class__ is EndOfStream:
            self._on_end()
        else:
            self.received += 1
            self.port.control(element)

    def abandon(self) -> None:
        """The execution is over: take nothing more, and hold nothing of the graph."""
        self.closed = True
        self.port = Port(_ignore, _ignore, _nothing, Valve())

    def end(self) -> None:
        """Nothing more will come, but what was sent before."""
        if self.pending and self.scope.loop is not None and not self.closed and not self.scope.ended:
            self.scope.loop.call_soon(self.end)  # it enters at the loop's next turn
        elif not self.closed:
            self.closed = True
            self.port.done()


def _ignore(element: StreamElement) -> None:
    """It comes after the end."""


def _nothing() -> None:
    """The end has been told."""
