"""What every store of conversations keeps to, on the real servers."""

from __future__ import annotations

import asyncio
import functools
import itertools
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from storing import WAIT, merged, needs_postgres, needs_redis, needs_sqlite, on_a_loop, said, texts

from rxstage import Data, Image, Message, Text, ToolCall, ToolResult, Usage
from rxstage.adapters.memory import MemoryStore
from rxstage.adapters.postgres import PostgresStore
from rxstage.adapters.redis import RedisStore
from rxstage.adapters.sqlite import SqliteStore
from rxstage.adapters.stores import UnknownStore, store_of
from rxstage.ports import Entry, StateConflict, StateStore, StoredConversation, StoreError, Summary
from rxstage.testing import assert_no_leaks

if TYPE_CHECKING:
    from servers import PostgresServer, RedisServer, Server

pytest_plugins = ("servers",)

_numbers: Final = itertools.count(1)

Make = Callable[..., StateStore]
"""Makes a store; those of one test share what is stored."""


def _memory(request: pytest.FixtureRequest) -> Make:
    shared = MemoryStore()

    def make(**options: Any) -> StateStore:
        options.pop("timeout", None)  # it never waits
        for name, value in options.items():
            setattr(shared, f"_{name}", value)
        return shared

    return make


def _sqlite(request: pytest.FixtureRequest) -> Make:
    path: Path = request.getfixturevalue("tmp_path") / "conversations.db"
    return functools.partial(SqliteStore, path)


def _redis(request: pytest.FixtureRequest) -> Make:
    server: RedisServer = request.getfixturevalue("redis_server")
    return functools.partial(RedisStore, server.url, prefix=f"test{next(_numbers)}:")


def _postgres(request: pytest.FixtureRequest) -> Make:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return functools.partial(PostgresStore, server.url, schema=f"test{next(_numbers)}")


BACKENDS: Final = (
    pytest.param(_memory, id="memory"),
    pytest.param(_sqlite, id="sqlite", marks=needs_sqlite),
    pytest.param(_redis, id="redis", marks=needs_redis),
    pytest.param(_postgres, id="postgres", marks=needs_postgres),
)


@pytest.fixture(params=BACKENDS)
def make(request: pytest.FixtureRequest) -> Make:
    """Each kind of store in turn."""
    made: Make = request.param(request)
    return made


# ---------------------------------------------------------------- what all of them keep to


@on_a_loop
async def test_what_is_not_there(make: Make) -> None:
    """Loading a conversation that is not there gives an empty one, and makes none."""
    async with make() as store:
        assert await store.load("nobody") == StoredConversation("nobody")
        assert await store.append("nobody", [], version=7) == 0
        assert await store.conversations() == []


@on_a_loop
async def test_there_and_back(make: Make) -> None:
    """Messages of every kind come back as they were, in their order, with their ids and metadata."""
    call = ToolCall("weather", {"city": "Wien", "days": [1, 2], "nested": {"a": None}}, "call_1")
    entries = [
        Entry(Message.system("Be brief.\0\n'\";--")),
        Entry(Message.user("Wie wird das Wetter? ☂", Image(b"\0\xff", "image/png", 1, 2)), metadata={"at": 1.5}),
        Entry(Message.assistant("", tool_calls=(call,), usage=Usage(10, 5, 0.001))),
        Entry(Message("tool", (ToolResult("call_1", {"rain": True, "mm": 2.5}, "weather", True),))),
        Entry(Message("user", (Data((1, {2, 3})), Text("")), name="Eva"), "an id of its own", {"interrupted": True}),
    ]
    async with make(clock=lambda: 1234.5) as store:
        assert await store.append("talk", entries, version=0) == 1
        expected = StoredConversation("talk", tuple(entries), 1, updated=1234.5)
        assert await store.load("talk") == expected


@on_a_loop
async def test_a_bit_at_a_time(make: Make) -> None:
    """Each append goes behind what is there and gives the next version."""
    async with make() as store:
        for number in range(12):
            assert await store.append("talk", said(f"{number}a", f"{number}b"), version=number) == number + 1
        stored = await store.load("talk")
        assert texts(stored) == [f"{number}{letter}" for number in range(12) for letter in "ab"]
        assert stored.version == 12


