"""Holds an answer back till it is certain that the question was over."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import ClassVar, Final

from pydantic import Field

from rxstage.content import Data, EndOfTurn, Interrupt
from rxstage.element import Metadata, StreamElement
from rxstage.errors import RxStageError
from rxstage.priority import Priority
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.speculation import SPECULATIVE, Speculation, speculations

__all__ = ["SpeculationStage"]

_DECIDED: Final = object()  # posted when a speculation is decided


class SpeculationStage(Stage):
    """Holds the early answers that a speculative `TurnStage` has made, till the turn is confirmed.

    It stands behind the stage that answers and before whatever is heard or seen of the answer, so before the
    `TTSStage`. A confirmed answer goes on at once, all that is there of it; one that is withdrawn is never heard. Who
    answers without speculation is not held.

    Args:
        name: name in the graph.
        capacity: elements that it holds; after that the stage that answers has to wait.

    Emits: what it gets, in order, without the mark of speculation; nothing of an answer that is withdrawn but its
        failures.
    Holds: `capacity` elements of an answer, and what comes between them.
    Completes: with its input.
    Fails: never by itself.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM

    capacity: int = Field(default=1024, ge=1)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        known = speculations(context)
        known.gates += 1
        held = _Held(context)
        async for element in elements:
            for piece in held.released():
                yield piece
            content = element.content
            if content.__class__ is Data and content.value is _DECIDED:
                continue
            if content.__class__ is Interrupt:
                known.answering = 0
                for piece in held.dropped():
                    yield piece
            speculation = known.of(element.metadata)
            if held.waits_for(speculation):
                held.add(element, speculation)
                if len(held) >= self.capacity:
                    await held.decision()
                    for piece in held.released():
                        yield piece
                continue
            if speculation is None or speculation.confirmed or element.is_control:
                yield held.passing(element)
        if len(held):
            await held.decision()
        for piece in held.released():
            yield piece


class _Held:
    """What is held, and for which speculation."""

    def __init__(self, context: StageContext) -> None:
        self._context, self._known = context, speculations(context)
        self._elements: deque[StreamElement] = deque()
        self._speculation: Speculation | None = None
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._elements)

    def waits_for(self, speculation: Speculation | None) -> bool:
        """Whether an element of a speculation, or of none, has to be held: because of that, or of what is before it."""
        return self._speculation is not None or (speculation is not None and speculation.open)

    def add(self, element: StreamElement, speculation: Speculation | None) -> None:
        """Hold an element."""
        if element.is_control:
            self._context.hold(element)
        self._elements.append(element)
        if self._speculation is None and speculation is not None:
            self._speculation, self._since = speculation, self._context.now()
            speculation.then(self._wake)

    async def decision(self) -> None:
        """Wait till it is known what becomes of it, or an `Interrupt` comes."""
        assert self._speculation is not None
        async with self._context.interruptible(self._speculation.decision()) as decisions:
            async for _ in decisions:
                pass

    def released(self) -> Iterator[StreamElement]:
        """What goes on, if the speculation is decided."""
        speculation = self._speculation
        if speculation is None or speculation.open:
            return
        if speculation.confirmed:
            waited = self._context.now() - self._since
            self._context.emit_event("speculation.released", elements=len(self._elements), waited=waited)
        self._speculation = None
        yield from self._taken(bool(speculation.confirmed))

    def dropped(self) -> Iterator[StreamElement]:
        """What an `Interrupt` leaves."""
        self._speculation = None
        for element in self._taken(False):
            if element.is_control or element.priority == Priority.CRITICAL:
                yield element

    def _taken(self, confirmed: bool) -> Iterator[StreamElement]:
        while self._elements:
            element = self._elements.popleft()
            if confirmed or element.is_control or SPECULATIVE not in element.metadata:
                yield self.passing(element)

    def passing(self, element: StreamElement) -> StreamElement:
        """What goes on: the element without the mark of speculation."""
        if element.content.__class__ is EndOfTurn:
            self._known.answering = max(self._known.answering - 1, 0)
        metadata = element.metadata
        if SPECULATIVE not in metadata:
            return element
        return element.replace(metadata=Metadata({key: metadata[key] for key in metadata if key != SPECULATIVE}))

    def _wake(self) -> None:
        with suppress(RxStageError):  # the input has ended: it looks by itself
            self._context.post(StreamElement(Data(_DECIDED), priority=Priority.CRITICAL))
