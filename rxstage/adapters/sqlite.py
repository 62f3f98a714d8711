"""A store in an SQLite file: what is stored of conversations where nothing else is set up."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rxstage.adapters._connected import Connected, answering
from rxstage.adapters._rows import checked, joined, listed, packed, rows_of
from rxstage.adapters._sqlite_file import connect
from rxstage.errors import require
from rxstage.ports.store import Entry, StateConflict, StateStore, StoredConversation, Summary

if TYPE_CHECKING:
    from aiosqlite import Connection

__all__ = ["SqliteStore"]


class SqliteStore(StateStore):
    """Keeps conversations in an SQLite file, in WAL mode. Any number of processes may use the file at once.

    Args:
        path: of the file, in a directory that exists. A file that is not there is made, readable by its owner only.
        timeout: seconds for one call, including the wait for another process that writes.
        synchronous: `"normal"`: what is stored outlives a crash of the process, and the last moments before a power
            cut may be lost; `"full"`: it outlives that too, and each save waits for the disk.
        clock: gives the time of a change, in seconds since 1970.

    Raises:
        MissingExtra: on first use, where `aiosqlite` is not installed (extra `sqlite`).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 5.0,
        synchronous: Literal["normal", "full"] = "normal",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if synchronous not in ("normal", "full"):
            raise ValueError(f"synchronous must be 'normal' or 'full', got {synchronous!r}")
        self.path = Path(path).absolute()
        self._timeout, self._synchronous, self._clock = timeout, synchronous, clock
        self._opened = Connected(self._open, _Opened.close)

    async def load(self, conversation: str) -> StoredConversation:
        """The conversation; one without entries and of version 0 where there is none of that id."""
        query = (
            "SELECT version, summary, updated, entries.id, body FROM conversations "
            "LEFT JOIN entries ON conversation = key WHERE conversations.id = ? ORDER BY position"
        )
        return joined(conversation, await self._read(query, checked(conversation)))

    async def append(self, conversation: str, entries: Sequence[Entry], *, version: int) -> int:
        """Add messages at the end, all of them or none, and give the new version.

        Raises:
            StateConflict: the conversation is at another version than `version`.
        """
        rows = rows_of(checked(conversation), entries)
        if not rows:
            return (await self.load(conversation)).version
        async with self._transaction() as database:
            key, actual, length = await self._head(database, conversation)
            added = await database.executemany(
                "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?)",
                [(key, position, *row) for position, row in enumerate(rows, length)],
            )
            if added.rowcount == 0:
                return actual
            if actual != version:
                raise StateConflict(conversation, version, actual)
            await database.execute(
                "UPDATE conversations SET version = ?, length = ?, updated = ? WHERE key = ?",
                (version + 1, length + len(rows), self._clock(), key),
            )
        return version + 1

    async def summarize(self, conversation: str, summary: Summary | None, *, version: int) -> int:
        """Keep a summary of the oldest messages, in place of an earlier one; gives the new version.

        Raises:
            StateConflict: the conversation is at another version than `version`.
        """
        data = packed(summary)
        async with self._transaction() as database:
            key, actual, _ = await self._head(database, checked(conversation))
            if actual != version:
                raise StateConflict(conversation, version, actual)
            await database.execute(
                "UPDATE conversations SET version = ?, summary = ?, updated = ? WHERE key = ?",
                (version + 1, data, self._clock(), key),
            )
        return version + 1

    async def delete(self, conversation: str) -> bool:
        """Forget a conversation; tells whether there was one."""
        return await self._delete("id = ?", checked(conversation)) > 0

    async def conversations(self, *, limit: int = 100) -> list[StoredConversation]:
        """What is stored, newest first, without the entries."""
        query = "SELECT id, version, summary, updated FROM conversations ORDER BY updated DESC, key DESC LIMIT ?"
        return listed(await self._read(query, max(limit, 0)))

    async def expire(self, older_than: float) -> int:
        """Delete what has not changed for `older_than` seconds; gives how many conversations that were."""
        return await self._delete("updated <= ?", self._clock() - older_than)

    async def aclose(self) -> None:
        """Close the connection that is open on the running loop; the object can be used again."""
        await self._opened.aclose()

    def __repr__(self) -> str:
        return f"SqliteStore({str(self.path)!r})"

    # ---------------------------------------------------------------- the connection

    def _answering(self) -> AbstractAsyncContextManager[None]:
        failures = (sqlite3.Error, OSError, ValueError)  # a ValueError where it was closed meanwhile
        hint = "; another process may be keeping it locked"
        return answering(f"the SQLite file {str(self.path)!r}", self._timeout, *failures, hint=hint)

    async def _read(self, query: str, parameter: Any) -> list[Any]:
        """All rows of one query, which sees one state of the file."""
        async with self._answering():
            opened = await self._opened.get()
            async with opened.lock:  # not in the middle of a transaction
                return list(await opened.database.execute_fetchall(query, (parameter,)))

    async def _delete(self, which: str, parameter: Any) -> int:
        async with self._transaction() as database:
            deleted = await database.execute(f"DELETE FROM conversations WHERE {which}", (parameter,))
        return deleted.rowcount

    async def _head(self, database: Connection, conversation: str) -> tuple[int, int, int]:
        """Key, version and length of a conversation, which is made where it is not there."""
        for row in await database.execute_fetchall(
            "SELECT key, version, length FROM conversations WHERE id = ?", (conversation,)
        ):
            return tuple(row)
        made = await database.execute(
            "INSERT INTO conversations (id, version, length, updated) VALUES (?, 0, 0, 0)", (conversation,)
        )
        assert made.lastrowid is not None
        return made.lastrowid, 0, 0

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """Write: all of it, or nothing where it raises or is cancelled."""
        async with self._answering():
            opened = await self._opened.get()
            async with opened.lock:
                database = opened.database
                try:
                    await _begin(database)
                    yield database
                    await database.commit()
                except BaseException:
                    # What was under way on the connection's thread ends first, and this comes right behind it.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._timeout):
                            await database.rollback()
                    raise

    async def _open(self) -> _Opened:
        opening = asyncio.ensure_future(_opened(partial(connect, self.path, self._timeout, self._synchronous)))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with suppress(Exception):  # it is being opened on its thread, and nobody else would close it
                await (await opening).close()
            raise


class _Opened:
    """A connection, and the lock that keeps its transactions apart."""

    __slots__ = ("database", "lock")

    def __init__(self, database: Connection) -> None:
        self.database = database
        self.lock = asyncio.Lock()

    async def close(self) -> None:
        async with self.lock:
            await self.database.close()


async def _opened(make: Callable[[], sqlite3.Connection]) -> _Opened:
    """A connection on a thread of its own; it keeps nothing of the store, which may be collected."""
    failed: list[Exception] = []

    def connected() -> sqlite3.Connection:
        try:
            return make()
        except Exception as error:  # where it raises there, nobody waits for the end of the thread
            failed.append(error)
            return sqlite3.connect(":memory:")

    database = require("aiosqlite", "sqlite").Connection(connected, 64)
    # A loop that is not closed as it should be must not keep the interpreter from ending.
    getattr(database, "_thread", database).daemon = True
    opened = _Opened(await database)
    if failed:
        await opened.close()
        raise failed[0]
    return opened


async def _begin(database: Connection) -> None:
    """Take the write lock of the file."""
    while True:
        try:
            await database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        else:
            return
