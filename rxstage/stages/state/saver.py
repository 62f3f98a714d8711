"""Saves what is new in the conversations of one execution, beside the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import IntEnum
from itertools import takewhile
from typing import Final

from rxstage.content import EndOfTurn, Failure, Interrupt, Message, ToolCall, ToolResult
from rxstage.element import StreamElement
from rxstage.ports.store import Entry, StateConflict, StateStore, StoreError
from rxstage.stage import StageContext
from rxstage.stages.state.keeping import Kept

__all__ = ["Moment", "Saver"]

_TRIES: Final = 20  # to save behind what others write at the same time
_SOON: Final = 0.1  # seconds till the other stages have noted what an element told of: results of tools, what was heard
_QUIET: Final = 2.0  # seconds without an element, after which nothing of an answer is on its way any more
_MOMENT: Final = 0.02  # seconds for the stage that answers to note how far it came, when the execution is torn down
_LAST: Final = 1.0  # seconds for what is left then
_OFTEN: Final = 3600.0  # seconds at most between two looks for what is too old


class Moment(IntEnum):
    """How far a turn has come, and what of it may therefore be saved."""

    UNDER_WAY = 0  # all but an answer, of which it is not known yet how much will have been heard
    ANSWERED = 1  # the answer too
    OVER = 2  # that, half a turn, and what could not be saved before
    END = 3  # everything: nothing more will come


_PIECE: Final = Moment.UNDER_WAY, Moment.ANSWERED, _QUIET
_MOMENTS: Final[dict[type, tuple[Moment | None, Moment, float]]] = {
    Message: (Moment.ANSWERED, Moment.ANSWERED, _QUIET),
    ToolCall: (Moment.UNDER_WAY, Moment.UNDER_WAY, _SOON),
    ToolResult: (Moment.UNDER_WAY, Moment.UNDER_WAY, _SOON),
    EndOfTurn: (Moment.OVER, Moment.ANSWERED, _QUIET),
    Failure: (Moment.OVER, Moment.ANSWERED, _QUIET),
    Interrupt: (None, Moment.OVER, _SOON),  # it overtakes: the others do not know yet how much was heard
}
"""What may be saved when an element goes by, and what when no other has come so many seconds later."""


class Saver:
    """Saves one conversation after the other, in a task that runs while something is to be saved.

    Args:
        store: where to.
        context: of the stage.
        by_turn: save only whole turns.
        merges: whether what others have written is taken over.
        skips: whether the conversation goes on where the store fails.
        keep: seconds after which unchanged conversations are deleted, or None.

    Attributes:
        error: what went wrong and ends the execution.
    """

    def __init__(
        self, store: StateStore, context: StageContext, *, by_turn: bool, merges: bool, skips: bool, keep: float | None
    ) -> None:
        self._store, self._context = store, context
        self._by_turn, self._merges, self._skips, self._keep = by_turn, merges, skips, keep
        self._loop = asyncio.get_running_loop()
        self._due: dict[Kept, Moment] = {}
        self._recent: dict[Kept, tuple[Moment, float]] = {}  # to be looked at again, and when
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._expires = float("-inf")
        self.error: Exception | None = None

    def look(self, kept: Kept, moment: Moment) -> None:
        """Have a conversation saved if there is something new in it that may be saved at this moment."""
        if not kept.pending or self.error is not None:
            return
        if moment < Moment.OVER and not self._may(kept, moment):
            return
        self._due[kept] = max(moment, self._due.get(kept, moment))
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name=f"rxstage:{self._context.stage}:save")

    def _may(self, kept: Kept, moment: Moment) -> bool:
        """Whether something may be saved in the middle of a turn."""
        conversation = kept.conversation
        if len(conversation.entries) <= kept.failed:
            return False
        new = self._new(kept, moment)
        if self._by_turn:
            return bool(new) and moment is Moment.ANSWERED
        return bool(new) or conversation.summary is not kept.summary

    def _new(self, kept: Kept, moment: Moment) -> list[Entry]:
        """What is not stored yet and may be. Whoever answers may be turns ahead of what has come here."""
        conversation = kept.conversation
        new = conversation.entries[conversation.stored :]
        if moment < Moment.END:
            new = [*takewhile(lambda entry: not _waits(kept, entry, moment), new)]
        if self._by_turn and moment is Moment.ANSWERED:
            while new and not _is_answer(new[-1]):
                del new[-1]
        return new

    def passes(self, kept: Kept, element: StreamElement) -> None:
        """Look at a conversation of which an element goes by, now and a little later."""
        content = element.content
        kept.reached = max(kept.reached, element.sequence)
        now, later, seconds = _MOMENTS.get(content.__class__, _PIECE)
        if now is Moment.ANSWERED and content.role != "assistant":
            now = Moment.UNDER_WAY
        if now is not None:
            self.look(kept, now)
        due = self._loop.time() + seconds
        self._recent[kept] = later, due
        timer = self._timer
        if timer is None or timer.when() > due:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(due, self._look_again)

    async def settled(self) -> None:
        """Wait until everything is saved that is due.

        Raises:
            Exception: the error that ends the execution.
        """
        if self._task is not None:
            await asyncio.wait((self._task,))
        if self.error is not None:
            raise self.error

    async def close(self, left: Iterable[Kept]) -> None:
        """Save what is left, in bounded time; what has failed before is not tried again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._context.cancelled and self.error is None:
            await asyncio.sleep(_MOMENT)
        for kept in left:
            if len(kept.conversation.entries) > kept.failed:
                self.look(kept, Moment.END)
        task = self._task
        if task is None:
            return
        try:
            await asyncio.wait((task,), timeout=_LAST)
        finally:
            task.cancel()
        await asyncio.wait((task,))

    def _look_again(self) -> None:
        self._timer, recent, self._recent = None, self._recent, {}
        for kept, (moment, due) in recent.items():
            if due > self._loop.time():
                self._recent[kept] = moment, due
            elif len(kept.conversation.entries) > kept.failed:
                self.look(kept, moment)
        if self._recent:
            self._timer = self._loop.call_at(min(due for _, due in self._recent.values()), self._look_again)

    # ---------------------------------------------------------------- in the task

    async def _work(self) -> None:
        try:
            while self._due:
                kept = next(iter(self._due))
                moment = self._due.pop(kept)
                try:
                    await self._save(kept, moment)
                    kept.failed = 0
                    await self._expire()
                except StoreError as error:
                    kept.failed = len(kept.conversation.entries)
                    self._due.pop(kept, None)
                    told = {"conversation": kept.id, "action": "save", "error": str(error)}
                    self._context.emit_event("state.failed", **told)
                    if not self._skips:
                        raise
        except Exception as error:
            self.error = error
        finally:
            self._task = None

    async def _save(self, kept: Kept, moment: Moment) -> None:
        """Save what is new, behind whatever others have written."""
        if not kept.id:
            raise StoreError(
                "the conversation has no id: give the stage that saves conversation='...', or name one in the "
                "metadata of the elements, under 'conversation'"
            )
        async with kept.lock:
            for attempt in range(_TRIES):
                try:
                    await self._write(kept, moment)
                    return
                except StateConflict as conflict:
                    if attempt == _TRIES - 1:
                        raise
                    await self._merge(kept, conflict)

    async def _write(self, kept: Kept, moment: Moment) -> None:
        conversation, context = kept.conversation, self._context
        kept.recognise()
        begin, stored = context.now(), conversation.stored
        new = self._new(kept, moment)
        if new:
            version = await self._store.append(kept.id, new, version=conversation.version)
            there = [entry.id for entry in conversation.entries[stored : stored + len(new)]]
            if version == conversation.version + 1 and there == [entry.id for entry in new]:
                conversation.version, conversation.stored = version, stored + len(new)
            else:  # it was stored already, and others may have written since; or a stage has taken something back
                kept.take_over(await self._store.load(kept.id))
        summary = conversation.summary
        if changed := summary is not kept.summary:
            conversation.version = await self._store.summarize(kept.id, summary, version=conversation.version)
            kept.summary = summary
        if new or changed:
            told = {"conversation": kept.id, "messages": len(new), "version": conversation.version}
            context.emit_event("state.saved", **told, duration=context.now() - begin)

    async def _merge(self, kept: Kept, conflict: StateConflict) -> None:
        """Take over what others have written.

        Raises:
            StateConflict: they have, and that is to be refused.
        """
        stored = await self._store.load(kept.id)
        others = kept.foreign(stored)
        if others is not None:  # else it was this one, whose call had an outcome that it was not told
            self._context.emit_event(
                "state.conflict",
                conversation=kept.id,
                expected=conflict.expected,
                actual=stored.version,
                messages=others,
                merged=self._merges,
            )
            if not self._merges:
                raise conflict
        kept.take_over(stored)

    async def _expire(self) -> None:
        """Delete what is too old, now and then."""
        now = self._context.now()
        if self._keep is None or now < self._expires:
            return
        self._expires = now + min(self._keep, _OFTEN)
        if count := await self._store.expire(self._keep):
            self._context.emit_event("state.expired", conversations=count)


def _waits(kept: Kept, entry: Entry, moment: Moment) -> bool:
    """Whether it is of an answer that has not come here, or in the middle of which this is."""
    if entry.message.role == "user":
        return False
    conversation = kept.conversation
    turn = conversation.turns.get(entry.id, 0)
    comes = turn == kept.reached if turn else entry is conversation.entries[-1]
    return turn > kept.reached or (comes and moment is Moment.UNDER_WAY and _is_answer(entry))


def _is_answer(entry: Entry) -> bool:
    """Whether a message ends a turn."""
    return entry.message.role == "assistant" and not entry.message.tool_calls
