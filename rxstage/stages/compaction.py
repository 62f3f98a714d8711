"""The stage that has the oldest part of a conversation summarized."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, ClassVar, Final

from pydantic import Field

from rxstage.content import Message
from rxstage.conversation import ContextPolicy, Conversation, conversations
from rxstage.element import StreamElement
from rxstage.prompts.compactor import Compactor
from rxstage.prompts.counting import TokenCounts, estimate_tokens
from rxstage.prompts.summary import summarizer
from rxstage.stage import Stage, StageContext, StageType

__all__ = ["COMPACTION_RANK", "CompactionStage"]

COMPACTION_RANK: Final = 10
"""Rank of the policy: before windows and token budgets."""


class CompactionStage(Stage):
    """Puts a summary in the place of the oldest turns once a conversation is long. The history itself stays whole.

    The summary is kept in the conversation, where a stage that saves it finds it. When the limit is reached again, what
    has come since is summarized together with it. A summarizer that fails or takes too long leaves things as they are,
    says so in a `context.compaction.failed` event, and is tried again some calls later.

    Args:
        name: name in the graph.
        summarize: `async summarize(messages, previous)`, which gives a text for both together, or a `Provider`.
        max_messages: messages past which the oldest turns are summarized.
        max_tokens: tokens past which they are.
        keep: how much of the limit the turns that stay as they are may fill: the less, the seldomer it happens.
        counter: counts the tokens of a message; by default an estimate.
        timeout: seconds for all that is summarized before one call of the model.

    Raises:
        ValueError: neither limit is given.
        TypeError: `summarize` is neither a function nor a `Provider`.

    Emits: what it gets. Holds: nothing. Completes: with its input. Fails: never.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM

    summarize: Any
    max_messages: int | None = Field(default=None, ge=2)
    max_tokens: int | None = Field(default=None, ge=1)
    keep: float = Field(default=0.5, gt=0, lt=1)
    counter: Any = estimate_tokens
    timeout: float | None = Field(default=30.0, gt=0)

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        if self.max_messages is None and self.max_tokens is None:
            raise ValueError(f"stage {self.name!r}: say how long is too long: max_messages= or max_tokens=")
        summarizer(self.summarize, f"stage {self.name!r}: summarize=")

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        summarize = summarizer(self.summarize, f"stage {self.name!r}: summarize=")
        compactor = Compactor(
            summarize, TokenCounts(self.counter), keep=self.keep, timeout=self.timeout, context=context
        )
        shown = partial(compactor.shown, max_messages=self.max_messages, max_tokens=self.max_tokens)

        async def apply(
            history: Sequence[Message], _: Sequence[Message], conversation: Conversation
        ) -> Sequence[Message]:
            return await shown(history, conversation)

        conversations(context).add_policy(ContextPolicy(COMPACTION_RANK, apply, context.stage))
        async for element in elements:
            yield element
