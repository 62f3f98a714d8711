"""The stage that shows a model the newest part of a conversation only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar, Final

from pydantic import Field

from rxstage.content import Message
from rxstage.conversation import ContextPolicy, Conversation, conversations
from rxstage.element import StreamElement
from rxstage.prompts.turns import newest_turn, pieces
from rxstage.stage import Stage, StageContext, StageType

__all__ = ["WINDOW_RANK", "ConversationWindowStage"]

WINDOW_RANK: Final = 20
"""Rank of the policy: after compaction, before a token budget."""


class ConversationWindowStage(Stage):
    """Lets a model see the newest turns of its conversation, and no more. The history itself stays whole.

    A window holds whole turns, so that no tool's result is parted from its call, and always the newest turn and the
    system messages (a summary is one). Both limits hold where both are given.

    Args:
        name: name in the graph.
        max_turns: turns in the window.
        max_messages: messages in the window; a newest turn that is longer by itself is shown all the same.

    Raises:
        ValueError: neither is given.

    Emits: what it gets. Holds: nothing. Completes: with its input. Fails: never.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM

    max_turns: int | None = Field(default=None, ge=1)
    max_messages: int | None = Field(default=None, ge=1)

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        if self.max_turns is None and self.max_messages is None:
            raise ValueError(f"stage {self.name!r}: say how big the window is: max_turns= or max_messages=")

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        conversations(context).add_policy(ContextPolicy(WINDOW_RANK, self._window, context.stage))
        async for element in elements:
            yield element

    async def _window(
        self, history: Sequence[Message], instructions: Sequence[Message], conversation: Conversation
    ) -> Sequence[Message]:
        begin = newest_turn(history)
        turns = 1
        for start, _ in reversed(pieces(history[:begin])):
            if history[start].role == "system":
                continue
            turns += 1
            if self.max_turns is not None and turns > self.max_turns:
                break
            if self.max_messages is not None and len(history) - start > self.max_messages:
                break
            begin = start
        if not begin:
            return history
        fixed = [message for message in history[:begin] if message.role == "system"]
        return [*fixed, *history[begin:]]
