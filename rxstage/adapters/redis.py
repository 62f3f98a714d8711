"""A store in Redis, or in a server that speaks its protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import msgspec

from rxstage.adapters._connected import Connected, answering, without_password
from rxstage.adapters._rows import Row, checked, entries_of, packed, rows_of, unpacked
from rxstage.errors import require
from rxstage.ports.store import Entry, StateConflict, StateStore, StoredConversation, StoreError, Summary

__all__ = ["RedisStore"]

_CONNECTIONS: Final = 16  # of one event loop; a further call waits for its turn
_BATCH: Final = 500  # conversations that one script deletes: a script keeps the server from all else

# The keys of a conversation are a hash (version, summary, updated), a list (its entries) and a set (their ids); all
# conversations stand in a sorted set, by the time of their last change. A script runs on its own, or not at all.

_APPEND: Final = """
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
local new = {}
for number = 4, #ARGV, 2 do
    if redis.call('SISMEMBER', KEYS[3], ARGV[number]) == 0 then new[#new + 1] = number end
end
if #new == 0 then return {1, version} end
if version ~= tonumber(ARGV[2]) then return {0, version} end
for _, number in ipairs(new) do
    redis.call('RPUSH', KEYS[2], ARGV[number + 1])
    redis.call('SADD', KEYS[3], ARGV[number])
end
redis.call('HSET', KEYS[1], 'version', version + 1, 'updated', ARGV[3])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
return {1, version + 1}
"""
_SUMMARIZE: Final = """
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if version ~= tonumber(ARGV[2]) then return {0, version} end
if #ARGV == 4 then redis.call('HSET', KEYS[1], 'summary', ARGV[4]) else redis.call('HDEL', KEYS[1], 'summary') end
redis.call('HSET', KEYS[1], 'version', version + 1, 'updated', ARGV[3])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
return {1, version + 1}
"""
_DELETE: Final = """
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[1])
return redis.call('DEL', KEYS[1])
"""
_EXPIRE: Final = """
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(old) do
    redis.call('DEL', ARGV[3] .. 'head:' .. id, ARGV[3] .. 'entries:' .. id, ARGV[3] .. 'ids:' .. id)
    redis.call('ZREM', KEYS[1], id)
end
return #old
"""


class RedisStore(StateStore):
    """Keeps conversations in Redis. How much of them outlives a crash of the server is up to its configuration.

    It takes one server (with replicas, if you like), not a cluster, whose nodes share no script.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://` (a socket), as `redis.asyncio.from_url` takes it.
        prefix: what all keys begin with.
        timeout: seconds for one call, including the time to connect.
        clock: gives the time of a change, in seconds since 1970.

    Raises:
        MissingExtra: on first use, where `redis` is not installed (extra `redis`).
    """

    def __init__(
        self, url: str, *, prefix: str = "rxstage:", timeout: float = 5.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._url, self._prefix, self._timeout, self._clock = url, prefix, timeout, clock
        self._name = f"the Redis server at {without_password(url)}"
        self._opened = Connected(self._open, _close)

    async def load(self, conversation: str) -> StoredConversation:
        """The conversation; one without entries and of version 0 where there is none of that id."""
        head, entries, *_ = self._keys(conversation)
        async with self._answering(), (await self._opened.get()).pipeline(transaction=True) as pipeline:
            fields, found = await pipeline.hgetall(head).lrange(entries, 0, -1).execute()
        return self._stored(conversation, fields, found)

    async def append(self, conversation: str, entries: Sequence[Entry], *, version: int) -> int:
        """Add messages at the end, all of them or none, and give the new version.

        Raises:
            StateConflict: the conversation is at another version than `version`.
        """
        keys = self._keys(conversation)
        rows = rows_of(conversation, entries)
        pairs = [part for row in rows for part in (row[0], msgspec.msgpack.encode(row))]
        done, actual = await self._run(_APPEND, keys, conversation, version, self._clock(), *pairs)
        if not done:
            raise StateConflict(conversation, version, actual)
        return int(actual)

    async def summarize(self, conversation: str, summary: Summary | None, *, version: int) -> int:
        """Keep a summary of the oldest messages, in place of an earlier one; gives the new version.

        Raises:
            StateConflict: the conversation is at another version than `version`.
        """
        keys, data = self._keys(conversation), packed(summary)
        given = () if data is None else (data,)
        done, actual = await self._run(_SUMMARIZE, keys, conversation, version, self._clock(), *given)
        if not done:
            raise StateConflict(conversation, version, actual)
        return int(actual)

    async def delete(self, conversation: str) -> bool:
        """Forget a conversation; tells whether there was one."""
        return bool(await self._run(_DELETE, self._keys(conversation), conversation))

    async def conversations(self, *, limit: int = 100) -> list[StoredConversation]:
        """What is stored, newest first, without the entries."""
        if limit <= 0:
            return []
        async with self._answering():
            client = await self._opened.get()
            ids = [id.decode() for id in await client.zrevrange(f"{self._prefix}updated", 0, limit - 1)]
            async with client.pipeline(transaction=False) as pipeline:
                for id in ids:
                    pipeline.hgetall(self._keys(id)[0])
                heads = await pipeline.execute()
        return [self._stored(id, head) for id, head in zip(ids, heads, strict=True) if head]

    async def expire(self, older_than: float) -> int:
        """Delete what has not changed for `older_than` seconds; gives how many conversations that were."""
        before, index, deleted = self._clock() - older_than, f"{self._prefix}updated", 0
        while (count := int(await self._run(_EXPIRE, (index,), before, _BATCH, self._prefix))) > 0:
            deleted += count
        return deleted

    async def aclose(self) -> None:
        """Close the connections that are open on the running loop; the object can be used again."""
        await self._opened.aclose()

    def __repr__(self) -> str:
        return f"RedisStore({without_password(self._url)!r})"

    # ---------------------------------------------------------------- the connections

    def _answering(self) -> AbstractAsyncContextManager[None]:
        library = require("redis", "redis")
        return answering(self._name, self._timeout, library.RedisError, OSError)

    def _keys(self, conversation: str) -> tuple[str, ...]:
        checked(conversation)
        return (
            *(f"{self._prefix}{kind}:{conversation}" for kind in ("head", "entries", "ids")),
            f"{self._prefix}updated",
        )

    async def _run(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        async with self._answering():
            client = await self._opened.get()
            return await client.register_script(script)(keys, arguments)

    def _stored(self, conversation: str, fields: dict[bytes, bytes], found: Sequence[bytes] = ()) -> StoredConversation:
        try:
            version, updated = int(fields.get(b"version", 0)), float(fields.get(b"updated", 0.0))
            entries = entries_of(conversation, [msgspec.msgpack.decode(row, type=Row) for row in found])
            return StoredConversation(conversation, entries, version, unpacked(fields.get(b"summary")), updated=updated)
        except ValueError as error:  # those of msgspec too
            raise StoreError(f"conversation {conversation!r:.100} in {self._name} cannot be read: {error}") from error

    async def _open(self) -> Any:
        library, backoff = require("redis.asyncio", "redis"), require("redis.backoff", "redis")
        again = require("redis.asyncio.retry", "redis").Retry(backoff.NoBackoff(), 1)  # the server may have restarted
        pool = library.BlockingConnectionPool.from_url(
            self._url,
            max_connections=_CONNECTIONS,
            timeout=None,  # the time limits are those of the whole call
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=again,
        )
        return library.Redis.from_pool(pool)


async def _close(client: Any) -> None:
    await client.aclose()
