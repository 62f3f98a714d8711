"""The conversations that a stage holds with a model in one execution."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace

from rxstage.content import Data, Failure, Message, Text, ToolCall, ToolResult, Usage
from rxstage.conversation import CONVERSATION, Conversation, Conversations
from rxstage.dialogue.call import ModelCall
from rxstage.dialogue.draft import Draft
from rxstage.dialogue.errors import AnswerWithdrawn, CostLimitExceeded, InvalidOutput, ToolLoop
from rxstage.dialogue.output import Structured
from rxstage.dialogue.toolround import ToolRound
from rxstage.dialogue.turn import Turn
from rxstage.element import Metadata, StreamElement
from rxstage.errors import RxStageError
from rxstage.flow.buffer import survives
from rxstage.ports.provider import ModelRequest, Provider, Thinking, ToolSpec, Withdrawn
from rxstage.priority import Priority
from rxstage.stage import StageContext
from rxstage.tools import Repetition, Toolbox

if TYPE_CHECKING:
    from rxstage.flow.interruptible import Interruptible

__all__ = ["WAKE", "Dialogue", "DialogueOptions"]

_PATIENCE: Final = 1.0  # seconds for what is left in the background to end
_KEPT: Final = 64  # elements that are kept while a turn waits for decisions about its tools


class _Wake:
    """Tells a stage by way of its input that the result of a background tool is there."""


WAKE: Final = _Wake()


class DialogueOptions(Struct, frozen=True, kw_only=True):
    """What a stage was told; see `ProviderStage` for the meanings."""

    provider: Provider
    model: str
    parameters: Mapping[str, Any]
    system: str | None
    output: Structured | None
    output_attempts: int
    partials: bool
    thinking: bool
    streaming: bool
    tool_choice: str
    tool_rounds: int
    tool_repeats: int
    approval_timeout: float
    cost_limit: float | None
    conversation_cost_limit: float | None


class _Late(Struct, frozen=True):
    """The result of a background tool."""

    result: ToolResult
    schedule: str
    conversation: Conversation


class Dialogue:
    """Answers turn after turn. Lives as long as the execution; owns the tools that run in the background."""

    def __init__(
        self,
        options: DialogueOptions,
        toolbox: Toolbox,
        conversations: Conversations,
        elements: AsyncIterator[StreamElement],
        context: StageContext,
    ) -> None:
        self._options, self._toolbox, self._elements, self._context = options, toolbox, elements, context
        self._conversations = conversations
        self._usage = Usage()
        self._kept: deque[StreamElement] = deque()
        self._late: deque[_Late] = deque()
        self._background: dict[asyncio.Task[ToolResult], None] = {}
        self._preparing: asyncio.Task[None] | None = None
        self._under_way: Interruptible[Any] | None = None
        self._newest: Conversation | None = None
        self._ids: set[str] = set()  # of the calls so far, in all conversations
        self.cut_short = False  # whether a background result ended the newest answer before its end

    async def __aenter__(self) -> Dialogue:
        await self._toolbox.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._background]
        if self._preparing is not None:
            tasks.append(self._preparing)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_PATIENCE)
        await self._toolbox.aclose()

    # ---------------------------------------------------------------- what comes in

    async def next(self) -> StreamElement | None:
        """The next element, those first that were kept; None at the end, when no tool runs any more either."""
        if self._context.interrupted:  # it takes away what came before it, here as in the stage's buffer
            self._kept = deque(element for element in self._kept if survives(element))
        if self._kept:
            return self._kept.popleft()
        if (element := await self.take()) is None and self._background:
            await asyncio.wait(self._background)
            await asyncio.sleep(0)  # their callbacks
        return element

    @property
    def busy(self) -> bool:
        """Whether a tool runs in the background, or its result has not been told yet."""
        return bool(self._background or self._late)

    async def take(self) -> StreamElement | None:
        """The next element that nobody has seen yet."""
        element = await anext(self._elements, None)
        if element is not None and element.is_control:
            self._context.hold(element)
        return element

    def keep(self, element: StreamElement) -> bool:
        """Keep an element for after the turn; False where it is kept but no more should come."""
        self._kept.append(element)
        return len(self._kept) < _KEPT

    def interrupted(self) -> None:
        """An `Interrupt` has come: what was not heard of the newest answer was never said."""
        if self._newest is not None:
            self._conversations.interrupted(self._newest)

    def prepare(self) -> None:
        """Have a connection opened for a call that is about to come."""
        if self._preparing is None or self._preparing.done():
            self._preparing = asyncio.create_task(self._prepare(), name="rxstage:prepare")

    async def _prepare(self) -> None:
        with suppress(Exception):  # it only saves time; what is wrong is told by the call
            await self._options.provider.prepare()

    def late(self) -> Turn | None:
        """Take over the results of background tools; a turn that tells the model of them, if it is to be told."""
        turn: Turn | None = None
        while self._late and (turn is None or self._late[0].conversation.id == turn.metadata.get(CONVERSATION, "")):
            late = self._late.popleft()
            state = "failed" if late.result.is_error else "has a result"
            told = f"[The tool {late.result.name!r} that ran in the background {state}: {late.result.value}]"
            late.conversation.add(Message.user(told), {"background": late.result.call_id})
            if late.schedule != "silent":
                turn = turn or Turn()
                turn.metadata = {CONVERSATION: late.conversation.id} if late.conversation.id else {}
        return turn

    def _run_on(self, task: asyncio.Task[ToolResult], schedule: str, conversation: Conversation) -> None:
        self._background[task] = None

        def ended(_: asyncio.Task[ToolResult]) -> None:
            del self._background[task]
            if task.cancelled() or task.exception() is not None:
                return
            self._late.append(_Late(task.result(), schedule, conversation))
            if schedule == "interrupt" and self._under_way is not None and conversation is self._newest:
                self.cut_short = True
                self._under_way.interrupt()
            try:
                self._context.post(StreamElement(Data(WAKE), priority=Priority.CRITICAL))
            except RxStageError:
                pass  # the input has ended: `next` looks by itself

        task.add_done_callback(ended)

    # ---------------------------------------------------------------- what goes out

    async def answer(self, turn: Turn) -> AsyncGenerator[StreamElement]:
        """Answer a turn: pieces of text as they come, calls and results of tools, one message at the end."""
        options, context = self._options, self._context
        conversation = self._conversations.of(turn.element or StreamElement("", metadata=turn.metadata))
        draft = Draft(conversation, turn, context)
        self._newest = conversation
        envelope = turn.envelope(context.stage)
        if (message := turn.message()) is not None:
            draft.add(message)
        if turn.element is not None or turn.instructions:
            conversation.instructions = tuple(turn.instructions)
        system = (Message.system(options.system),) if options.system else ()
        instructions = (*system, *conversation.instructions)
        repetition = Repetition(options.tool_repeats)
        said: list[str] = []  # the text of the turn
        usage = Usage()
        corrections: list[Message] = []  # what the model was told about an answer of the wrong form
        streams = options.streaming and options.output is None
        self._ids.update(call.id for message in draft.messages for call in message.tool_calls)
        self.cut_short = False
        rounds = 0
        while True:
            self._check_costs(conversation)
            history = await self._conversations.shown(draft.messages, instructions, conversation)
            call, settled = ModelCall(), False
            request = self._request((*instructions, *history, *corrections), first=not rounds)
            try:
                async with context.interruptible(
                    call.events(options.provider, request, context, self._named)
                ) as events:
                    self._under_way = events
                    async for event in events:
                        if event.__class__ is str:
                            call.pieces.append(event)
                            if options.output is None:
                                if options.streaming:
                                    yield envelope.replace(content=Text(event))
                            elif options.partials and (partial := self._partial(call)) is not None:
                                yield envelope.replace(
                                    content=Data(partial), metadata={**envelope.metadata, "partial": True}
                                )
                        elif event.__class__ is Withdrawn:
                            context.emit_event("provider.call.withdrawn", error=str(event.error))
                            void, call.pieces[:], call.calls[:], call.looked = call.text, (), (), 0
                            if void and (options.partials if options.output is not None else options.streaming):
                                told = Failure(AnswerWithdrawn(void, event.error), context.stage)
                                yield envelope.replace(content=told, sequence=0)  # born here, no copy of what came in
                        elif event.__class__ is Thinking and options.thinking:
                            yield envelope.replace(content=Data(event), priority=Priority.LOW)
                if events.interrupted:
                    return
                settled = True
            finally:
                self._under_way = None
                if call.usage is not None:
                    usage += call.usage
                    self._usage += call.usage
                    conversation.usage += call.usage
                if not settled and streams and call.text.strip():  # the history keeps what went out
                    draft.add(Message.assistant(call.text), {"interrupted": True})
            said.extend(call.pieces)
            if call.calls:
                if rounds >= options.tool_rounds:
                    if streams and call.text.strip():
                        draft.add(Message.assistant(call.text), {"interrupted": True})
                    raise ToolLoop(
                        f"the model asked for tools more than {rounds} times in one turn and did not answer; allow "
                        f"more with tool_rounds=, or look at what its tools tell it"
                    )
                rounds += 1
                if not await draft.certain():
                    return
                draft.add(_message(call.text, tool_calls=tuple(call.calls), usage=call.usage))
                round_ = ToolRound(
                    call.calls,
                    toolbox=self._toolbox,
                    repetition=repetition,
                    inbox=self,
                    background=lambda task, _, schedule: self._run_on(task, schedule, conversation),
                    context=context,
                    conversation=conversation.id,
                    patience=options.approval_timeout,
                )
                try:
                    async with context.interruptible(round_.run()) as steps:
                        self._under_way = steps
                        async for content, metadata in steps:
                            yield envelope.replace(
                                content=content, metadata=Metadata({**envelope.metadata, **metadata})
                            )
                finally:
                    self._under_way = None
                    draft.add(Message("tool", round_.answers()))
                if steps.interrupted:
                    return
                continue
            if options.output is not None:
                try:
                    value = options.output.validate(call.text)
                except InvalidOutput as error:
                    if len(corrections) // 2 + 1 >= options.output_attempts:
                        raise
                    context.emit_event("provider.output.invalid", error=str(error))
                    corrections += (Message.assistant(call.text), Message.user(f"{error}. Answer again in that form."))
                    continue
                whole: Any = Data(value)
            else:
                whole = Text("".join(said)) if said and not options.streaming else None
            draft.add(_message(call.text, usage=call.usage))  # first: who takes the answer and leaves has got it
            if whole is not None:
                yield envelope.replace(content=whole)
            text = call.text if options.output is not None else "".join(said)
            yield envelope.replace(content=_message(text, usage=usage))
            return

    def _partial(self, call: ModelCall) -> Any:
        assert self._options.output is not None
        partial, call.looked = self._options.output.partial(call.text, call.looked)
        return partial

    def _request(self, messages: Sequence[Message], *, first: bool) -> ModelRequest:
        options = self._options
        tools: tuple[ToolSpec, ...] = self._toolbox.specs
        return ModelRequest(
            messages=tuple(messages),
            model=options.model,
            tools=tools,
            # One that has to call a tool in every round would never answer.
            tool_choice=options.tool_choice if tools and (first or options.tool_choice == "none") else "auto",
            output=options.output.spec if options.output is not None else None,
            parameters=options.parameters,
        )

    def _named(self, call: ToolCall) -> ToolCall:
        """The call with an id that no other one of the execution has: results and approvals refer to it."""
        id, number = call.id, len(self._ids)
        while not id or id in self._ids:
            number += 1
            id = f"call_{number}_{call.id}".rstrip("_")
        self._ids.add(id)
        return call if id == call.id else replace(call, id=id)

    def _check_costs(self, conversation: Conversation) -> None:
        options = self._options
        for limit, used, what in (
            (options.cost_limit, self._usage.cost, "execution"),
            (options.conversation_cost_limit, conversation.usage.cost, f"conversation {conversation.id!r}"),
        ):
            if limit is not None and used >= limit:
                raise CostLimitExceeded(
                    f"the calls of this {what} have cost {used:.6f} $, and its limit is {limit} $; raise the limit or "
                    f"begin a new one"
                )


def _message(text: str, *, tool_calls: tuple[ToolCall, ...] = (), usage: Usage | None) -> Message:
    return Message.assistant(*((text,) if text else ()), tool_calls=tool_calls, usage=usage)
