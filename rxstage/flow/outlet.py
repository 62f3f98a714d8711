"""The output of a graph as an async iterator."""

from __future__ import annotations

from rxstage.element import StreamElement
from rxstage.flow.buffer import Buffer
from rxstage.flow.gate import Gate

__all__ = ["Outlet"]


class Outlet:
    """A buffer behind the last stage that one consumer empties; a slow consumer closes its valve.

    What has reached it is delivered before the end, whatever the end is.
    """

    def __init__(self, buffer: Buffer, gate: Gate) -> None:
        self.buffer = buffer
        self.gate = gate
        self.ended = False
        self.error: BaseException | None = None

    def end(self, error: BaseException | None) -> None:
        """Nothing more will come."""
        self.ended = True
        self.error = error
        self.buffer.done()
        self.gate.wake()

    def take(self) -> StreamElement:
        """The next element; there is one."""
        element = self.buffer.queue.popleft()
        if self.buffer.full:
            self.buffer.reopen()
        return element

    async def arrival(self) -> None:
        """Wait until there is an element.

        Raises:
            StopAsyncIteration: the end.
            BaseException: what the execution failed with.
        """
        buffer = self.buffer
        while not buffer.queue:
            if self.ended:
                error, self.error = self.error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            buffer.park(self.gate.wake)
            await self.gate.wait()
