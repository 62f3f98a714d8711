"""Server-sent events: the form in which models stream over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

__all__ = ["EventData", "read_rest"]

_LONGEST: Final = 64 * 2**20  # bytes of one line; a server that sends more without an end is not one of ours
_PATIENCE: Final = 0.1  # seconds


class EventData:
    """Cuts the bytes of a stream into the data of its events; what else an event may carry is left out."""

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that are complete with `chunk`, in order.

        Raises:
            ValueError: a line has no end.
        """
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _LONGEST:
            raise ValueError(f"a line of the stream is longer than {_LONGEST} bytes")
        found: list[bytes] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].strip())
            elif self._data and line in (b"", b"\r"):
                found.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
        return found


async def read_rest(chunks: AsyncIterator[bytes]) -> None:
    """Read a response to its end, for a moment: only then can its connection be used again."""
    with contextlib.suppress(Exception):  # the answer is complete, whatever becomes of the connection
        async with asyncio.timeout(_PATIENCE):
            async for _ in chunks:
                pass
