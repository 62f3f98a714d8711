"""What is peculiar to the store in an SQLite file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from storing import WAIT, needs_sqlite, on_a_loop, said, texts

from rxstage.adapters import _sqlite_file
from rxstage.adapters.sqlite import SqliteStore
from rxstage.ports import StoredConversation, StoreError

pytestmark = needs_sqlite


@on_a_loop
async def test_sqlite_file(tmp_path: Path) -> None:
    """The file and its log are the owner's only, it is in WAL mode, and it says which version of the schema it has."""
    path = tmp_path / "a #?%20.db"
    async with SqliteStore(path) as store:
        await store.append("talk", said("one"), version=0)
        modes = {file: stat.S_IMODE((tmp_path / file).stat().st_mode) for file in os.listdir(tmp_path)}
        assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}
    assert os.listdir(tmp_path) == [path.name]
    database = sqlite3.connect(path)
    try:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
    finally:
        database.close()


def test_sqlite_migrates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an earlier version of the schema is brought up to date with what is in it; half a step is none."""
    path = tmp_path / "talk.db"

    async def talk(version: int) -> list[str]:
        await SqliteStore(path).append("talk", said(str(version)), version=version)
        return texts(await SqliteStore(path).load("talk"))

    def schema() -> tuple[int, str]:
        database = sqlite3.connect(path)
        try:
            [version] = database.execute("PRAGMA user_version").fetchone()
            [made] = database.execute("SELECT sql FROM sqlite_schema WHERE name = 'conversations'").fetchone()
            return version, made
        finally:
            database.close()

    assert asyncio.run(talk(0)) == ["0"]
    first = _sqlite_file._MIGRATIONS
    step = "ALTER TABLE conversations ADD COLUMN title TEXT; ALTER TABLE conversations ADD COLUMN nobody {};"
    monkeypatch.setattr(_sqlite_file, "_MIGRATIONS", (*first, step.format("NO SUCH THING (")))
    with pytest.raises(StoreError, match=r"syntax error|incomplete input"):
        asyncio.run(talk(1))
    version, made = schema()
    assert (version, "title" in made) == (1, False)
    monkeypatch.setattr(_sqlite_file, "_MIGRATIONS", (*first, step.format("TEXT")))
    assert asyncio.run(talk(1)) == ["0", "1"]
    version, made = schema()
    assert (version, "title" in made) == (2, True)


@on_a_loop
async def test_sqlite_forgets(tmp_path: Path) -> None:
    """What was deleted does not stand in the file any more."""
    path = tmp_path / "talk.db"
    async with SqliteStore(path, synchronous="full") as store:
        await store.append("talk", said("a secret that was told"), version=0)
        await store.aclose()
        assert b"a secret that was told" in path.read_bytes()
        assert await store.delete("talk") is True
        await store.aclose()
        assert b"a secret that was told" not in path.read_bytes()


@on_a_loop
async def test_sqlite_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    """A directory that is not there, a file that is none of ours, and one of a later version are named."""
    (tmp_path / "text.db").write_text("This is no database, and long enough to be looked at by SQLite. " * 20)
    later = sqlite3.connect(tmp_path / "later.db")
    later.execute("PRAGMA user_version = 99")
    later.close()
    for name, message in (
        ("nowhere/talk.db", "the directory of the SQLite file .*nowhere/talk.db' does not exist; make it first"),
        ("text.db", "the SQLite file .*text.db': file is not a database"),
        ("later.db", "the SQLite file .*later.db' has version 99 of the schema, and this rxstage knows 1"),
        (".", "Is a directory"),
    ):
        store = SqliteStore(tmp_path / name)
        for _ in range(2):
            with pytest.raises(StoreError, match=message):
                await store.load("talk")
    with pytest.raises(ValueError, match="synchronous"):
        SqliteStore(tmp_path / "x.db", synchronous="off")  # type: ignore[arg-type]


def test_sqlite_opened_by_several_at_once(tmp_path: Path) -> None:
    """However many open a file that is new at the same moment, none of them is told that it is locked."""
    failed: list[Exception] = []

    def connect(path: Path, together: threading.Barrier) -> None:
        together.wait(WAIT)
        try:
            _sqlite_file.connect(path, WAIT, "NORMAL").close()
        except Exception as error:
            failed.append(error)

    for number in range(40):
        together = threading.Barrier(6)
        several = [
            threading.Thread(target=connect, args=(tmp_path / f"{number}.db", together))
            for _ in range(together.parties)
        ]
        for each in several:
            each.start()
        for each in several:
            each.join(WAIT)
    assert failed == []


@on_a_loop
async def test_sqlite_locked(tmp_path: Path) -> None:
    """While another process writes, reading goes on, writing waits, and gives up at its time limit."""
    path = tmp_path / "talk.db"
    async with SqliteStore(path, timeout=0.4) as store:
        await store.append("talk", said("one"), version=0)
        other = sqlite3.connect(path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            assert texts(await store.load("talk")) == ["one"]
            with pytest.raises(StoreError, match=r"did not answer within 0.4 s; another process may be keeping it"):
                await store.append("talk", said("two"), version=1)
            other.execute("ROLLBACK")
        finally:
            other.close()
        assert await store.append("talk", said("two"), version=1) == 2


@on_a_loop
async def test_sqlite_cancelled_while_it_waits(tmp_path: Path) -> None:
    """A call that is cancelled while it waits for the lock ends soon, and holds up nobody behind it."""
    path = tmp_path / "talk.db"
    async with SqliteStore(path, timeout=WAIT) as store:
        await store.append("talk", said("one"), version=0)
        other = sqlite3.connect(path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            task = asyncio.ensure_future(store.append("talk", said("two"), version=1))
            await asyncio.sleep(0.1)
            task.cancel()
            async with asyncio.timeout(10.0):
                await asyncio.wait([task])
                assert task.cancelled()
                assert texts(await store.load("talk")) == ["one"]
            other.execute("ROLLBACK")
        finally:
            other.close()
        assert await store.append("talk", said("three"), version=1) == 2
        assert texts(await store.load("talk")) == ["one", "three"]


_WRITER: Final = """
import asyncio, sys
from rxstage import Message
from rxstage.adapters import _sqlite_file
from rxstage.adapters.sqlite import SqliteStore
from rxstage.ports import Entry, StateConflict

