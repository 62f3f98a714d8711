"""Puts a summary in the place of the oldest turns of a conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from rxstage.content import Message
from rxstage.conversation import Conversation
from rxstage.ports.store import Summary
from rxstage.prompts.counting import TokenCounts
from rxstage.prompts.summary import Summarizer, summary_message
from rxstage.prompts.turns import newest_turn, pieces
from rxstage.stage import StageContext

__all__ = ["Compactor"]

_AT_ONCE: Final = 16_000  # tokens that are summarized in one call
_PATIENCE: Final = 16  # times that it stands back after failures, at most


class Compactor:
    """Keeps what a model gets to see below a limit; lives as long as an execution.

    Past the limit the oldest turns are summarized, together with the summary that there was, so that nothing is
    summarized twice. The newest turn always stays as it is. A long history is done in parts, and what is done stays
    done when a later part fails.

    Args:
        summarize: makes the summary.
        counts: counts the tokens.
        keep: how much of the limit the turns that stay may fill, from 0 to 1.
        timeout: seconds for all that is summarized before one call of the model.
        context: of the stage.
    """

    def __init__(
        self, summarize: Summarizer, counts: TokenCounts, *, keep: float, timeout: float | None, context: StageContext
    ) -> None:
        self._summarize, self._counts, self._keep, self._timeout = summarize, counts, keep, timeout
        self._context = context
        self._failures: dict[str, tuple[int, int]] = {}  # how often in a row, and how often to stand back yet
        self._messages: dict[str, tuple[Summary, Message]] = {}

    async def shown(
        self,
        history: Sequence[Message],
        conversation: Conversation,
        *,
        max_messages: int | None = None,
        max_tokens: int | None = None,
    ) -> list[Message]:
        """The history with a summary in the place of its oldest turns.

        Args:
            history: what the policies before have left.
            conversation: its summary stands for some of it, and is replaced where more has to be.
            max_messages: the limit in messages.
            max_tokens: the limit in tokens.
        """
        rest = self._uncovered(history, conversation)
        cut = self._cut(rest, conversation, max_messages, max_tokens)
        if cut and not self._stands_back(conversation.id):
            before = len(rest)
            try:
                async with asyncio.timeout(self._timeout):
                    while cut:
                        done = self._part(rest, cut)
                        await self._cover(rest[:done], conversation)
                        rest, cut = rest[done:], cut - done
            except Exception as error:
                self._failed(conversation.id, error)
            else:
                self._failures.pop(conversation.id, None)
            if len(rest) < before and conversation.summary is not None:
                self._context.emit_event(
                    "context.compacted",
                    conversation=conversation.id,
                    messages=before - len(rest),
                    covers=conversation.summary.covers,
                )
        return [*self._head(conversation), *rest]

    def _uncovered(self, history: Sequence[Message], conversation: Conversation) -> list[Message]:
        """What the summary does not stand for."""
        summary, entries = conversation.summary, conversation.entries
        if summary is None or not summary.covers:
            return list(history)
        if history and history[0] == self._head(conversation)[0]:  # an earlier policy has put it there
            return list(history[1:])
        covers = min(summary.covers, len(entries))
        if 0 < covers <= len(history) and history[covers - 1] is entries[covers - 1].message:
            return list(history[covers:])
        covered = {id(entry.message) for entry in entries[:covers]}
        return [message for message in history if id(message) not in covered]

    def _head(self, conversation: Conversation) -> list[Message]:
        summary = conversation.summary
        if summary is None:
            return []
        known = self._messages.get(conversation.id)
        if known is None or known[0] is not summary:
            known = self._messages[conversation.id] = summary, summary_message(summary)
        return [known[1]]

    def _cut(
        self, rest: list[Message], conversation: Conversation, max_messages: int | None, max_tokens: int | None
    ) -> int:
        """How many of the oldest messages are to go."""
        head = sum(map(self._counts.of, self._head(conversation))) if max_tokens is not None else 0
        over = max_messages is not None and len(rest) > max_messages
        if not over and max_tokens is not None:
            over = head + sum(map(self._counts.of, rest)) > max_tokens
        if not over:
            return 0
        cut = newest_turn(rest)
        tokens = head + (sum(map(self._counts.of, rest[cut:])) if max_tokens is not None else 0)
        for begin, end in reversed(pieces(rest[:cut])):
            if max_tokens is not None:
                tokens += sum(map(self._counts.of, rest[begin:end]))
                if tokens > max_tokens * self._keep:
                    break
            if max_messages is not None and len(rest) - begin > max_messages * self._keep:
                break
            cut = begin
        return cut

    def _part(self, rest: list[Message], cut: int) -> int:
        """How many of the oldest messages fit into one call."""
        tokens = 0
        for begin, end in pieces(rest[:cut]):
            tokens += sum(map(self._counts.of, rest[begin:end]))
            if tokens > _AT_ONCE and begin:
                return begin
        return cut

    async def _cover(self, messages: list[Message], conversation: Conversation) -> None:
        """Summarize messages together with the summary that there is."""
        summary, entries = conversation.summary, conversation.entries
        first = summary.covers if summary is not None else 0
        last = next((index for index in range(first, len(entries)) if entries[index].message is messages[-1]), None)
        text = await self._summarize(messages, summary.text if summary is not None else "")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the summarizer gave no text but {text!r}")
        covers = first + len(messages) if last is None else last + 1
        conversation.summary = Summary(text.strip(), covers)

    # ---------------------------------------------------------------- failures

    def _stands_back(self, conversation: str) -> bool:
        """Whether it has failed lately: then it is not tried before every call of the model."""
        count, left = self._failures.get(conversation, (0, 0))
        if not left:
            return False
        self._failures[conversation] = count, left - 1
        return True

    def _failed(self, conversation: str, error: Exception) -> None:
        count = self._failures.get(conversation, (0, 0))[0] + 1
        self._failures[conversation] = count, min(2**count - 1, _PATIENCE)
        told = (
            f"it took more than {self._timeout:g} s"
            if isinstance(error, TimeoutError) and self._timeout
            else str(error)
        )
        self._context.emit_event(
            "context.compaction.failed", conversation=conversation, error=f"{type(error).__name__}: {told}"
        )
