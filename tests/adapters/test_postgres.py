"""What is peculiar to the store in PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from storing import needs_postgres, on_a_loop, said, texts

from rxstage.adapters import postgres
from rxstage.adapters.postgres import PostgresStore
from rxstage.ports import StoreError

if TYPE_CHECKING:
    from servers import PostgresServer

pytest_plugins = ("servers",)


@needs_postgres
@on_a_loop
async def test_postgres_waits_for_a_lock(postgres_server: PostgresServer) -> None:
    """A call that waits for another transaction is given up in time, and the next one works."""
    import asyncpg  # type: ignore[import-untyped]

    other = await asyncpg.connect(postgres_server.url)
    try:
        async with PostgresStore(postgres_server.url, schema="locked", timeout=0.5) as store:
            await store.append("talk", said("one"), version=0)
            async with other.transaction():
                await other.execute("SELECT * FROM locked.conversations FOR UPDATE")
                with pytest.raises(StoreError, match=r"did not answer within 0\.5 s"):
                    await store.append("talk", said("two"), version=1)
                assert texts(await store.load("talk")) == ["one"]
            assert await store.append("talk", said("three"), version=1) == 2
            assert texts(await store.load("talk")) == ["one", "three"]
    finally:
        await other.close()


@needs_postgres
@on_a_loop
async def test_postgres_schemas(postgres_server: PostgresServer) -> None:
    """Each schema is its own, several stores may make it at once, and one of a later version is refused."""
    import asyncpg

    with pytest.raises(ValueError, match="the name of a schema"):
        PostgresStore(postgres_server.url, schema='x"; DROP SCHEMA public; --')
    stores = [PostgresStore(postgres_server.url, schema="made_At_once") for _ in range(4)]
    await asyncio.gather(*(store.append(str(number), said("x"), version=0) for number, store in enumerate(stores)))
    async with PostgresStore(postgres_server.url, schema="another") as other:
        assert await other.conversations() == []
    assert len(await stores[0].conversations()) == 4
    for store in stores:
        await store.aclose()
    control = await asyncpg.connect(postgres_server.url)
    try:
        await control.execute('UPDATE "made_At_once".migrations SET version = 99')
    finally:
        await control.close()
    with pytest.raises(StoreError, match=r"schema 'made_At_once' .* has version 99, and this rxstage knows 1"):
        await stores[0].load("talk")


@needs_postgres
@on_a_loop
async def test_postgres_migrates(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of an earlier version are brought up to date with what is in them; half a step is none."""

    async def talk(version: int) -> list[str]:
        async with PostgresStore(postgres_server.url, schema="grows") as store:
            await store.append("talk", said(str(version)), version=version)
            return texts(await store.load("talk"))

    assert await talk(0) == ["0"]
    first = postgres._MIGRATIONS
    step = "ALTER TABLE conversations ADD COLUMN title text; ALTER TABLE conversations ADD COLUMN nobody {};"
    monkeypatch.setattr(postgres, "_MIGRATIONS", (*first, step.format("no_such_type")))
    with pytest.raises(StoreError, match="no_such_type"):
        await talk(1)
    monkeypatch.setattr(postgres, "_MIGRATIONS", first)
    assert await talk(1) == ["0", "1"]
    monkeypatch.setattr(postgres, "_MIGRATIONS", (*first, step.format("text")))
    assert await talk(2) == ["0", "1", "2"]
    monkeypatch.setattr(postgres, "_MIGRATIONS", first)
    with pytest.raises(StoreError, match="has version 2, and this rxstage knows 1"):
        await talk(3)
