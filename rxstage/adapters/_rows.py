"""What the stores have in common: entries as rows, names that all of them can keep, limits of time, kinds of errors."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from rxstage.content import Message
from rxstage.element import StreamElement
from rxstage.ports.loopbound import LoopBound
from rxstage.ports.store import Entry, StoreError, Summary
from rxstage.wire import WireError, from_msgpack, to_msgpack

__all__ = [
    "Connected",
    "Row",
    "answering",
    "checked",
    "entries_of",
    "packed",
    "rows_of",
    "unpacked",
    "without_password",
]

Row: TypeAlias = tuple[str, bytes]
"""An entry as it is stored: its id, and the rest of it as msgpack."""

_T = TypeVar("_T")

_open: Final[set[Any]] = set()
_LONGEST: Final = 1000  # bytes of a name; an index of PostgreSQL takes 2700 for one row


class Connected(LoopBound[_T]):
    """As `LoopBound`, for connections, which complain where they are collected before they are closed.

    Where the store that they belong to is collected, they are closed on their loop right after.
    """

    def __init__(self, make: Callable[[], Awaitable[_T]], close: Callable[[_T], Awaitable[Any]]) -> None:
        async def made() -> _T:
            value = await make()
            _open.add(value)
            return value

        async def closed(value: _T) -> None:
            try:
                await close(value)
            finally:
                _open.discard(value)

        super().__init__(made, closed)


def checked(conversation: str, what: str = "conversation") -> str:
    """A name that every store can keep.

    Raises:
        StoreError: it is none.
    """
    try:
        size = len(conversation.encode())
    except (AttributeError, UnicodeEncodeError) as error:
        raise StoreError(f"the id of a {what} is a string of Unicode characters, got {conversation!r:.100}") from error
    if not size or size > _LONGEST or "\0" in conversation:
        raise StoreError(
            f"the id of a {what} has 1 to {_LONGEST} bytes, none of them NUL, and {conversation!r:.100} has {size}; "
            f"a hash of it would do"
        )
    return conversation


def rows_of(conversation: str, entries: Iterable[Entry]) -> list[Row]:
    """Entries as rows; one that is there twice is one row.

    Raises:
        StoreError: an entry cannot be written down; it names the part.
    """
    rows: dict[str, bytes] = {}
    for entry in entries:
        if entry.id not in rows:
            rows[checked(entry.id, "message")] = _body(conversation, entry)
    return list(rows.items())


def entries_of(conversation: str, rows: Iterable[Row]) -> tuple[Entry, ...]:
    """Entries of rows.

    Raises:
        StoreError: a row cannot be read; it names the entry.
    """
    entries = []
    for id, body in rows:
        try:
            element = from_msgpack(body)
        except WireError as error:
            raise StoreError(f"message {id!r} of conversation {conversation!r:.100} cannot be read: {error}") from error
        message = element.content
        if message.__class__ is not Message:
            raise StoreError(f"what is stored as {id!r} of conversation {conversation!r:.100} is no message")
        entries.append(Entry(message, id, element.metadata))
    return tuple(entries)


def packed(summary: Summary | None) -> bytes | None:
    """A summary as it is stored.

    Raises:
        StoreError: its text is no Unicode.
    """
    if summary is None:
        return None
    try:
        return msgspec.msgpack.encode((summary.text, summary.covers))
    except UnicodeEncodeError as error:
        raise StoreError(f"a summary cannot be stored: {error}") from error


def unpacked(data: bytes | None) -> Summary | None:
    """The summary that is stored."""
    return None if data is None else Summary(*msgspec.msgpack.decode(data, type=tuple[str, int]))


@asynccontextmanager
async def answering(store: str, timeout: float, *failures: type[Exception], hint: str = "") -> AsyncIterator[None]:
    """Give a store so many seconds, and make a `StoreError` of what its library raises.

    Args:
        store: what to call it in an error.
        timeout: seconds.
        failures: kinds of errors of its library.
        hint: what may be the matter where it does not answer.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise StoreError(f"{store} did not answer within {timeout:g} s{hint}") from error
    except failures as error:
        raise StoreError(f"{store}: {str(error) or type(error).__name__}") from error
    finally:
        if task.cancelling() > cancelling and not isinstance(sys.exception(), asyncio.CancelledError):
            raise asyncio.CancelledError(f"cancelled, which the library of {store} has swallowed")


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    return re.sub(r"(://[^:/@]*:)[^/@]*(?=@)|([?&]password=)[^&]*", r"\1\2…", url)


def _body(conversation: str, entry: Entry) -> bytes:
    message = entry.message
    try:
        return to_msgpack(StreamElement(message, entry.metadata))
    except WireError as error:
        raise StoreError(
            f"{_culprit(message)} of a message of conversation {conversation!r:.100} cannot be stored: {error}"
        ) from error


def _culprit(message: Message) -> str:
    """Which part of a message has no wire form."""
    pieces = [(f"part {number}", part) for number, part in enumerate(message.parts, 1)]
    pieces += [(f"tool call {call.name!r}", call) for call in message.tool_calls]
    for name, piece in pieces:
        try:
            to_msgpack(StreamElement.of(piece))
        except WireError:
            return f"{name} ({type(piece).__name__})"
    return "the metadata"