async def main():
    path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    async with SqliteStore(path, timeout=50.0) as store:
        for number in range(count):
            entries = [Entry(Message.user(f"{name} {number} {part}")) for part in range(3)]
            while True:
                version = (await store.load("talk")).version
                try:
                    await store.append("talk", entries, version=version)
                except StateConflict:
                    continue
                break
            print(number, flush=True)

asyncio.run(main())
"""


@contextmanager
def writer(path: Path, name: str, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to the conversation `talk`, three messages at a time, and says when they are stored."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), name, str(count)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_sqlite_several_processes(tmp_path: Path) -> None:
    """Several processes begin a file and write to one conversation at once: nothing is lost, nothing there twice."""
    path = tmp_path / "talk.db"
    with writer(path, "a", 12) as a, writer(path, "b", 12) as b, writer(path, "c", 12) as c:
        for process in (a, b, c):
            process.communicate(timeout=WAIT)
            assert process.returncode == 0

    async def read() -> StoredConversation:
        return await SqliteStore(path).load("talk")

    found = texts(asyncio.run(read()))
    for name in "abc":
        own = [text for text in found if text.startswith(name)]
        assert own == [f"{name} {number} {part}" for number in range(12) for part in range(3)]
    assert len(found) == 108


def test_sqlite_killed_in_the_middle(tmp_path: Path) -> None:
    """A process that is killed while it writes loses nothing that was stored, and leaves nothing half done."""
    path = tmp_path / "talk.db"

    async def read() -> StoredConversation:
        return await SqliteStore(path).load("talk")

    before = 0
    for life in range(4):
        with writer(path, f"{life}", 100_000) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(5 + life)]
            process.kill()
            rest = process.stdout.read().split()
            told += map(int, rest[:-1] if rest and not rest[-1].isdigit() else rest)
        stored = asyncio.run(read())
        assert len(stored.entries) == 3 * stored.version
        own = texts(stored)[3 * before :]
        assert own == [f"{life} {number} {part}" for number in range(stored.version - before) for part in range(3)]
        assert len(told) <= stored.version - before <= len(told) + 1
        before = stored.version
