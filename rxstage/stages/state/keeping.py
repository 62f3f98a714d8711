"""What the stages that load and save know in common of the conversations of one execution."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import Any, Final

from rxstage.content import Message
from rxstage.conversation import ContextPolicy, Conversation, conversations
from rxstage.ports.store import Entry, StateStore, StoredConversation, Summary
from rxstage.stage import StageContext
from rxstage.stages.state.repair import well_formed

__all__ = ["DEFAULT_STORE", "Keeping", "Kept", "keeping", "store_of"]

DEFAULT_STORE: Final = "sqlite:///conversations.db"
"""Where conversations are kept if nothing else is said."""

_LAST: Final = 90  # rank of a policy that only puts in order what the others have chosen


class Kept:
    """A conversation, and what is known of what is stored of it.

    Attributes:
        conversation: it.
        id: under which it is stored; "" where nobody has said.
        lock: held while a store is asked about it.
        loaded: whether a stage has loaded it, or has tried to.
        summary: the one that is stored.
        failed: how many entries there were when they could not be stored; 0 where that went well.
        reached: the newest turn of which something has gone by.
    """

    __slots__ = ("_returns", "_taken", "conversation", "failed", "id", "loaded", "lock", "reached", "summary")

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.id = conversation.id
        self.lock = asyncio.Lock()
        self.loaded = False
        self.summary: Summary | None = None
        self.failed = 0
        self.reached = 0
        self._taken: Entry | None = None
        self._returns = False

    @property
    def pending(self) -> bool:
        """Whether something is not stored yet."""
        conversation = self.conversation
        return len(conversation.entries) > conversation.stored or conversation.summary is not self.summary

    def take_over(self, stored: StoredConversation) -> None:
        """Take over what is stored, in front of what is not; a newer summary stays."""
        conversation = self.conversation
        changed, before = conversation.summary, conversation.stored
        keeps = (
            changed is not None
            and changed is not self.summary
            and changed.covers <= before <= len(stored.entries)
            and (stored.summary is None or stored.summary.covers <= changed.covers)
        )
        conversation.restore(stored)
        self.summary = stored.summary
        if keeps:
            conversation.summary = changed
        taken = self._taken
        if taken is not None and any(entry.id == taken.id for entry in stored.entries):
            conversation.entries = [entry for entry in conversation.entries if entry.id != taken.id]
            conversation.stored -= 1

    def foreign(self, stored: StoredConversation) -> int | None:
        """How many of the stored messages others have written; None where what was stored is as it was."""
        conversation, taken = self.conversation, self._taken
        own = {entry.id for entry in conversation.entries}
        known = conversation.stored
        if taken is not None:
            own.add(taken.id)
            known += 1
        others = sum(entry.id not in own for entry in stored.entries)
        return others if others or len(stored.entries) < known else None

    def take_off(self, *, returns: bool) -> None:
        """Leave the last message, which is stored, out of the history, till it comes in again if it `returns`."""
        self._taken, self._returns = self.conversation.entries.pop(), returns
        self.conversation.stored -= 1

    def recognise(self) -> None:
        """See the message that was left out in the one that has come in again, so that it is not stored twice."""
        entries, stored, taken = self.conversation.entries, self.conversation.stored, self._taken
        if taken is None or not self._returns or len(entries) <= stored:
            return
        again = entries[stored].message
        entries[stored : stored + (again is taken.message or again == taken.message)] = [taken]
        self.conversation.stored, self._taken = stored + 1, None


class Keeping:
    """All conversations of an execution, as they are kept."""

    __slots__ = ("_kept",)

    def __init__(self, context: StageContext) -> None:
        self._kept: dict[str, Kept] = {}

        async def ordered(history: Sequence[Message], _: Sequence[Message], __: Conversation) -> Sequence[Message]:
            return well_formed(history)

        conversations(context).add_policy(ContextPolicy(_LAST, ordered, context.stage))

    def of(self, conversation: Conversation, default: str | None = None) -> Kept:
        """What is known of one; `default` is the id under which one is stored that the elements do not name."""
        kept = self._kept.get(conversation.id)
        if kept is None:
            kept = self._kept[conversation.id] = Kept(conversation)
        if not kept.id and default:
            kept.id = default
        return kept


def keeping(context: StageContext) -> Keeping:
    """What is kept of the conversations of the execution that a stage runs in."""
    return context.shared(Keeping, lambda: Keeping(context))


def store_of(stage: str, store: Any) -> StateStore:
    """The store that a stage was given, as such or as a URL.

    Raises:
        TypeError: it is neither.
        StoreError: the URL names none.
    """
    if isinstance(store, str):
        # The adapters stand beside the stages, and are imported only when they are used.
        found: StateStore = importlib.import_module("rxstage.adapters.stores").store_of(store)
        return found
    if not isinstance(store, StateStore):
        raise TypeError(
            f"stage {stage!r}: a store must be a StateStore or a URL such as {DEFAULT_STORE!r}, got {store!r}"
        )
    return store