@on_a_loop
async def test_a_conflict(make: Make) -> None:
    """A writer that knows an older version is told both, and nothing of what it has is stored."""
    async with make() as store:
        await store.append("talk", said("one"), version=0)
        for write in (
            store.append("talk", said("two", "three"), version=0),
            store.append("talk", said("two"), version=2),
            store.summarize("talk", Summary("s", 1), version=0),
        ):
            with pytest.raises(StateConflict, match=r"'talk' is at version 1 in the store, not at \d") as caught:
                await write
            assert (caught.value.conversation, caught.value.actual) == ("talk", 1)
        stored = await store.load("talk")
        assert (texts(stored), stored.version, stored.summary) == (["one"], 1, None)
        with pytest.raises(StateConflict):
            await store.append("new", said("two"), version=3)
        assert [each.id for each in await store.conversations()] == ["talk"]


@on_a_loop
async def test_nothing_twice(make: Make) -> None:
    """What is stored already is left out, and a call that brings nothing new changes nothing, whatever its version."""
    async with make() as store:
        one, two, three = said("one", "two", "three")
        await store.append("talk", [one, two], version=0)
        for version in (0, 1, 9):
            assert await store.append("talk", [one, two], version=version) == 1
            assert await store.append("talk", [two], version=version) == 1
        assert await store.append("talk", [two, three, three], version=1) == 2
        stored = await store.load("talk")
        assert (texts(stored), stored.version) == (["one", "two", "three"], 2)
        assert await store.append("other", [one], version=0) == 1  # the same message in another conversation


class Unregistered:
    """Something that has no wire form."""


@on_a_loop
async def test_what_cannot_be_stored(make: Make) -> None:
    """A message that has no wire form is an error that names the part, and nothing beside it is stored."""
    odd = Message.user("look", Data(Unregistered()))
    called = Message.assistant(tool_calls=(ToolCall("draw", {"pen": Unregistered()}, "1"),))
    async with make() as store:
        for entry, part in (
            (Entry(odd), r"part 2 \(Data\)"),
            (Entry(called), r"tool call 'draw' \(ToolCall\)"),
            (Entry(Message.user("hi"), metadata={"pen": Unregistered()}), "the metadata"),
        ):
            with pytest.raises(StoreError, match=f"^{part} of a message of conversation 'talk'.*Unregistered"):
                await store.append("talk", [*said("before"), entry], version=0)
        with pytest.raises(StoreError, match="id of a message"):
            await store.append("talk", [Entry(Message.user("hi"), "a\0b")], version=0)
        with pytest.raises(StoreError, match="summary"):
            await store.summarize("talk", Summary("\ud800", 1), version=0)
        assert await store.load("talk") == StoredConversation("talk")


@on_a_loop
async def test_summaries(make: Make) -> None:
    """A summary is kept beside the messages, replaced, and taken away."""
    async with make() as store:
        await store.append("talk", said("one", "two"), version=0)
        for version, summary in enumerate((Summary("ö\0'", 1), Summary("", 2), None, Summary("again", 2)), 1):
            assert await store.summarize("talk", summary, version=version) == version + 1
            stored = await store.load("talk")
            assert (stored.summary, stored.version, texts(stored)) == (summary, version + 1, ["one", "two"])
        assert [each.summary for each in await store.conversations()] == [Summary("again", 2)]


@on_a_loop
async def test_delete(make: Make) -> None:
    """A deleted conversation is gone, a writer that does not know it yet is told, and the id begins anew."""
    async with make() as store:
        for id in ("talk", "other"):
            await store.append(id, said("one"), version=0)
        await store.summarize("talk", Summary("s", 1), version=1)
        assert await store.delete("talk") is True
        assert await store.delete("talk") is False
        assert await store.load("talk") == StoredConversation("talk")
        with pytest.raises(StateConflict) as caught:
            await store.append("talk", said("two"), version=2)
        assert (caught.value.expected, caught.value.actual) == (2, 0)
        assert await store.append("talk", said("new"), version=0) == 1
        stored = await store.load("talk")
        assert (texts(stored), stored.summary) == (["new"], None)
        assert texts(await store.load("other")) == ["one"]


