"""A store in PostgreSQL."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from rxstage.adapters._connected import Connected, answering, without_password
from rxstage.adapters._rows import checked, joined, listed, packed, rows_of
from rxstage.errors import require
from rxstage.ports.store import Entry, StateConflict, StateStore, StoredConversation, StoreError, Summary

if TYPE_CHECKING:
    from asyncpg import Connection, Pool  # type: ignore[import-untyped]

__all__ = ["PostgresStore"]

_CONNECTIONS: Final = 10  # of one event loop; a further call waits for its turn
_GOODBYE: Final = 1.0  # seconds to close the connections
_MIGRATING: Final = 0x72787374  # the advisory lock of those that bring the schema up to date
_MIGRATIONS: Final = (
    """
    CREATE TABLE conversations (
        key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text NOT NULL UNIQUE,
        version bigint NOT NULL,
        length bigint NOT NULL,
        summary bytea,
        updated double precision NOT NULL
    );
    CREATE INDEX conversations_updated ON conversations (updated);
    CREATE TABLE entries (
        conversation bigint NOT NULL REFERENCES conversations (key) ON DELETE CASCADE,
        position bigint NOT NULL,
        id text NOT NULL,
        body bytea NOT NULL,
        PRIMARY KEY (conversation, position),
        UNIQUE (conversation, id)
    );
    """,
)
"""What makes of version n of the tables the next one; the table `migrations` says which one a schema has."""

# `@` stands for the schema: identifiers cannot be bound as parameters can.
_VERSION: Final = "SELECT version FROM @migrations"
_LOAD: Final = """
    SELECT version, summary, updated, e.id, body FROM @conversations c
    LEFT JOIN @entries e ON e.conversation = c.key WHERE c.id = $1 ORDER BY position
"""
_MAKE: Final = """
    INSERT INTO @conversations (id, version, length, updated) VALUES ($1, 0, 0, 0) ON CONFLICT DO NOTHING
"""
_LOCK: Final = "SELECT key, version, length FROM @conversations WHERE id = $1 FOR UPDATE"
_ADD: Final = """
    INSERT INTO @entries (conversation, position, id, body)
    SELECT $1, $2 + number, id, body FROM unnest($3::text[], $4::bytea[]) WITH ORDINALITY AS new (id, body, number)
    ON CONFLICT (conversation, id) DO NOTHING
