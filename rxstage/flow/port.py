"""Where a node of a running graph takes its elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from rxstage.element import StreamElement
from rxstage.flow.valve import Valve

if TYPE_CHECKING:
    from rxstage.flow.buffer import Buffer

__all__ = ["Done", "Port", "Push"]

Push: TypeAlias = Callable[[StreamElement], object]
Done: TypeAlias = Callable[[], object]


class Port:
    """The input of a node, as the node before it sees it.

    Nodes are wired from the sinks to the sources: each is given the ports behind it and gives its own.
    An error never travels through a port; it is raised to the pump that pushed, or told to the scope.

    Attributes:
        push: takes one element of content. Its class is exactly `StreamElement`.
        control: takes one control element.
        done: says that nothing more will come.
        valve: what a pump in front of this port has to obey.
        buffer: the buffer that `push` fills, where it is nothing but that: a pump may fill it itself.
    """

    __slots__ = ("buffer", "control", "done", "push", "valve")

    def __init__(self, push: Push, control: Push, done: Done, valve: Valve, buffer: Buffer | None = None) -> None:
        self.push = push
        self.control = control
        self.done = done
        self.valve = valve
        self.buffer = buffer
