"""The file of an SQLite store: how it is opened, and how its schema is brought up to date."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from rxstage.ports.store import StoreError

__all__ = ["connect"]

_BUSY: Final = 0.2  # seconds of one wait for the lock; between two of them a call can be given up
_AGAIN: Final = 0.005  # seconds till the next try to open a file that others are opening
_MIGRATIONS: Final = (
    """
    CREATE TABLE conversations (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        length INTEGER NOT NULL,
        summary BLOB,
        updated REAL NOT NULL
    );
    CREATE INDEX conversations_updated ON conversations (updated);
    CREATE TABLE entries (
        conversation INTEGER NOT NULL REFERENCES conversations (key) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        id TEXT NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (conversation, position),
        UNIQUE (conversation, id)
    ) WITHOUT ROWID;
    """,
)
"""What makes of version n of the schema the next one; `PRAGMA user_version` says which one a file has."""


def connect(path: Path, timeout: float, synchronous: str) -> sqlite3.Connection:
    """Open the file, which is made where it is not there, and bring it up to date.

    Raises:
        StoreError: its directory is not there, or it is of a later version than this one knows.
        sqlite3.Error: it is no file of SQLite, or somebody keeps it locked.
        OSError: it cannot be made or written.
    """
    if not path.parent.is_dir():
        raise StoreError(f"the directory of the SQLite file {str(path)!r} does not exist; make it first")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # the log beside it takes over the mode
    until = monotonic() + timeout
    while True:
        try:
            return _connected(path, timeout, synchronous)
        except sqlite3.OperationalError as error:
            # Where others open a new file at the same moment, SQLite does not wait for the lock that WAL needs.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() >= until:
                raise
        sleep(_AGAIN)


def _connected(path: Path, timeout: float, synchronous: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=timeout, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {synchronous}")
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("PRAGMA secure_delete = ON")
        _migrate(database, path)
        database.execute(f"PRAGMA busy_timeout = {int(_BUSY * 1000)}")
    except BaseException:
        database.close()
        raise
    return database


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date; of several processes that come at once one does it."""
    newest = len(_MIGRATIONS)
    if _version(database) == newest:
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        version = _version(database)
        if version > newest:
            raise StoreError(
                f"the SQLite file {str(path)!r} has version {version} of the schema, and this rxstage knows {newest}: "
                f"upgrade it, or use another file"
            )
        for script in _MIGRATIONS[version:]:
            for statement in script.split(";"):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {newest}")
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _version(database: sqlite3.Connection) -> int:
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    return version