@on_a_loop
async def test_the_list(make: Make) -> None:
    """The list has the newest change first, as many as asked for, and no messages."""
    now = itertools.count(100.0)
    async with make(clock=lambda: next(now)) as store:
        for id in ("a", "b", "c"):
            await store.append(id, said(id), version=0)
        await store.append("a", said("more"), version=1)
        found = await store.conversations()
        assert [(each.id, each.version, each.updated) for each in found] == [
            ("a", 2, 103.0),
            ("c", 1, 102.0),
            ("b", 1, 101.0),
        ]
        assert all(each.entries == () for each in found)
        assert [each.id for each in await store.conversations(limit=2)] == ["a", "c"]
        assert await store.conversations(limit=0) == []


@on_a_loop
async def test_retention(make: Make) -> None:
    """What has not changed for so long is deleted, all of it, and nothing else."""
    time_now = 1000.0
    async with make(clock=lambda: time_now) as store:
        for id, at in (("old", 1000.0), ("kept", 1000.0), ("new", 1500.0)):
            time_now = at
            await store.append(id, said(id), version=0)
        time_now = 1600.0
        await store.append("kept", said("again"), version=1)
        time_now = 2000.0
        assert await store.expire(1000.5) == 0
        assert await store.expire(1000.0) == 1
        assert {each.id for each in await store.conversations()} == {"kept", "new"}
        assert await store.load("old") == StoredConversation("old")
        assert texts(await store.load("kept")) == ["kept", "again"]
        assert await store.expire(0.0) == 2
        assert await store.conversations() == []


HOSTILE: Final = (
    "'; DROP TABLE conversations; --",
    '"quoted"',
    "back\\slash",
    "new\nline\r\t",
    "%s %(id)s $1 ? :id {0} {}",
    "*",
    "entries:a",
    "ä",
    "a\u0308",  # looks the same
    "\u202egnp",
    "😀" * 250,
    " ",
    "A",
    "a",
    "a ",
    "../../etc/passwd",
    "x" * 1000,
)


@on_a_loop
async def test_hostile_ids(make: Make) -> None:
    """An id may be any string, and no two get mixed up."""
    async with make() as store:
        for id in HOSTILE:
            assert await store.append(id, said(id), version=0) == 1
            assert await store.summarize(id, Summary(id, 1), version=1) == 2
        for id in HOSTILE:
            stored = await store.load(id)
            assert (stored.id, texts(stored), stored.summary) == (id, [id], Summary(id, 1))
        assert {each.id for each in await store.conversations()} == set(HOSTILE)
        for id in HOSTILE:
            assert await store.delete(id) is True
        assert await store.conversations() == []


@pytest.mark.parametrize("id", ["", "a\0b", "x" * 10_000, "\ud800", None, 7], ids=repr)
@on_a_loop
async def test_what_is_no_id(make: Make, id: Any) -> None:
    """An id that not every store can keep is refused by each, with an error that says what is allowed."""
    async with make() as store:
        for call in (
            store.load(id),
            store.append(id, said("hi"), version=0),
            store.summarize(id, None, version=0),
            store.delete(id),
        ):
            with pytest.raises(StoreError, match=r"^the id of a conversation"):
                await call
        assert await store.conversations() == []


@on_a_loop
async def test_many_at_once(make: Make) -> None:
    """Many writers to one conversation, through two stores: each message is there once, each writer's in order."""

    async def write(store: StateStore, writer: int) -> None:
        for number in range(5):
            await merged(store, "talk", said(f"{writer}.{number}", f"{writer}.{number}!"))

    async with make() as first, make() as second:
        await asyncio.gather(*(write(store, number) for number, store in enumerate([first, second] * 4)))
        stored = await first.load("talk")
        assert stored.version == 40
        for writer in range(8):
            own = [text for text in texts(stored) if text.startswith(f"{writer}.")]
            assert own == [f"{writer}.{number}{mark}" for number in range(5) for mark in ("", "!")]
        assert len(stored.entries) == 80
        assert await second.load("talk") == stored


@on_a_loop
async def test_two_new_at_once(make: Make) -> None:
    """Of two that begin the same conversation at once one is told of the other."""
    async with make() as store:
        for number in range(10):
            id = f"talk {number}"
            done = await asyncio.gather(
                *(store.append(id, said(text), version=0) for text in ("a", "b")), return_exceptions=True
            )
            assert sorted(map(str, done)) == ["1", str(StateConflict(id, 0, 1))]
            assert len((await store.load(id)).entries) == 1


