"""What a stage's function may ask of the execution that it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar

from rxstage.element import StreamElement
from rxstage.errors import RxStageError
from rxstage.events import Event
from rxstage.flow.interruptible import Interruptible
from rxstage.flow.scope import Scope

if TYPE_CHECKING:
    from rxstage.flow.streamer import Streamer

__all__ = ["StageContext"]

_T = TypeVar("_T")


class StageContext:
    """What a stage's function may ask of the execution it runs in (its keyword `context`)."""

    __slots__ = ("_cancelled", "_scope", "stage", "stage_type")

    def __init__(self, scope: Scope, stage: str, stage_type: Any) -> None:
        self._scope = scope
        self.stage = stage
        self.stage_type = stage_type

    @property
    def execution_id(self) -> str:
        """Id of the execution."""
        return self._scope.execution_id

    @property
    def pipeline(self) -> str:
        """Name of the pipeline."""
        return self._scope.name

    @property
    def cancelled(self) -> bool:
        """Whether the execution has ended: long work should stop."""
        return self._scope.ended

    def now(self) -> float:
        """Seconds, on the clock of the execution."""
        return self._scope.clock()

    async def sleep(self, seconds: float) -> None:
        """Wait, on the clock of the execution.

        Raises:
            RxStageError: the graph runs inline, without a loop.
        """
        if self._scope.loop is None:
            raise RxStageError(f"stage {self.stage!r} runs inline and cannot sleep; make its function async")
        await asyncio.sleep(seconds)

    @property
    def interrupted(self) -> bool:
        """Whether an `Interrupt` has arrived that a function of the whole stream has not been handed yet.

        What the function yields meanwhile belongs to the interrupted turn and goes nowhere.
        """
        streamer = self._scope.streamers.get(self.stage)
        return streamer is not None and streamer.interrupts.pending

    def interruptible(self, items: AsyncIterator[_T]) -> Interruptible[_T]:
        """Iterate something that an `Interrupt` cuts short, in a function of the whole stream.

            async with context.interruptible(answer(question)) as words:
                async for word in words:
                    yield word

        The iteration runs at most 16 items ahead, in a task of the execution. At an interrupt it is cancelled, the
        loop ends, and `words.interrupted` is True; the `Interrupt` itself is the next element that the function gets.

        Raises:
            RxStageError: the stage is no function of the whole stream.
        """
        return Interruptible(items, self._scope, self.stage, self._streamer().interrupts)

    def post(self, value: Any) -> bool:
        """Put an element into the stage's own input, in a function of the whole stream: a result that came late.

        It is the next element that the function gets after those that wait for it. An `Interrupt` that comes first
        takes it away, unless its priority is CRITICAL. Past the end of the input only an `Interrupt` can be posted,
        which goes on at once: that of a stage that has another source of its own.

        Returns:
            Whether the function will get it.

        Raises:
            RxStageError: the stage is no function of the whole stream, or its input has ended.
        """
        return self._streamer().post(StreamElement.of(value))

    def hold(self, control: StreamElement) -> None:
        """Keep a control that the function of the whole stream was just handed from going on by itself.

        The function yields it when it is time. One that it never yields goes on when the function ends.

        Raises:
            RxStageError: the stage is no function of the whole stream.
        """
        self._streamer().hold(control)

    def _streamer(self) -> Streamer:
        streamer = self._scope.streamers.get(self.stage)
        if streamer is None:
            raise RxStageError(
                f"stage {self.stage!r} is no function of the whole stream; only such a one has an input of its own"
            )
        return streamer

    def shared(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What all stages of this execution have in common under `key`; made when one asks first."""
        shared = self._scope.shared
        if key not in shared:
            shared[key] = make()
        value: _T = shared[key]
        return value

    def emit_event(self, event: str | Event, **data: Any) -> None:
        """Emit an event: its dotted type and data, or an `Event` of your own.

        Raises:
            TypeError: `event` is neither a string nor an `Event`.
        """
        scope = self._scope
        if isinstance(event, Event):
            if scope.listener is not None:
                scope.listener(event)
        elif isinstance(event, str):
            scope.tell(Event, type=event, stage=self.stage, stage_type=self.stage_type, data=data)
        else:
            raise TypeError(f"emit_event takes a dotted type or an Event, got {event!r}")
