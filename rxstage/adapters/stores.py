"""The store that a URL names."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from rxstage.adapters._connected import without_password
from rxstage.adapters.memory import MemoryStore
from rxstage.adapters.postgres import PostgresStore
from rxstage.adapters.redis import RedisStore
from rxstage.adapters.sqlite import SqliteStore
from rxstage.ports.store import StateStore, StoreError

__all__ = ["UnknownStore", "store_of"]


class UnknownStore(StoreError, ValueError):
    """A URL names no store."""


def store_of(url: str) -> StateStore:
    """The store that a URL names.

    | URL | store |
    | --- | --- |
    | `memory://`, `memory://name` | in memory |
    | `sqlite:///relative.db`, `sqlite:////absolute.db` | an SQLite file |
    | `redis://…`, `rediss://…`, `unix://…` | Redis, by TCP, TLS or a socket |
    | `postgresql://…` | PostgreSQL |

    The same URL gives the same object for as long as somebody holds it, so that stages which name it share its
    connections (or, in memory, its contents). To set a time limit, a prefix or a schema make the store yourself.

    Raises:
        UnknownStore: it names none.
    """
    parts = urlsplit(url)
    make = _MAKERS.get(parts.scheme)
    if make is None:
        known = ", ".join(f"{scheme}://" for scheme in _MAKERS)
        raise UnknownStore(f"{without_password(url)!r} names no store; the URL of one begins with {known}")
    if parts.scheme == "sqlite":
        url = str(_file(url))
    key = parts.scheme, url
    with _lock:
        store = _known.get(key)
        if store is None:
            store = _known[key] = make(url)
        return store


def _file(url: str) -> Path:
    """The file of an SQLite URL; what stands for its host is empty."""
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path or path == ":memory:" or parts.query or parts.fragment:
        raise UnknownStore(
            f"{url!r} names no file: write sqlite:///relative.db or sqlite:////absolute/path.db, and memory:// for a "
            f"store in memory"
        )
    return Path(path).absolute()


_MAKERS: Final[dict[str, Callable[[str], StateStore]]] = {
    "memory": lambda _: MemoryStore(),
    "sqlite": SqliteStore,
    "redis": RedisStore,
    "rediss": RedisStore,
    "unix": RedisStore,
    "postgresql": PostgresStore,
    "postgres": PostgresStore,
}
_known: Final[weakref.WeakValueDictionary[tuple[str, str], StateStore]] = weakref.WeakValueDictionary()
_lock: Final = threading.Lock()
