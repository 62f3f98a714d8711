"""Conversations on real servers, and what becomes of them when a server crashes in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from storing import needs_postgres, needs_redis, needs_sqlite, on_a_loop, texts

from rxstage import Event, Message, Pipeline, StageError, StreamElement
from rxstage.adapters.postgres import PostgresStore
from rxstage.adapters.redis import RedisStore
from rxstage.adapters.stores import store_of
from rxstage.ports import StateStore, StoreError
from rxstage.providers import ScriptedProvider
from rxstage.stages.provider import ProviderStage
from rxstage.stages.state import StateStoreLoadStage, StateStoreSaveStage

if TYPE_CHECKING:
    from pathlib import Path

    from servers import PostgresServer, RedisServer, Server

pytest_plugins = ("servers",)


def talking(store: StateStore | str, provider: ScriptedProvider, **options: Any) -> Pipeline:
    return Pipeline.of(
        StateStoreLoadStage("load", store=store, conversation="talk", **options)
        >> ProviderStage("assistant", provider=provider)
        >> StateStoreSaveStage("save", store=store, **options)
    )


class Talk:
    """A conversation that is held one turn at a time."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.events: list[Event] = []
        pipeline.events.subscribe(self.events.append)
        self._said: asyncio.Queue[str | None] = asyncio.Queue()
        self._elements = aiter(pipeline.execute(self._source()))

    async def _source(self) -> AsyncIterator[Any]:
        while (text := await self._said.get()) is not None:
            yield Message.user(text)
            yield StreamElement.end_of_turn()

    async def say(self, text: str) -> str:
        """What is answered, when it has been saved or that was given up."""
        self._said.put_nowait(text)
        pieces = []
        async for element in self._elements:
            if element.is_control:
                break
            pieces.append(element.text or "")
        return "".join(pieces)

    async def end(self) -> list[StreamElement]:
        self._said.put_nowait(None)
        return [element async for element in self._elements]

    def count(self, kind: str) -> int:
        return sum(event.type == kind for event in self.events)


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        pytest.param("own_redis_server", RedisStore, id="redis", marks=needs_redis),
        pytest.param("own_postgres_server", PostgresStore, id="postgres", marks=needs_postgres),
    ],
)
def test_the_server_crashes_in_the_middle(request: pytest.FixtureRequest, server: str, kind: Any) -> None:
    """With `on_error="skip"` a conversation goes on while its server is down, and nothing is lost once it is back."""
    running: Server = request.getfixturevalue(server)

    @on_a_loop
    async def test() -> None:
        async with kind(running.url, timeout=5.0) as store:
            talk = Talk(talking(store, ScriptedProvider("b", "d", "f", "h"), on_error="skip"))
            assert await talk.say("a") == "b"
            assert texts(await store.load("talk")) == ["a", "b"]
            running.kill()
            assert await talk.say("c") == "d"
            async with asyncio.timeout(60.0):  # saving goes on behind the answer
                while not talk.count("state.failed"):
                    await asyncio.sleep(0.01)
            with pytest.raises(StoreError):
                await store.load("talk")
            running.start()
            assert await talk.say("e") == "f"
            assert texts(await store.load("talk")) == list("abcdef")
            assert await talk.say("g") == "h"
            assert await talk.end() == []
            stored = await store.load("talk")
            assert texts(stored) == list("abcdefgh")
            assert talk.count("state.conflict") == 0

            failing = Talk(talking(store, ScriptedProvider("j", "l")))
            assert await failing.say("i") == "j"
            running.kill()
            with pytest.raises(StageError, match=r"stage 'save' .*the (Redis|PostgreSQL) server at ") as caught:
                await failing.say("k")
            assert isinstance(caught.value.__cause__, StoreError)

    test()


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=needs_sqlite),
        pytest.param("redis", marks=needs_redis),
        pytest.param("postgres", marks=needs_postgres),
    ]
)
def url(request: pytest.FixtureRequest) -> str:
    """The URL of each kind of store in turn."""
    if request.param == "sqlite":
        path: Path = request.getfixturevalue("tmp_path")
        return f"sqlite:///{path}/talks.db"
    server: RedisServer | PostgresServer = request.getfixturevalue(f"{request.param}_server")
    return server.url


@on_a_loop
async def test_several_executions_by_url(url: str) -> None:
    """Executions that hold one conversation at once, by the URL of its store, lose nothing."""
    store = store_of(url)
    await store.delete("talk")
    talks = [Talk(talking(url, ScriptedProvider(*(f"{name}{n}!" for n in range(4))))) for name in "xyz"]

    async def hold(talk: Talk, name: str) -> None:
        for number in range(4):
            assert await talk.say(f"{name}{number}") == f"{name}{number}!"
        await talk.end()

    await asyncio.gather(*(hold(talk, name) for talk, name in zip(talks, "xyz", strict=True)))
    found = texts(await store.load("talk"))
    assert len(found) == 24
    for name in "xyz":
        own = [text for text in found if text.startswith(name)]
        assert own == [f"{name}{number}{mark}" for number in range(4) for mark in ("", "!")]
    await store.aclose()
