"""What a turn adds to the history, kept apart as long as the turn may be withdrawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rxstage.content import Message
from rxstage.conversation import Conversation
from rxstage.dialogue.turn import Turn
from rxstage.ports.store import Entry
from rxstage.stage import StageContext
from rxstage.voice.speculation import Speculation, speculations

__all__ = ["Draft"]


class Draft:
    """The history as one turn sees and continues it.

    What an ordinary turn adds goes into the conversation at once. What a speculative one adds is seen by itself only;
    it comes into the conversation when the turn is confirmed, and is forgotten when it is withdrawn.

    Args:
        conversation: the history.
        turn: what is answered.
        context: of the stage that answers.
    """

    __slots__ = ("_context", "_conversation", "_entries", "_number", "_speculation")

    def __init__(self, conversation: Conversation, turn: Turn, context: StageContext) -> None:
        self._conversation, self._context = conversation, context
        self._number = 0 if turn.element is None else turn.element.sequence
        self._entries: list[Entry] = []
        self._speculation: Speculation | None = speculations(context).of(turn.metadata)
        if self._speculation is not None:
            self._speculation.then(self._decided)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history with what the turn has added, oldest first."""
        return (*self._conversation.messages, *(entry.message for entry in self._entries))

    def add(self, message: Message, metadata: Mapping[str, Any] | None = None) -> None:
        """Put a message at the end."""
        speculation = self._speculation
        if speculation is None or speculation.confirmed:
            self._conversation.add(message, metadata, self._number)
        elif speculation.open:
            self._entries.append(Entry(message, metadata=metadata or {}))

    async def certain(self) -> bool:
        """Wait till the turn is confirmed; False where it is withdrawn, or an `Interrupt` comes first.

        What a tool does cannot be taken back, so that tools wait for this.
        """
        if self._speculation is None or self._speculation.confirmed:
            return True
        async with self._context.interruptible(self._speculation.decision()) as decisions:
            async for confirmed in decisions:
                return confirmed
        return False

    def _decided(self) -> None:
        entries, self._entries = self._entries, []
        if self._speculation is not None and self._speculation.confirmed:
            for entry in entries:
                self._conversation.put(entry, self._number)
