"""Media as files in a folder: whole, private, bounded, and never outside of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from rxstage.adapters.media_folder import FolderMediaStore
from rxstage.ports.media import MediaNotFound, MediaStoreFull
from rxstage.ports.store import StoreError

DATA = b"some bytes"
ID = hashlib.sha256(DATA).hexdigest()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_round_trip(tmp_path: Path) -> None:
    """What is put there comes back, under the digest of its bytes; the same bytes are kept once."""

    async def main() -> None:
        store = FolderMediaStore(tmp_path / "media")
        assert [await store.put(DATA), await store.put(bytes(bytearray(DATA)))] == [ID, ID]
        assert await store.get(ID) == DATA
        assert await store.get(await store.put(b"")) == b""
        assert len(files(tmp_path)) == 2
        assert await store.delete(ID)
        assert not await store.delete(ID)
        with pytest.raises(MediaNotFound, match="there is no media"):
            await store.get(ID)

    asyncio.run(main())


def test_only_the_owner_reads_them(tmp_path: Path) -> None:
    """Files have the mode 0600 and folders 0700, whatever the umask says."""
    before = os.umask(0)
    try:
        asyncio.run(FolderMediaStore(tmp_path / "media").put(DATA))
    finally:
        os.umask(before)
    [path] = files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "id", ["../secret", "/etc/passwd", "", ".", "..", "a" * 63, "A" * 64, ID + "\n", ID[:2] + "/../" + ID, "\x00" * 64]
)
def test_ids_that_are_none(tmp_path: Path, id: str) -> None:
    """An id that is no digest finds nothing, wherever it points."""
    (tmp_path / "secret").write_bytes(DATA)
    store = FolderMediaStore(tmp_path / "media")

    async def main() -> None:
        with pytest.raises(MediaNotFound, match="is no id of media"):
            await store.get(id)
        with pytest.raises(MediaNotFound, match="is no id of media"):
            await store.delete(id)

    asyncio.run(main())
    assert (tmp_path / "secret").read_bytes() == DATA


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link that stands where a file should be is an error."""
    (tmp_path / "secret").write_bytes(DATA)
    (tmp_path / "media" / ID[:2]).mkdir(parents=True)
    (tmp_path / "media" / ID[:2] / ID).symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="cannot be read"):
        asyncio.run(FolderMediaStore(tmp_path / "media").get(ID))


def test_a_damaged_file(tmp_path: Path) -> None:
    """A file whose bytes are not those that were put there is no longer that media."""

    async def main() -> None:
        store = FolderMediaStore(tmp_path)
        await store.put(DATA)
        files(tmp_path)[0].write_bytes(b"others")
        with pytest.raises(MediaNotFound, match="is damaged"):
            await store.get(ID)

    asyncio.run(main())


def test_a_size_for_all(tmp_path: Path) -> None:
    """All files together stay within `max_bytes`; what is there already, and what others delete, counts."""

    async def main() -> None:
        store = FolderMediaStore(tmp_path, max_bytes=100)
        first = await store.put(b"a" * 60)
        with pytest.raises(MediaStoreFull, match=r"41 bytes more do not fit into .*: it has 60 bytes of 100"):
            await store.put(b"b" * 41)
        assert await store.put(b"a" * 60) == first
        assert await store.put(b"c" * 40)
        with pytest.raises(MediaStoreFull):
            await FolderMediaStore(tmp_path, max_bytes=100).put(b"d")
        await store.delete(first)
        assert await store.put(b"e" * 50)
        await FolderMediaStore(tmp_path).delete(hashlib.sha256(b"e" * 50).hexdigest())
        assert await store.put(b"f" * 60)

    asyncio.run(main())
    assert sum(path.stat().st_size for path in files(tmp_path)) == 100


def test_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves nothing behind, and the same can be tried again."""

    def fail(_: int) -> None:
        raise OSError("disk full")

    store = FolderMediaStore(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match=r"media cannot be written to .*: disk full"):
            asyncio.run(store.put(DATA))
    assert files(tmp_path) == []
    assert asyncio.run(store.put(DATA)) == ID


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """A folder that cannot be made is a `StoreError`."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="media cannot be written"):
        asyncio.run(FolderMediaStore(tmp_path / "file").put(DATA))


def test_threads(tmp_path: Path) -> None:
    """Several loops on several threads may put the same and others at once, within the size."""
    store = FolderMediaStore(tmp_path, max_bytes=100)
    full: list[bool] = []

    def work() -> None:
        for number in range(20):
            try:
                asyncio.run(store.put(bytes([number]) * 10))
            except MediaStoreFull:
                full.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(files(tmp_path)) == 10
    assert len(full) == 40
