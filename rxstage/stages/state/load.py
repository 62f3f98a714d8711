"""The stage that loads a conversation before its first turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from rxstage.content import Message, ToolResult
from rxstage.conversation import CONVERSATION, HISTORY, TurnEnd, conversations
from rxstage.element import Metadata, StreamElement
from rxstage.ports.store import Entry, StateStore, StoreError
from rxstage.stage import Stage, StageContext, StageType
from rxstage.stages.state.keeping import DEFAULT_STORE, Kept, keeping, store_of
from rxstage.stages.state.repair import lost_results

__all__ = ["StateStoreLoadStage"]


class StateStoreLoadStage(Stage):
    """Loads a conversation from a store when its first element comes, so that the model knows what was said before.

    It stands before the stage that answers. What a crash has left unfinished is put in order: tool calls without a
    result get one that says so, and `resume` says what becomes of a message that nobody has answered.

    Args:
        name: name in the graph.
        store: a `StateStore`, or a URL: `memory://`, `sqlite:///talks.db`, `redis://…`, `postgresql://…`. By default
            the SQLite file `conversations.db` in the working directory.
        conversation: id of the conversation of elements that name none in their metadata; they are marked with it.
        resume: what becomes of a last message of the user that has no answer: `"keep"` leaves it in the history,
            `"answer"` lets it come in again, so that it is answered first, `"drop"` leaves it out of this execution.
        turns: what ends a turn, as the stage that answers has it.
        emit: emit the messages that were loaded, marked with `{"history": True}`, for display.
        on_error: what a store that cannot be read means: `"fail"` ends the execution; with `"skip"` the conversation
            goes on without its history, which a stage that saves brings back once the store can be reached.

    Emits: what it gets, in order, marked with the conversation; before it what `resume` and `emit` ask for.
    Holds: a buffer of elements; one element while it loads.
    Completes: with its input.
    Fails: with `StageError` where the store fails, unless `on_error` says otherwise, and where an element names no
        conversation and there is no `conversation` for it.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM

    store: Any = Field(DEFAULT_STORE, repr=False)  # a URL may have a password in it
    conversation: str | None = None
    resume: Literal["keep", "answer", "drop"] = "keep"
    turns: TurnEnd = "message"
    emit: bool = False
    on_error: Literal["fail", "skip"] = "fail"

    _store: StateStore = PrivateAttr()

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        self._store = store_of(self.name, self.store)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        held, known = conversations(context), keeping(context)
        if self.conversation is not None and (self.emit or self.resume == "answer"):  # nobody has to speak first
            for before in await self._load(known.of(held.of(default=self.conversation)), context):
                yield before
        async for element in elements:
            if CONVERSATION not in element.metadata:
                if self.conversation is None:
                    if not element.is_control:
                        raise ValueError(
                            f"{element.content!r:.80} names no conversation: give the stage that loads "
                            f"conversation='...', or name one in the metadata, under 'conversation'"
                        )
                    yield element
                    continue
                element = element.replace(metadata=Metadata({**element.metadata, CONVERSATION: self.conversation}))
            kept = known.of(held.of(element))
            if not kept.loaded:
                for before in await self._load(kept, context):
                    yield before
            yield element

    async def _load(self, kept: Kept, context: StageContext) -> list[StreamElement]:
        """Load a conversation once; gives what is to be emitted before its first element."""
        conversation = kept.conversation
        try:
            async with kept.lock:
                if kept.loaded:
                    return []
                kept.loaded = True
                begin = context.now()
                stored = await self._store.load(conversation.id)
                kept.take_over(stored)
        except StoreError as error:
            context.emit_event("state.failed", conversation=kept.id, action="load", error=str(error))
            if self.on_error == "fail":
                raise
            return []
        count = len(stored.entries)
        context.emit_event(
            "state.loaded",
            conversation=conversation.id,
            messages=count,
            version=stored.version,
            duration=context.now() - begin,
        )
        again = self._resume(kept, context) if len(conversation.entries) == count else None
        shown = [entry for entry in stored.entries if entry is not again] if self.emit else []
        marks = Metadata({CONVERSATION: conversation.id})
        before = [_element(entry.message, Metadata({**marks, HISTORY: True}), context) for entry in shown]
        if again is not None:
            before.append(_element(again.message, Metadata({**marks, "resumed": True}), context))
            if self.turns == "control":
                before.append(StreamElement.end_of_turn(metadata=marks, source=context.stage))
        return before

    def _resume(self, kept: Kept, context: StageContext) -> Entry | None:
        """Put the end of a history in order; gives the message that is to come in again."""
        conversation = kept.conversation
        entries = conversation.entries
        if (lost := lost_results(conversation.messages)) is not None:
            asked = next(entry for entry in reversed(entries) if entry.message.role != "tool")
            # The id is the same wherever this is done, so that it is stored once.
            entries.append(Entry(lost, f"{asked.id}:interrupted", {"interrupted": True}))
            names = [part.name for part in lost.parts if isinstance(part, ToolResult)]
            context.emit_event("state.resumed", conversation=conversation.id, interrupted_tools=names)
        elif entries and entries[-1].message.role == "user" and "background" not in entries[-1].metadata:
            context.emit_event("state.resumed", conversation=conversation.id, unanswered=self.resume)
            if self.resume != "keep":
                last = entries[-1]
                kept.take_off(returns=self.resume == "answer")
                return last if self.resume == "answer" else None
        return None


def _element(message: Message, metadata: Metadata, context: StageContext) -> StreamElement:
    return StreamElement(message, metadata, timestamp=context.now(), source=context.stage)
