"""What feeds the entry of a graph, and what kinds of it there are."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct
from pydantic import BaseModel
from reactivex import abc

from rxstage.flow.entry import Entry
from rxstage.flow.scope import Scope

__all__ = ["Source", "is_file", "is_single", "lines_of"]

_CHUNK: Final = 65536  # bytes of a binary file that make one element


class Source:
    """What feeds an entry. `stop` ends it for good; `paused` tells whether a valve keeps it waiting.

    `accept` takes what is sent out of band, where that does not go straight to the entry.
    """

    accept: Callable[[Any], object] | None = None

    def __init__(self, scope: Scope, entry: Entry) -> None:
        self.scope = scope
        self.entry = entry
        self.closers = entry.port.valve.closers
        self.stopped = False
        entry.port.valve.wakers.append(self.wake)

    @property
    def paused(self) -> bool:
        """Whether it has more and may not give it."""
        return bool(self.closers) and not self.stopped

    def start(self) -> None:
        """Begin."""

    def wake(self) -> None:
        """The valve has opened."""

    def stop(self) -> None:
        """Take nothing more and close what was opened."""
        self.stopped = True

    def _failed(self, error: BaseException) -> None:
        self.stop()
        self.scope.fail(error)


def is_single(value: Any) -> bool:
    """Whether a source is one element, though it may be iterable."""
    return isinstance(value, (str, bytes, bytearray, memoryview, Struct, BaseModel, Mapping, BaseException)) or not (
        isinstance(value, abc.ObservableBase) or hasattr(value, "__iter__") or hasattr(value, "__aiter__")
    )


def is_file(value: Any) -> bool:
    """Whether a source is an open file."""
    return isinstance(value, io.IOBase) or (hasattr(value, "readline") and hasattr(value, "read"))


def lines_of(file: Any) -> Iterator[Any]:
    """The elements of a file: lines of text without their ends, or chunks of 64 KiB of a binary one.

    A file of elements or other values gives those.
    """
    if isinstance(file, (io.RawIOBase, io.BufferedIOBase)):
        while chunk := file.read(_CHUNK):
            yield chunk
        return
    for line in file:
        yield line.rstrip("\r\n") if isinstance(line, str) else line
