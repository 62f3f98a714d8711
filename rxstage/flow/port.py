"""Where a node of a running graph takes its elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from rxstage.element import StreamElement
from rxstage.flow.valve import Valve

if TYPE_CHECKING:
    from rxstage.flow.buffer import Buffer

__all__ = ["Done", "Drain", "Port", "Push"]

Push: TypeAlias = Callable[[StreamElement], object]
Drain: TypeAlias = Callable[..., Any]
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
        drain: a loop that pulls, stamps and pushes, where the node can do that faster than a pump could.
    """

    __slots__ = ("buffer", "control", "done", "drain", "push", "valve")

    def __init__(
        self,
        push: Push,
        control: Push,
        done: Done,
        valve: Valve,
        buffer: Buffer | None = None,
        drain: Drain | None = None,
    ) -> None:
        self.push = push
        self.control = control
        self.done = done
        self.valve = valve
        self.buffer = buffer
        self.drain = drain
