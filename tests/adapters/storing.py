"""What the tests of the stores have in common."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest

from rxstage import Message
from rxstage.ports import Entry, StateConflict, StateStore, StoredConversation
from rxstage.testing import assert_no_leaks

__all__ = ["WAIT", "merged", "needs_postgres", "needs_redis", "needs_sqlite", "on_a_loop", "said", "texts"]

WAIT: Final = 60.0
"""Real seconds for one test."""

needs_sqlite = pytest.mark.needs("module:aiosqlite")
needs_redis = pytest.mark.needs("redis-server", "module:redis")
needs_postgres = pytest.mark.needs("module:asyncpg")


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a loop in real time, and look for what it leaves behind."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with assert_no_leaks():
            asyncio.run(asyncio.wait_for(test(*args, **kwargs), WAIT))

    return run


def said(*texts: str) -> list[Entry]:
    """A message of the user for each text."""
    return [Entry(Message.user(text)) for text in texts]


def texts(stored: StoredConversation) -> list[str]:
    """The text of each message."""
    return [entry.message.text for entry in stored.entries]


async def merged(store: StateStore, conversation: str, entries: list[Entry]) -> int:
    """Append behind whatever others have written meanwhile; gives how often that was."""
    for conflicts in itertools.count():
        version = (await store.load(conversation)).version
        try:
            await store.append(conversation, entries, version=version)
        except StateConflict:
            continue
        return conflicts
    raise AssertionError