@on_a_loop
async def test_many_conversations_at_once(make: Make) -> None:
    """Calls about different conversations at once do not disturb one another."""
    async with make() as store:

        async def talk(id: str) -> list[str]:
            for version in range(3):
                await store.append(id, said(f"{id} {version}"), version=version)
            return texts(await store.load(id))

        ids = [f"talk {number}" for number in range(40)]
        assert await asyncio.gather(*map(talk, ids)) == [[f"{id} {version}" for version in range(3)] for id in ids]


def test_several_loops(make: Make) -> None:
    """One store object serves loops on several threads at once, and closes what it opened on each."""
    store, failed = make(), []

    async def write(writer: int) -> None:
        for number in range(5):
            await merged(store, "talk", said(f"{writer}.{number}"))

    def run(writer: int) -> None:
        try:
            asyncio.run(asyncio.wait_for(write(writer), WAIT))
        except BaseException as error:
            failed.append(error)

    with assert_no_leaks():
        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert failed == []

        async def read() -> StoredConversation:
            return await store.load("talk")

        assert len(asyncio.run(read()).entries) == 15


@on_a_loop
async def test_close_and_go_on(make: Make) -> None:
    """A closed store opens again when it is used."""
    store = make()
    await store.aclose()
    for version in range(3):
        await store.append("talk", said(str(version)), version=version)
        await store.aclose()
        await store.aclose()
    async with store:
        assert texts(await store.load("talk")) == ["0", "1", "2"]


@on_a_loop
async def test_cancelled_in_the_middle(make: Make) -> None:
    """A call that is cancelled at any moment has stored all or nothing, and the store goes on."""
    async with make() as store:
        version = await store.append("talk", said("begin"), version=0)
        count = 1
        for turns in range(40):
            task = asyncio.ensure_future(store.append("talk", said("a", "b", "c"), version=version))
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns % 2:
                await asyncio.sleep(0.0005 * (turns % 7))
            asked = task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() is asked
            stored = await store.load("talk")
            assert len(stored.entries) - count in (0, 3)
            assert stored.version - version == (len(stored.entries) - count) // 3
            if not task.cancelled():
                assert task.result() == stored.version == version + 1
            count, version = len(stored.entries), stored.version


@on_a_loop
async def test_cancelled_while_it_connects(make: Make) -> None:
    """A first call that is cancelled at any moment leaves nothing open, and the next one connects."""
    for turns in range(12):
        async with make() as store:
            task = asyncio.ensure_future(store.load("talk"))
            for _ in range(turns):
                await asyncio.sleep(0)
            asked = task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() is asked
            assert (await store.load("talk")).version == 0


@on_a_loop
async def test_the_time_that_it_takes(make: Make, record_property: Callable[[str, object], None]) -> None:
    """200 messages come back in one piece; how long saving and loading them takes is recorded, and not judged."""
    call = ToolCall("f", {"a": 1, "b": "text"}, "1")
    messages = [
        Message.user("How many of those are there, please? " * 3),
        Message.assistant("One moment.", tool_calls=(call,)),
        Message("tool", (ToolResult("1", {"values": [1, 2, 3]}),)),
        Message.assistant("There are three of them. " * 15),
    ] * 50
    best = best_cpu = 1e9
    async with make() as store:
        for number in range(10):
            entries = [Entry(message) for message in messages]
            cpu, begin = time.process_time(), time.perf_counter()
            await store.append(str(number), entries, version=0)
            stored = await store.load(str(number))
            best, best_cpu = min(best, time.perf_counter() - begin), min(best_cpu, time.process_time() - cpu)
            assert stored.entries == tuple(entries)
    record_property("wall_ms", round(best * 1000, 2))
    record_property("cpu_ms", round(best_cpu * 1000, 2))


# ---------------------------------------------------------------- servers that are dead, or come back


@asynccontextmanager
async def black_hole() -> AsyncIterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        yield port


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


REMOTE: Final = (
    pytest.param(lambda port, **options: RedisStore(f"redis://u:secret@127.0.0.1:{port}/0", **options), id="redis"),
    pytest.param(
        lambda port, **options: PostgresStore(f"postgresql://u:secret@127.0.0.1:{port}/db", **options), id="postgres"
    ),
)


