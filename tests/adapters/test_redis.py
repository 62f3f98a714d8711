"""What is peculiar to the store in Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from storing import needs_redis, on_a_loop, said, texts

from rxstage.adapters.redis import RedisStore
from rxstage.ports import StoredConversation, StoreError

if TYPE_CHECKING:
    from servers import RedisServer

pytest_plugins = ("servers",)


@needs_redis
@on_a_loop
async def test_redis_pauses(redis_server: RedisServer) -> None:
    """A Redis that pauses is given up in time; the connection is not used again, and nothing gets mixed up."""
    import redis

    control = redis.Redis.from_url(redis_server.url)
    try:
        async with RedisStore(redis_server.url, prefix="paused:", timeout=0.3) as store:
            await store.append("talk", said("one"), version=0)
            control.client_pause(60_000, all=False)  # it takes no script meanwhile
            with pytest.raises(StoreError, match=r"0\.3 s|[Tt]imeout"):
                await store.append("talk", said("two"), version=1)
            control.client_unpause()
            stored = await store.load("talk")
            assert texts(stored) in (["one"], ["one", "two"])
            await store.append("talk", said("three"), version=stored.version)
            assert texts(await store.load("talk"))[-1] == "three"
    finally:
        control.close()


@needs_redis
@on_a_loop
async def test_redis_keys(redis_server: RedisServer) -> None:
    """All keys begin with the prefix, stores with different ones share nothing, and a deletion leaves no key."""
    import redis

    client = redis.Redis.from_url(redis_server.url)
    try:
        async with (
            RedisStore(redis_server.url, prefix="one:") as one,
            RedisStore(redis_server.url, prefix="two:") as two,
        ):
            await one.append("talk", said("first"), version=0)
            assert await two.load("talk") == StoredConversation("talk")
            await two.append("talk", said("second"), version=0)
            assert texts(await one.load("talk")) == ["first"]
            assert len(client.keys("one:*")) == len(client.keys("two:*")) == 4
            await one.delete("talk")
            assert await two.expire(-1.0) == 1
            assert client.keys("one:*") == client.keys("two:*") == []
    finally:
        client.close()


@needs_redis
@on_a_loop
async def test_redis_expires_many(redis_server: RedisServer) -> None:
    """More old conversations than one script deletes are deleted all the same."""
    async with RedisStore(redis_server.url, prefix="many:", clock=lambda: 5.0) as store:
        await asyncio.gather(*(store.append(str(number), said("x"), version=0) for number in range(1100)))
        assert await store.expire(0.0) == 1100
        assert await store.conversations() == []


@needs_redis
@on_a_loop
async def test_what_cannot_be_read(redis_server: RedisServer) -> None:
    """What is stored and no message of ours is an error that names it."""
    import redis

    client = redis.Redis.from_url(redis_server.url)
    try:
        async with RedisStore(redis_server.url, prefix="odd:") as store:
            [entry] = said("one")
            await store.append("talk", [entry], version=0)
            row: Any = client.lindex("odd:entries:talk", 0)
            newer: Any = row.replace(b"rxstage\x01", b"rxstage\x02")
            client.lset("odd:entries:talk", 0, newer)
            with pytest.raises(
                StoreError, match=f"message '{entry.id}' of conversation 'talk' cannot be read: .*version 2"
            ):
                await store.load("talk")
            client.lset("odd:entries:talk", 0, "no row")
            with pytest.raises(StoreError, match="conversation 'talk' in the Redis server"):
                await store.load("talk")
            client.hset("odd:head:talk", "summary", "none")
            with pytest.raises(StoreError, match="a summary that is stored cannot be read"):
                await store.conversations()
            client.hset("odd:head:talk", "version", "many")
            with pytest.raises(StoreError, match="cannot be read"):
                await store.conversations()
            client.set("odd:head:talk", "no hash")
            with pytest.raises(StoreError, match="WRONGTYPE"):
                await store.load("talk")
    finally:
        client.close()
