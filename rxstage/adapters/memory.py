"""A store in memory, for tests and for conversations that need not outlive the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rxstage.adapters._rows import checked, entries_of, packed, rows_of, unpacked
from rxstage.ports.store import Entry, StateConflict, StateStore, StoredConversation, Summary

__all__ = ["MemoryStore"]


class MemoryStore(StateStore):
    """Keeps conversations for as long as the object lives. It keeps copies, as the other stores do.

    Args:
        clock: gives the time of a change, in seconds since 1970.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()

    async def load(self, conversation: str) -> StoredConversation:
        """The conversation; one without entries and of version 0 where there is none of that id."""
        with self._lock:
            held = self._held.get(checked(conversation)) or _Held()
            head, rows = held.head(conversation), list(held.rows.items())
        return StoredConversation(
            conversation, entries_of(conversation, rows), head.version, head.summary, updated=head.updated
        )

    async def append(self, conversation: str, entries: Sequence[Entry], *, version: int) -> int:
        """Add messages at the end, all of them or none, and give the new version.

        Raises:
            StateConflict: the conversation is at another version than `version`.
        """
        rows = rows_of(checked(conversation), entries)
        with self._lock:
            held = self._held.get(conversation) or _Held()
            new = [row for row in rows if row[0] not in held.rows]
            if not new:
                return held.version
            self._change(conversation, held, version)
            held.rows.update(new)
            return held.version

    async def summarize(self, conversation: str, summary: Summary | None, *, version: int) -> int:
        """Keep a summary of the oldest messages, in place of an earlier one; gives the new version.

        Raises:
            StateConflict: the conversation is at another version than `version`.
        """
        data = packed(summary)
        with self._lock:
            held = self._held.get(checked(conversation)) or _Held()
            self._change(conversation, held, version)
            held.summary = data
            return held.version

    async def delete(self, conversation: str) -> bool:
        """Forget a conversation; tells whether there was one."""
        with self._lock:
            return self._held.pop(checked(conversation), None) is not None

    async def conversations(self, *, limit: int = 100) -> list[StoredConversation]:
        """What is stored, newest first, without the entries."""
        with self._lock:
            heads = [held.head(conversation) for conversation, held in self._held.items()]
        return sorted(heads, key=lambda head: head.updated, reverse=True)[: max(limit, 0)]

    async def expire(self, older_than: float) -> int:
        """Delete what has not changed for `older_than` seconds; gives how many conversations that were."""
        with self._lock:
            before = self._clock() - older_than
            old = [conversation for conversation, held in self._held.items() if held.updated <= before]
            for conversation in old:
                del self._held[conversation]
            return len(old)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _change(self, conversation: str, held: _Held, version: int) -> None:
        if held.version != version:
            raise StateConflict(conversation, version, held.version)
        held.version += 1
        held.updated = self._clock()
        self._held[conversation] = held


class _Held:
    __slots__ = ("rows", "summary", "updated", "version")

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.version = 0
        self.summary: bytes | None = None
        self.updated = 0.0

    def head(self, conversation: str) -> StoredConversation:
        summary = unpacked(self.summary)
        return StoredConversation(conversation, version=self.version, summary=summary, updated=self.updated)
