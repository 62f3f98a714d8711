"""The stage that saves a conversation as it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, PrivateAttr

from rxstage.content import EndOfTurn, Failure, Message, ToolCall, ToolResult
from rxstage.conversation import CONVERSATION, conversations
from rxstage.element import StreamElement
from rxstage.ports.store import StateStore
from rxstage.stage import Stage, StageContext, StageType
from rxstage.stages.state.keeping import DEFAULT_STORE, Kept, keeping, store_of
from rxstage.stages.state.saver import Moment, Saver

__all__ = ["StateStoreSaveStage"]

_WHOLE: Final = frozenset({Message, ToolCall, ToolResult, EndOfTurn, Failure})


class StateStoreSaveStage(Stage):
    """Saves a conversation while it goes on: the user's message when the answer begins, what tools gave, the answer.

    It stands behind the stage that answers, and behind those that play it. It looks at the history, not at the
    elements: what stages between do to those does not matter. An answer is saved when its message or a control comes,
    or when nothing has come for 2 s. Pieces of an answer never wait for the store; a message, a tool call or result,
    and a control go on when what was said up to it is stored.

    Args:
        name: name in the graph.
        store: a `StateStore`, or a URL: `memory://`, `sqlite:///talks.db`, `redis://…`, `postgresql://…`. By default
            the SQLite file `conversations.db` in the working directory.
        conversation: id of the conversation of elements that name none in their metadata.
        when: `"message"` saves each message of the history, `"turn"` what a turn has come to, at its end.
        on_conflict: what is done where somebody else has written to the conversation: `"merge"` takes that over, and
            saves behind it; `"refuse"` is an error.
        keep: seconds after which conversations that have not changed are deleted from the store, whichever they are.
        on_error: what a store that cannot be written means: `"fail"` ends the execution; with `"skip"` the conversation
            goes on, and what is not stored is tried again with the next message or control.

    Emits: what it gets, in order.
    Holds: a buffer of elements; one element while it waits for the store.
    Completes: with its input, once everything is stored. What is not when the execution is cancelled or fails is
        saved while it is torn down, in at most a second.
    Fails: with `StageError` where the store fails or refuses, unless `on_error` says otherwise.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM

    store: Any = Field(DEFAULT_STORE, repr=False)  # a URL may have a password in it
    conversation: str | None = None
    when: Literal["message", "turn"] = "message"
    on_conflict: Literal["merge", "refuse"] = "merge"
    keep: float | None = Field(default=None, gt=0)
    on_error: Literal["fail", "skip"] = "fail"

    _store: StateStore = PrivateAttr()

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        super().__init__(name, **options)
        self._store = store_of(self.name, self.store)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        held, known = conversations(context), keeping(context)
        saver = Saver(
            self._store,
            context,
            by_turn=self.when == "turn",
            merges=self.on_conflict == "merge",
            skips=self.on_error == "skip",
            keep=self.keep,
        )

        def all_kept() -> list[Kept]:
            return [known.of(conversation, self.conversation) for conversation in held.held()]

        metadata: Any = None
        touched: list[Kept] = []
        try:
            async for element in elements:
                if element.is_control and CONVERSATION not in element.metadata:
                    metadata, touched = None, all_kept()
                elif element.metadata is not metadata:  # the pieces of an answer have theirs in common
                    metadata, touched = element.metadata, [known.of(held.of(element), self.conversation)]
                for kept in touched:
                    saver.passes(kept, element)
                if element.content.__class__ in _WHOLE:
                    await saver.settled()
                elif saver.error is not None:
                    raise saver.error
                yield element
            for kept in all_kept():
                saver.look(kept, Moment.END)
            await saver.settled()
        finally:
            await saver.close(all_kept())
