"""How much a model gets to see, in tokens, and what is left out where there is more."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rxstage.content import Message
from rxstage.conversation import ContextPolicy, Conversation
from rxstage.prompts.compactor import Compactor
from rxstage.prompts.counting import TokenCounts, estimate_tokens
from rxstage.prompts.errors import TokenBudgetExceeded
from rxstage.prompts.relevance import LexicalScorer, Scorer
from rxstage.prompts.summary import summarizer
from rxstage.prompts.turns import newest_turn, pieces
from rxstage.stage import StageContext

__all__ = ["BUDGET_RANK", "TokenBudget"]

BUDGET_RANK: Final = 30
"""Rank of the policy: after those of compaction and of windows."""


class TokenBudget(BaseModel):
    """How many tokens go to the model, and what is left out where there are more.

    Instructions, system messages and the newest turn are always sent. Turns are kept or left out as a whole, so that
    no tool's result is parted from its call.

    Args:
        max_tokens: how many fit into the model's context.
        strategy: `"oldest"` leaves out the oldest turns; `"relevance"` those that have the least to do with the newest;
            `"summarize"` puts a summary in the place of the oldest; `"fail"` raises.
        reserve: tokens that stay free for the answer and for the descriptions of tools.
        counter: counts the tokens of a message; by default an estimate.
        summarize: for `"summarize"`: `async summarize(messages, previous)`, or a `Provider`.
        score: for `"relevance"`: `async score(question, texts)`; by default by the words that they have in common.
        timeout: seconds for `summarize` and `score`. Where they fail, the oldest turns are left out.

    Raises:
        ValueError: `reserve` leaves nothing, or what the strategy needs is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    max_tokens: int = Field(gt=0)
    strategy: Literal["oldest", "summarize", "relevance", "fail"] = "oldest"
    reserve: int = Field(default=0, ge=0)
    counter: Any = estimate_tokens
    summarize: Any = None
    score: Any = None
    timeout: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.reserve >= self.max_tokens:
            raise ValueError(f"reserve={self.reserve} leaves nothing of max_tokens={self.max_tokens}")
        if not callable(self.counter):
            raise ValueError(f"counter is a function of a message, got {self.counter!r}")
        if (self.summarize is not None) != (self.strategy == "summarize"):
            raise ValueError("strategy='summarize' and summarize= belong together: give both or neither")
        if self.score is not None and self.strategy != "relevance":
            raise ValueError("score= is for strategy='relevance'")
        if self.summarize is not None:
            try:
                summarizer(self.summarize, "summarize=")
            except TypeError as error:
                raise ValueError(str(error)) from None
        return self

    def policy(self, context: StageContext) -> ContextPolicy:
        """The policy for one execution."""
        return ContextPolicy(BUDGET_RANK, _Budget(self, context).apply, context.stage)


class _Budget:
    """A budget at work in one execution."""

    def __init__(self, options: TokenBudget, context: StageContext) -> None:
        self._options, self._context = options, context
        self._counts = TokenCounts(options.counter)
        self._score: Scorer = options.score or LexicalScorer()
        self._compactor: Compactor | None = None
        if options.summarize is not None:
            summarize = summarizer(options.summarize, "summarize=")
            self._compactor = Compactor(summarize, self._counts, keep=0.5, timeout=options.timeout, context=context)

    async def apply(
        self, history: Sequence[Message], instructions: Sequence[Message], conversation: Conversation
    ) -> Sequence[Message]:
        """What of the history is sent."""
        options, count = self._options, self._counts.of
        instructed = sum(map(count, instructions))
        budget = options.max_tokens - options.reserve
        room = budget - instructed
        if self._compactor is not None:
            history = await self._compactor.shown(history, conversation, max_tokens=max(1, room))
        tokens = sum(map(count, history))
        if tokens <= room:
            return history
        if options.strategy == "fail":
            raise TokenBudgetExceeded(
                tokens + instructed, budget, f"a history of {len(history)} messages with its instructions"
            )
        kept = await self._chosen(history, room)
        left = sum(map(count, kept))
        told = {"conversation": conversation.id, "tokens": left + instructed, "budget": budget}
        if len(kept) < len(history):
            self._context.emit_event("context.trimmed", **told, left_out=len(history) - len(kept))
        if left > room:
            self._context.emit_event("context.over_budget", **told)
        return kept

    async def _chosen(self, history: Sequence[Message], room: int) -> list[Message]:
        """What always stays, and of the rest what the strategy prefers, as long as there is room."""
        count, newest = self._counts.of, newest_turn(history)
        chosen = [(newest, len(history))]
        others: list[tuple[int, int]] = []
        for begin, end in pieces(history[:newest]):
            (chosen if history[begin].role == "system" else others).append((begin, end))
        room -= sum(count(history[index]) for begin, end in chosen for index in range(begin, end))
        by_relevance = self._options.strategy == "relevance"
        for begin, end in await self._ranked(history, others) if by_relevance else reversed(others):
            tokens = sum(count(history[index]) for index in range(begin, end))
            if tokens <= room:
                chosen.append((begin, end))
                room -= tokens
            elif not by_relevance:
                break
        return [history[index] for begin, end in sorted(chosen) for index in range(begin, end)]

    async def _ranked(self, history: Sequence[Message], others: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The pieces, the most relevant first; of equal ones the newer."""
        question = _texts(history, newest_turn(history), len(history))
        newer_first = others[::-1]
        try:
            async with asyncio.timeout(self._options.timeout):
                scores = self._score(question, [_texts(history, *piece) for piece in newer_first])
                scored = list(await scores if inspect.isawaitable(scores) else scores)
            if len(scored) != len(newer_first):
                raise ValueError(f"it gave {len(scored)} scores for {len(newer_first)} texts")
        except Exception as error:
            self._context.emit_event("context.relevance.failed", error=f"{type(error).__name__}: {error}")
            return newer_first
        order = sorted(range(len(scored)), key=lambda index: -float(scored[index]))
        return [newer_first[index] for index in order]


def _texts(history: Sequence[Message], begin: int, end: int) -> str:
    return " ".join(history[index].text for index in range(begin, end))
