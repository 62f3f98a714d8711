"""The stage that answers: a conversation with a model, streamed."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from rxstage.config import Retry
from rxstage.content import Data, Failure, Image, Interrupt, Message, Parts, Text, ToolCall, ToolResult
from rxstage.conversation import (
    CONVERSATION,
    HISTORY,
    PROMPT,
    TRANSCRIPT,
    Conversations,
    TurnEnd,
    conversations,
    ends_turn,
)
from rxstage.dialogue.dialogue import WAKE, Dialogue, DialogueOptions
from rxstage.dialogue.output import Structured
from rxstage.dialogue.turn import Turn
from rxstage.element import StreamElement
from rxstage.errors import RxStageError
from rxstage.flow.callback import kinds_of
from rxstage.ports.media import MediaReference
from rxstage.ports.provider import Provider
from rxstage.providers.fallback import FallbackProvider
from rxstage.providers.limited import LimitedProvider
from rxstage.providers.retrying import RETRY, RetryingProvider
from rxstage.providers.timed import TimedProvider
from rxstage.stage import Stage, StageContext, StageType
from rxstage.tools import Toolbox

__all__ = ["ProviderStage"]


class ProviderStage(Stage):
    """Holds a conversation with a model: collects a turn, asks, streams the answer, and remembers both.

    Limits of `max_calls` and `per_minute` hold for all executions of this stage together; to share them between
    stages, share a `LimitedProvider`.

    Args:
        name: name in the graph.
        provider: a `Provider`, or a model string such as `"openai:gpt-5.2"`, `"anthropic:claude-sonnet-4-5"`,
            `"ollama:llama3.2"` or `"local"`.
        model: asked for instead of the provider's own.
        system: instructs the model in every turn, before what a prompt stage says.
        parameters: `temperature`, `max_tokens` and so on, handed to the provider.
        output: a pydantic model (or other type): the answer is such an object, emitted as `Data`.
        output_attempts: how often the model is asked for it, told each time what is wrong.
        partials: emit what is known of the object while it streams, as plain `Data` marked `{"partial": True}`.
        tools: functions, `@tool` functions, `Tool` objects and tool sources such as an `MCPServer`.
        tool_choice: `"auto"`, `"none"`, `"required"` or the name of a tool; the last two for a turn's first call.
        tool_rounds: how often in one turn the model may ask for tools.
        tool_repeats: how often in one turn the same call is made.
        tool_concurrency: tools that run at once.
        tool_timeout: seconds for one call, where a tool does not say.
        approval_timeout: seconds to wait for an `Approval`, or for the result of an external tool.
        streaming: emit the answer piece by piece; else as one `Text`.
        thinking: emit the reasoning that the model shows, as `Data(Thinking(...))`.
        turns: what ends a turn: `"message"` (a user `Message` or an `EndOfTurn`) or `"control"` (an `EndOfTurn` alone).
        memory: `"shared"`: the conversations of the execution, which other stages load, trim and save. Only one stage
            can add to those; a second one has its `"own"`, for as long as the execution lasts.
        retry: what is done where a call failed and may succeed later; None tries once.
        fallback: providers or model strings that are asked when the one before has failed.
        recover_after: seconds until a failed one is tried again.
        first_token_timeout: seconds to the first token.
        token_timeout: seconds between two tokens.
        max_calls: calls that run at once, over all executions of this stage.
        per_minute: calls that begin in a minute, likewise.
        cost_limit: US dollars that the calls of one execution may cost before no further one is made.
        conversation_cost_limit: likewise for one conversation.
        on_error: what a failed answer means: `"fail"` ends the execution; with `"emit"` a `Failure` stands in its place
            and the next turn is answered; `"skip"` says nothing.

    Emits: `Text` for each piece of the answer, `ToolCall` and `ToolResult` as tools are called, and one assistant
        `Message` with the whole text and the usage; then the control that ended the turn. An `AnswerWithdrawn` in a
        `Failure` says that the text so far is void. Other content passes by.
    Holds: the history of its conversations, the turn that is coming in, 16 events of the model; while it waits for an
        `Approval`, 64 elements of what follows.
    Completes: with its input, once the last answer and the tools in the background have ended.
    Fails: with `StageError` where the provider fails for good, unless `on_error` says otherwise.
    """

    type: ClassVar[StageType] = StageType.ACCUMULATE
    accepts: ClassVar[tuple[Any, ...]] = (Text, Message, Image, Parts, ToolResult, Data)
    emits: ClassVar[tuple[Any, ...]] = (Text, Message, ToolCall, ToolResult, Data)

    provider: Any
    model: str = ""
    system: str | None = None
    parameters: Mapping[str, Any] = Field(default_factory=dict)
    output: Any = None
    output_attempts: int = Field(default=2, ge=1)
    partials: bool = False
    tools: tuple[Any, ...] = ()
    tool_choice: str = "auto"
    tool_rounds: int = Field(default=8, ge=0)
    tool_repeats: int = Field(default=3, ge=1)
    tool_concurrency: int = Field(default=8, ge=1)
    tool_timeout: float = Field(default=60.0, gt=0)
    approval_timeout: float = Field(default=600.0, gt=0)
    streaming: bool = True
    thinking: bool = False
    turns: TurnEnd = "message"
    memory: Literal["shared", "own"] = "shared"
    retry: Retry | None = RETRY
    fallback: tuple[Any, ...] = ()
    recover_after: float = Field(default=30.0, gt=0)
    first_token_timeout: float | None = Field(default=None, gt=0)
    token_timeout: float | None = Field(default=None, gt=0)
    max_calls: int | None = Field(default=None, ge=1)
    per_minute: float | None = Field(default=None, gt=0)
    cost_limit: float | None = Field(default=None, gt=0)
    conversation_cost_limit: float | None = Field(default=None, gt=0)
    on_error: Literal["fail", "emit", "skip"] = "fail"

    _options: DialogueOptions = PrivateAttr()
    _toolbox: Toolbox = PrivateAttr()

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        self._options = DialogueOptions(
            provider=self._chain(),
            model=self.model,
            parameters=self.parameters,
            system=self.system,
            output=None if self.output is None else Structured(self.output),
            output_attempts=self.output_attempts,
            partials=self.partials,
            thinking=self.thinking,
            streaming=self.streaming,
            tool_choice=self.tool_choice,
            tool_rounds=self.tool_rounds,
            tool_repeats=self.tool_repeats,
            approval_timeout=self.approval_timeout,
            cost_limit=self.cost_limit,
            conversation_cost_limit=self.conversation_cost_limit,
        )
        try:
            self._toolbox = Toolbox(self.tools, concurrency=self.tool_concurrency, timeout=self.tool_timeout)
        except (TypeError, ValueError) as error:
            raise type(error)(f"stage {self.name!r}: {error}") from None

    def _chain(self) -> Provider:
        """The provider with all that was asked for round it; one for all executions, so that limits are shared."""
        chains = [self._guarded(_provider(self.name, each)) for each in (self.provider, *self.fallback)]
        chain = chains[0]
        if len(chains) > 1:
            chain = FallbackProvider(*chains, recover_after=self.recover_after)
        if self.max_calls is not None or self.per_minute is not None:
            chain = LimitedProvider(chain, concurrency=self.max_calls, per_minute=self.per_minute)
        return chain

    def _guarded(self, provider: Provider) -> Provider:
        if self.first_token_timeout is not None or self.token_timeout is not None:
            provider = TimedProvider(provider, first=self.first_token_timeout, between=self.token_timeout)
        return provider if self.retry is None else RetryingProvider(provider, self.retry)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        kinds, values = kinds_of(self.accepts)
        held = self._conversations(context)
        async with Dialogue(self._options, self._toolbox, held, elements, context) as dialogue:
            turns: dict[str, Turn] = {}  # those that come in, by conversation
            while True:
                element = await dialogue.next()
                answers = element is None or ends_turn(element, self.turns)
                content = None if element is None else element.content
                metadata = {} if element is None else element.metadata
                if content.__class__ is Data and content.value is WAKE:
                    element = None
                elif element is not None and not element.is_control:
                    if _belongs(element, kinds, values):
                        self._collect(turns, element, held)
                        if not answers:
                            dialogue.prepare()
                        element = None
                    else:
                        yield element
                elif content.__class__ is Interrupt:
                    turns.clear()
                    dialogue.interrupted()
                if content.__class__ is Message or CONVERSATION in metadata:
                    ends = str(metadata.get(CONVERSATION, ""))
                else:
                    ends = None  # an end of turn that names no conversation ends them all, as the end of the input
                for turn in _ended(turns, ends) if answers else ():
                    if context.interrupted:
                        break
                    async with aclosing(self._answered(dialogue, turn, context)) as answer:
                        async for piece in answer:
                            yield piece
                if element is not None and element.is_control:
                    yield element
                while not any(not turn.empty for turn in turns.values()) and (late := dialogue.late()) is not None:
                    if dialogue.cut_short:
                        yield StreamElement.interrupt("the result of a tool", source=context.stage)
                    async with aclosing(self._answered(dialogue, late, context)) as answer:
                        async for piece in answer:
                            yield piece
                if element is None and content is None and not dialogue.busy:
                    return

    def _conversations(self, context: StageContext) -> Conversations:
        """The conversations that it adds to.

        Raises:
            RxStageError: another stage adds to those of the execution.
        """
        if self.memory == "own":
            return Conversations()
        held = conversations(context)
        if held.answerer not in ("", context.stage):
            raise RxStageError(
                f"stages {held.answerer!r} and {context.stage!r} would both add to the conversations of this "
                f"execution; give one of them memory='own', with which it remembers for itself"
            )
        held.answerer = context.stage
        return held

    def _collect(self, turns: dict[str, Turn], element: StreamElement, held: Conversations) -> None:
        content = element.content
        if content.__class__ is Message and content.role != "user" and PROMPT not in element.metadata:
            held.of(element).add(content)
        else:
            turns.setdefault(str(element.metadata.get(CONVERSATION, "")), Turn()).add(element)

    async def _answered(self, dialogue: Dialogue, turn: Turn, context: StageContext) -> AsyncGenerator[StreamElement]:
        """The answer to a turn, or what `on_error` makes of its error."""
        async with aclosing(dialogue.answer(turn)) as answer:
            while True:
                try:
                    piece = await anext(answer)
                except StopAsyncIteration:
                    return
                except Exception as error:
                    if self.on_error == "fail":
                        raise
                    context.emit_event("stage.skipped", error=str(error))
                    failed = error
                    break
                yield piece
        if self.on_error == "emit":
            yield turn.envelope(context.stage).replace(content=Failure(failed, context.stage), sequence=0)


def _ended(turns: dict[str, Turn], conversation: str | None) -> list[Turn]:
    """Take out the turn of one conversation that ends, or all; without those in which nothing came."""
    ids = list(turns) if conversation is None else [conversation]
    ended = [turns.pop(id) for id in ids if id in turns]
    if "" in turns and turns[""].empty:  # instructions that name no conversation are for whoever speaks next
        for turn in ended:
            turn.instructions[:0] = turns[""].instructions
        del turns[""]
    return [turn for turn in ended if not turn.empty]


def _belongs(element: StreamElement, kinds: frozenset[type], values: tuple[type, ...]) -> bool:
    """Whether an element is part of a turn; what is only shown, and results that nobody waits for, are not."""
    content = element.content
    kind = content.__class__
    if kind is ToolResult or HISTORY in element.metadata or TRANSCRIPT in element.metadata:
        return False
    if kind is Data:
        return content.value.__class__ is MediaReference or (bool(values) and isinstance(content.value, values))
    return kind in kinds


def _provider(stage: str, provider: Any) -> Provider:
    if isinstance(provider, str):
        found: Provider = importlib.import_module("rxstage.adapters.models").provider_of(provider)
        return found
    if not isinstance(provider, Provider):
        raise TypeError(
            f"stage {stage!r}: a provider must be a Provider or a model string such as 'openai:gpt-5.2' or 'local', "
            f"got {provider!r}"
        )
    return provider
