"""The stage that lets only valid texts through."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import Field

from rxstage.content import Data, EndOfTurn, Failure, Image, Interrupt, Message, Parts, Text, ToolCall
from rxstage.conversation import TurnEnd
from rxstage.element import StreamElement
from rxstage.stage import Stage, StageContext, StageType
from rxstage.validation.base import Policy
from rxstage.validation.checkpoint import Checkpoint
from rxstage.validation.outgoing import Outgoing
from rxstage.validation.rules import Rules

__all__ = ["ValidationStage"]


class ValidationStage(Stage):
    """Looks at the texts of a turn, and lets only those go on that no validator refuses.

    Behind a model it looks at the answer while it streams: `Text`, structured `Data` and the assistant's `Message`.
    Before one, with `checks="input"`, at what the user says: `Text`, `Parts` and the user's `Message`. All else, such
    as the calls of tools, passes at once.

    Args:
        name: name in the graph.
        validators: those of `rxstage.validation`, your own, or functions of a text.
        checks: `"output"` (what a model says) or `"input"` (what the user says).
        policy: what happens to a refused text, where the validator has no policy of its own. `"fail"` ends the
            execution; `"emit"` puts a `Failure` in the place of what is still to come of the turn; `"redact"` replaces
            what was found; `"repair"` has a better text made.
        repair: who makes it: a `Provider`, or `async repair(text, problems)`.
        attempts: how often that is tried for one text.
        then: what happens where it has not helped: `"fail"` or `"emit"`.
        repair_timeout: seconds for one try.
        max_characters: of a text, that may be held.
        turns: what ends a turn of the user: `"message"` (a user `Message` or an `EndOfTurn`) or `"control"` (an
            `EndOfTurn` alone).

    Raises:
        ValueError: there are no validators, or a policy cannot be kept; all such problems at once.

    Emits: what it gets, as far as it is valid; a `Failure` with a `ValidationFailed` where a text is stopped.
    Holds: of a text that streams, what a validator has not settled, because more text could make it a match. All of it,
        where a validator has to see the whole or may have it repaired, and always of what the user says:
        `max_characters` at most, and 64 images between them.
    Completes: with its input.
    Fails: with `StageError` where a text is refused and the policy is to fail, and where a validator raises.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM

    validators: tuple[Any, ...]
    checks: Literal["output", "input"] = "output"
    policy: Policy = "fail"
    repair: Any = None
    attempts: int = Field(default=2, ge=1)
    then: Literal["fail", "emit"] = "fail"
    repair_timeout: float = Field(default=60.0, gt=0)
    max_characters: int = Field(default=1_000_000, ge=1)
    turns: TurnEnd = "message"

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        if problems := self._rules.problems():
            raise ValueError(f"stage {self.name!r}: {'; '.join(problems)}")

    @cached_property
    def _rules(self) -> Rules:
        return Rules(
            validators=Rules.named(self.validators),
            policy=self.policy,
            repair=self.repair,
            attempts=self.attempts,
            then=self.then,
            repair_timeout=self.repair_timeout,
        )

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        user = self.checks == "input"
        checkpoint = Checkpoint(self._rules, context, user=user, most=self.max_characters, turns=self.turns)
        outgoing = None if user else Outgoing(context)
        coming = elements if outgoing is None else outgoing.coming(elements)
        async with aclosing(_checked(coming, checkpoint, context)) as checked:
            async for element in checked:
                if outgoing is not None:
                    outgoing.goes(element)
                yield element


async def _checked(
    elements: AsyncIterator[StreamElement], checkpoint: Checkpoint, context: StageContext
) -> AsyncGenerator[StreamElement]:
    """What a checkpoint lets through."""
    async for element in elements:
        kind = element.content.__class__
        if kind is Text:
            for each in checkpoint.text(element):
                yield each
        elif kind is Message or kind is Parts or kind is Data:
            treat = checkpoint.data if kind is Data else checkpoint.message
            async with aclosing(treat(element)) as valid:
                async for each in valid:
                    yield each
        elif kind is Image:
            for each in checkpoint.image(element):
                yield each
        elif kind is ToolCall:
            for each in checkpoint.tool_call(element):
                yield each
            yield element
        elif kind is EndOfTurn:
            context.hold(element)
            async with aclosing(checkpoint.end(element)) as rest:
                async for each in rest:
                    yield each
            if not context.interrupted:
                yield element
        else:
            if kind is Failure:
                checkpoint.failure(element)
            elif kind is Interrupt:
                checkpoint.clear()
            yield element
    async with aclosing(checkpoint.end()) as rest:
        async for each in rest:
            yield each