"""
_GROW: Final = "UPDATE @conversations SET version = version + 1, length = length + $2, updated = $3 WHERE key = $1"
_SUMMARIZE: Final = "UPDATE @conversations SET version = version + 1, summary = $2, updated = $3 WHERE key = $1"
_DELETE: Final = "DELETE FROM @conversations WHERE id = $1"
_EXPIRE: Final = "DELETE FROM @conversations WHERE updated <= $1"
_LIST: Final = "SELECT id, version, summary, updated FROM @conversations ORDER BY updated DESC, key DESC LIMIT $1"


class PostgresStore(StateStore):
    """Keeps conversations in PostgreSQL, in a schema of their own, which is made where it is not there.

    Args:
        url: `postgresql://user:password@host:port/database`, as `asyncpg` takes it.
        schema: name of the schema: letters, digits and underscores.
        timeout: seconds for one call, including the time to connect.
        clock: gives the time of a change, in seconds since 1970.

    Raises:
        ValueError: the name of the schema is none.
        MissingExtra: on first use, where `asyncpg` is not installed (extra `postgres`).
    """

    def __init__(
        self, url: str, *, schema: str = "rxstage", timeout: float = 5.0, clock: Callable[[], float] = time.time
    ) -> None:
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", schema) is None:
            raise ValueError(f"the name of a schema has 1 to 63 letters, digits and underscores, got {schema!r}")
        self._url, self._schema, self._timeout, self._clock = url, schema, timeout, clock
        self._name = f"the PostgreSQL server at {without_password(url)}"
        self._opened = Connected(self._open, _close)

    async def load(self, conversation: str) -> StoredConversation:
        """The conversation; one without entries and of version 0 where there is none of that id."""
        checked(conversation)
        async with self._connection() as connection:
            rows = await connection.fetch(self._in(_LOAD), conversation)
        return joined(conversation, rows)

    async def append(self, conversation: str, entries: Sequence[Entry], *, version: int) -> int:
        """Add messages at the end, all of them or none, and give the new version.

        Raises:
            StateConflict: the conversation is at another version than `version`.
        """
        rows = rows_of(checked(conversation), entries)
        if not rows:
            return (await self.load(conversation)).version
        ids, bodies = zip(*rows, strict=True)
        async with self._transaction() as connection:
            key, actual, length = await self._head(connection, conversation)
            if _count(await connection.execute(self._in(_ADD), key, length, ids, bodies)) == 0:
                return actual
            if actual != version:
                raise StateConflict(conversation, version, actual)
            await connection.execute(self._in(_GROW), key, len(rows), self._clock())
        return version + 1

    async def summarize(self, conversation: str, summary: Summary | None, *, version: int) -> int:
        """Keep a summary of the oldest messages, in place of an earlier one; gives the new version.

        Raises:
            StateConflict: the conversation is at another version than `version`.
        """
        data = packed(summary)
        async with self._transaction() as connection:
            key, actual, _ = await self._head(connection, checked(conversation))
            if actual != version:
                raise StateConflict(conversation, version, actual)
            await connection.execute(self._in(_SUMMARIZE), key, data, self._clock())
        return version + 1

    async def delete(self, conversation: str) -> bool:
        """Forget a conversation; tells whether there was one."""
        checked(conversation)
        async with self._connection() as connection:
            return _count(await connection.execute(self._in(_DELETE), conversation)) > 0

    async def conversations(self, *, limit: int = 100) -> list[StoredConversation]:
        """What is stored, newest first, without the entries."""
        async with self._connection() as connection:
            return listed(await connection.fetch(self._in(_LIST), max(limit, 0)))

    async def expire(self, older_than: float) -> int:
        """Delete what has not changed for `older_than` seconds; gives how many conversations that were."""
        async with self._connection() as connection:
            return _count(await connection.execute(self._in(_EXPIRE), self._clock() - older_than))

    async def aclose(self) -> None:
        """Close the connections that are open on the running loop; the object can be used again."""
        await self._opened.aclose()

    def __repr__(self) -> str:
        return f"PostgresStore({without_password(self._url)!r})"

    # ---------------------------------------------------------------- the connections

    def _in(self, query: str) -> str:
        return query.replace("@", f'"{self._schema}".')

    def _answering(self) -> AbstractAsyncContextManager[None]:
        library = require("asyncpg", "postgres")
        failures = (library.PostgresError, library.InterfaceError, library.InternalClientError, OSError)
        return answering(self._name, self._timeout, *failures)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._answering():
            async with _lent(await self._opened.get()) as connection:
                yield connection

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """Write: all of it, or nothing where it raises or is cancelled."""
        async with self._connection() as connection, _whole(connection):
            yield connection

    async def _head(self, connection: Connection, conversation: str) -> tuple[int, int, int]:
        """Key, version and length of a conversation, which is made where it is not there, and locked."""
        while True:
            row = await connection.fetchrow(self._in(_LOCK), conversation)
            if row is not None:
                return tuple(row)
            await connection.execute(self._in(_MAKE), conversation)

    async def _open(self) -> Pool:
        pool = require("asyncpg", "postgres").create_pool(
            self._url, min_size=0, max_size=_CONNECTIONS, timeout=self._timeout, command_timeout=self._timeout
        )
        try:
            async with _lent(await pool) as connection:
                await self._migrate(connection)
        except BaseException:
            pool.terminate()
            raise
        return pool

    async def _migrate(self, connection: Connection) -> None:
        """Bring the schema up to date; of several processes that come at once one does it."""
        newest = len(_MIGRATIONS)
        table = self._in("@migrations")
        if await connection.fetchval("SELECT to_regclass($1)::text", table) is not None:
            if await connection.fetchval(self._in(_VERSION)) == newest:
                return
        async with _whole(connection):
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATING)
            await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
            await connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (version integer NOT NULL)")
            version = await connection.fetchval(self._in(_VERSION)) or 0
            if version > newest:
                raise StoreError(
                    f"the schema {self._schema!r} of {self._name} has version {version}, and this rxstage knows "
                    f"{newest}: upgrade it, or use another schema"
                )
            await connection.execute(f'SET LOCAL search_path TO "{self._schema}"')
            for script in _MIGRATIONS[version:]:
                await connection.execute(script)
            await connection.execute("DELETE FROM migrations")
            await connection.execute("INSERT INTO migrations VALUES ($1)", newest)


@asynccontextmanager
async def _lent(pool: Pool) -> AsyncIterator[Connection]:
    """A connection of the pool."""
    connection = await pool.acquire()
    try:
        yield connection
    except StoreError:
        raise
    except BaseException:  # a server that does not answer would not say goodbye either, and a broken one is no use
        connection.terminate()
        raise
    finally:
        await pool.release(connection)


@asynccontextmanager
async def _whole(connection: Connection) -> AsyncIterator[None]:
    """A transaction; one that is cancelled ends with its connection."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
        await transaction.commit()
    except Exception:
        with suppress(Exception):
            await transaction.rollback()
        raise


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(_GOODBYE):
            await pool.close()
    except (TimeoutError, OSError):
        pool.terminate()


def _count(status: str) -> int:
    """How many rows a command has changed, by what the server says of it: `INSERT 0 3`."""
    return int(status.rpartition(" ")[2])
