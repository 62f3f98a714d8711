"""The port to stores of conversations: what is kept, and how two that write at once lose nothing."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from rxstage.content import Message
from rxstage.errors import RxStageError

__all__ = ["Entry", "StateConflict", "StateStore", "StoreError", "StoredConversation", "Summary"]


def _entry_id() -> str:
    return uuid.uuid4().hex


class Entry(Struct, frozen=True):
    """One message of a conversation as it is kept.

    Attributes:
        message: the message.
        id: its own name for ever: a message that is saved twice is kept once.
        metadata: what is known of it beside, such as `{"interrupted": True}`; values that the wire form has.
    """

    message: Message
    id: str = field(default_factory=_entry_id)
    metadata: Mapping[str, Any] = {}


class Summary(Struct, frozen=True):
    """What the first `covers` messages of a conversation came to, in a few words."""

    text: str
    covers: int


class StoredConversation(Struct, frozen=True):
    """A conversation as it lies in a store.

    Attributes:
        id: its name.
        entries: its messages, oldest first.
        version: grows with every change; 0 where nothing is stored.
        summary: of its oldest messages, where one was made.
        metadata: what the application keeps with it.
        updated: when it last changed, in seconds since 1970.
    """

    id: str
    entries: tuple[Entry, ...] = ()
    version: int = 0
    summary: Summary | None = None
    metadata: Mapping[str, Any] = {}
    updated: float = 0.0


class StoreError(RxStageError):
    """A store cannot be reached, does not answer in time, or holds what cannot be read."""


class StateConflict(StoreError):
    """Somebody else has written to the conversation since it was loaded.

    Attributes:
        conversation: its id.
        expected: the version that the writer knew.
        actual: the version that the store has.
    """

    def __init__(self, conversation: str, expected: int, actual: int) -> None:
        super().__init__(
            f"conversation {conversation!r} is at version {actual} in the store, not at {expected}: somebody else has "
            f"written to it; load it again, or save with on_conflict='merge'"
        )
        self.conversation = conversation
        self.expected = expected
        self.actual = actual

    def __reduce__(self) -> tuple[Any, ...]:
        return StateConflict, (self.conversation, self.expected, self.actual), self.__dict__


class StateStore(ABC):
    """Keeps conversations by id.

    One object serves any number of executions at once, on any number of event loops. Every call ends within the
    store's timeout, with a `StoreError` where it could not be done. It is a context manager (`async with store:`),
    which closes its connections on leaving; without one they are closed with their loop.
    """

    @abstractmethod
    async def load(self, conversation: str) -> StoredConversation:
        """The conversation; one without entries and of version 0 where there is none of that id."""

    @abstractmethod
    async def append(self, conversation: str, entries: Sequence[Entry], *, version: int) -> int:
        """Add messages at the end, all of them or none, and give the new version.

        Entries whose `id` is stored already are left out, so that a call whose outcome was not known can be made
        again: if all are stored, nothing changes, whatever the version.

        Raises:
            StateConflict: the conversation is at another version than `version`.
        """

    @abstractmethod
    async def summarize(self, conversation: str, summary: Summary | None, *, version: int) -> int:
        """Keep a summary of the oldest messages, in place of an earlier one; gives the new version.

        Raises:
            StateConflict: the conversation is at another version than `version`.
        """

    @abstractmethod
    async def delete(self, conversation: str) -> bool:
        """Forget a conversation; tells whether there was one."""

    @abstractmethod
    async def conversations(self, *, limit: int = 100) -> list[StoredConversation]:
        """What is stored, newest first, without the entries."""

    @abstractmethod
    async def expire(self, older_than: float) -> int:
        """Delete what has not changed for `older_than` seconds; gives how many conversations that were."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections that are open on the running loop; the object can be used again."""

    async def __aenter__(self) -> StateStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
