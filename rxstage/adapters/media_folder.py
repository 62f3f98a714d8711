"""Media as files in a folder."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from rxstage.ports.media import MediaNotFound, MediaStore, MediaStoreFull
from rxstage.ports.store import StoreError

__all__ = ["FolderMediaStore"]

_ID: Final = re.compile(r"[0-9a-f]{64}")
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_OLD: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class FolderMediaStore(MediaStore):
    """Keeps media in a folder, each under the SHA-256 of its bytes, so that the same is kept once.

    A file is there whole or not at all, only its owner can read it, and what is read is checked against its name. Files
    are read and written on threads.

    Args:
        folder: where they are; made where there is none.
        max_bytes: of all files together; by default there is no limit. What other processes write is noticed when the
            limit is reached.
    """

    def __init__(self, folder: str | os.PathLike[str], *, max_bytes: int | None = None) -> None:
        self.folder = Path(folder)
        self._max_bytes = max_bytes
        self._total: int | None = None  # as far as is known
        self._lock = threading.Lock()

    async def put(self, data: bytes) -> str:
        """Keep bytes; gives their SHA-256.

        Raises:
            MediaStoreFull: they would exceed `max_bytes`.
            StoreError: the file cannot be written.
        """
        return await asyncio.to_thread(self._put, bytes(data))

    async def get(self, id: str) -> bytes:
        """The bytes.

        Raises:
            MediaNotFound: there are none of that id, or they were changed.
            StoreError: the file cannot be read.
        """
        return await asyncio.to_thread(self._get, id)

    async def delete(self, id: str) -> bool:
        """Delete the file; tells whether there was one.

        Raises:
            StoreError: it cannot be deleted.
        """
        return await asyncio.to_thread(self._delete, id)

    # ---------------------------------------------------------------- on a thread

    def _put(self, data: bytes) -> str:
        id = hashlib.sha256(data).hexdigest()
        path = self._path(id)
        try:
            with self._lock:
                if path.is_file():
                    return id
                self._make_room(len(data))
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                draft = path.with_name(f".{uuid.uuid4().hex}")
                try:
                    with open(os.open(draft, _NEW, 0o600), "wb") as file:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                    os.replace(draft, path)
                except BaseException:
                    with suppress(OSError):
                        draft.unlink()
                    raise
                if self._total is not None:
                    self._total += len(data)
        except OSError as error:
            raise StoreError(f"media cannot be written to {self.folder}: {error}") from error
        return id

    def _get(self, id: str) -> bytes:
        try:
            with open(os.open(self._path(id), _OLD), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise MediaNotFound(f"there is no media {id!r} in {self.folder}") from None
        except OSError as error:
            raise StoreError(f"media {id!r} cannot be read from {self.folder}: {error}") from error
        if hashlib.sha256(data).hexdigest() != id:
            raise MediaNotFound(
                f"the file of media {id!r} in {self.folder} is damaged: it has other bytes than were put"
            )
        return data

    def _delete(self, id: str) -> bool:
        path = self._path(id)
        try:
            with self._lock:
                size = path.lstat().st_size
                path.unlink()
                if self._total is not None:
                    self._total -= size
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"media {id!r} cannot be deleted from {self.folder}: {error}") from error
        return True

    def _path(self, id: str) -> Path:
        """Where the file of an id is. An id that is no digest names none, whatever it says."""
        if not _ID.fullmatch(id):
            raise MediaNotFound(f"{id[:80]!r} is no id of media in a folder: they are SHA-256 digests")
        return self.folder / id[:2] / id

    def _make_room(self, size: int) -> None:
        if self._max_bytes is None:
            return
        if self._total is None or self._total + size > self._max_bytes:
            files = self.folder.glob("*/*") if self.folder.is_dir() else ()
            self._total = sum(file.lstat().st_size for file in files if not file.name.startswith("."))
        if self._total + size > self._max_bytes:
            raise MediaStoreFull(
                f"{size} bytes more do not fit into {self.folder}: it has {self._total} bytes of {self._max_bytes}; "
                f"delete some, or raise max_bytes="
            )
