"""Conversations as rows: what the stores write, and names that all of them can keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from rxstage.content import Message
from rxstage.element import StreamElement
from rxstage.ports.store import Entry, StoredConversation, StoreError, Summary
from rxstage.wire import WireError, from_msgpack, to_msgpack

__all__ = [
    "Row",
    "checked",
    "entries_of",
    "joined",
    "listed",
    "packed",
    "rows_of",
    "unpacked",
]

Row: TypeAlias = tuple[str, bytes]
"""An entry as it is stored: its id, and the rest of it as msgpack."""

_LONGEST: Final = 1000  # bytes of a name; an index of PostgreSQL takes 2700 for one row


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


def joined(conversation: str, rows: Sequence[Sequence[Any]]) -> StoredConversation:
    """A conversation of the rows of a query: version, summary, time, and id and body of an entry, if there is one.

    Raises:
        StoreError: a row cannot be read; it names the entry.
    """
    if not rows:
        return StoredConversation(conversation)
    version, summary, updated, first, _ = rows[0]
    entries = entries_of(conversation, [(row[3], row[4]) for row in rows]) if first is not None else ()
    return StoredConversation(conversation, entries, version, unpacked(summary), updated=updated)


def listed(rows: Iterable[Sequence[Any]]) -> list[StoredConversation]:
    """Conversations without entries, of rows of id, version, summary and time."""
    return [
        StoredConversation(id, version=version, summary=unpacked(summary), updated=updated)
        for id, version, summary, updated in rows
    ]


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
    """The summary that is stored.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return None if data is None else Summary(*msgspec.msgpack.decode(data, type=tuple[str, int]))
    except msgspec.DecodeError as error:
        raise StoreError(f"a summary that is stored cannot be read: {error}") from error


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