@pytest.mark.needs("module:redis", "module:asyncpg")
@pytest.mark.parametrize("remote", REMOTE)
@on_a_loop
async def test_nobody_answers(remote: Any) -> None:
    """A server that is not there or does not answer is an error in time that names it, but not its password."""
    async with remote(closed_port()) as store:
        with pytest.raises(StoreError, match=r"server at \w+://u:…@127.0.0.1:\d+/") as caught:
            await store.load("talk")
        assert "secret" not in str(caught.value)
    async with black_hole() as port, remote(port, timeout=0.3) as store:
        for call in (
            store.load("talk"),
            store.append("talk", said("hi"), version=0),
            store.summarize("talk", None, version=0),
            store.delete("talk"),
            store.conversations(),
            store.expire(1.0),
        ):
            begin = time.monotonic()
            with pytest.raises(StoreError, match=r"did not answer within 0.3 s|[Tt]imeout"):
                await call
            assert time.monotonic() - begin < 10.0


@pytest.mark.parametrize(
    ("server", "store_kind"),
    [
        pytest.param("own_redis_server", RedisStore, id="redis", marks=needs_redis),
        pytest.param("own_postgres_server", PostgresStore, id="postgres", marks=needs_postgres),
    ],
)
def test_killed_and_started_again(request: pytest.FixtureRequest, server: str, store_kind: Any) -> None:
    """While a killed server is down each call is an error that says so; once it is back, the same store goes on."""
    running: Server = request.getfixturevalue(server)

    @on_a_loop
    async def test() -> None:
        async with store_kind(running.url, timeout=5.0) as store:
            version = await store.append("talk", said("one"), version=0)
            for _ in range(2):
                running.kill()
                for _ in range(2):
                    with pytest.raises(StoreError, match=r"^the (Redis|PostgreSQL) server at "):
                        await store.append("talk", said("lost"), version=version)
                running.start()
                version = await store.append("talk", said("more"), version=version)
            assert texts(await store.load("talk")) == ["one", "more", "more"]

    test()


# ---------------------------------------------------------------- URLs


def test_store_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL gives a store of its kind, a path relative to where the store was asked for."""
    monkeypatch.chdir(tmp_path)
    relative, absolute = store_of("sqlite:///talk%20one.db"), store_of(f"sqlite:///{tmp_path}/talk.db")
    assert isinstance(relative, SqliteStore)
    assert isinstance(absolute, SqliteStore)
    assert (relative.path, absolute.path) == (tmp_path / "talk one.db", tmp_path / "talk.db")
    for url, kind in (
        ("memory://", MemoryStore),
        ("redis://localhost:6379/0", RedisStore),
        ("rediss://localhost", RedisStore),
        ("unix:///run/redis.sock", RedisStore),
        ("postgresql://localhost/db", PostgresStore),
        ("postgres://localhost/db", PostgresStore),
    ):
        assert type(store_of(url)) is kind
    assert repr(store_of("redis://u:secret@h/1")) == "RedisStore('redis://u:…@h/1')"
    assert repr(store_of("unix:///r.sock?db=1&password=secret")) == "RedisStore('unix:///r.sock?db=1&password=…')"
    assert repr(store_of("postgresql://u:secret@h/db")) == "PostgresStore('postgresql://u:…@h/db')"
    assert repr(absolute) == f"SqliteStore('{tmp_path}/talk.db')"


def test_the_same_url_is_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names the same URL shares a store, for as long as one of them holds it."""
    first = store_of("memory://shared")
    assert store_of("memory://shared") is first
    assert store_of("memory://other") is not first
    asyncio.run(first.append("talk", said("hi"), version=0))
    del first
    assert asyncio.run(store_of("memory://shared").load("talk")).version == 0
    one = store_of("sqlite:///talk.db")
    monkeypatch.chdir(tmp_path)
    assert store_of("sqlite:///talk.db") is not one


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "mongodb://localhost",
            r"'mongodb://localhost' names no store; the URL of one begins with memory://, sqlite://",
        ),
        ("talk.db", "names no store"),
        ("", "names no store"),
        ("sqlite://talk.db", "names no file: write sqlite:///relative.db"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "memory:// for a store in memory"),
        ("sqlite:///a.db?mode=ro", "names no file"),
    ],
)
def test_what_names_no_store(url: str, message: str) -> None:
    """A URL of no store is an error that says what there is."""
    with pytest.raises(UnknownStore, match=message):
        store_of(url)
