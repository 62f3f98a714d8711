"""One running instance of a plan: from its opening to the moment when nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from rxstage.element import StreamElement
from rxstage.errors import (
    ExecutionCancelled,
    ExecutionTimeout,
    IdleTimeout,
    StageError,
    StallError,
)
from rxstage.events import PipelineCancelled, PipelineCompleted, PipelineFailed, PipelineStarted, StageFailed
from rxstage.flow.buffer import Buffer, BufferStatistics
from rxstage.flow.entry import Entry
from rxstage.flow.port import Port, Push
from rxstage.flow.scope import Scope
from rxstage.flow.valve import Valve
from rxstage.observe.log import warn

if TYPE_CHECKING:
    from reactivex.abc import SchedulerBase

    from rxstage.flow.source import Source
    from rxstage.graph.compile import Plan

__all__ = ["Run"]

_SUSPECTED: Final = 1.0  # seconds between two looks at something that may have stalled
_LOOKS: Final = 8  # at how much has moved, within one `idle_timeout`
_PATIENT_LOOKS: Final = 10  # looks that an execution with operators gets, which may emit by themselves


class Run:
    """Opens a plan, hears of its end, and tears it down.

    It ends once: completed, failed with the first error, or cancelled. Then the source is released, what sits
    on inner edges is discarded, tasks are cancelled and awaited for `shutdown_timeout` at most; only then
    `on_end` is called.
    """

    __slots__ = (
        "_controls",
        "_finished",
        "_looks",
        "_moved",
        "_on_end",
        "_progress",
        "_timers",
        "begin",
        "entry",
        "error",
        "kind",
        "left",
        "plan",
        "scope",
        "source",
        "waiting_consumer",
    )

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop | None = None,
        scheduler: SchedulerBase | None = None,
        execution_id: str = "",
        on_end: Callable[[Run], object],
    ) -> None:
        graph = plan.graph
        self.plan = plan
        self.scope = Scope(
            config=graph.config,
            clock=clock,
            loop=loop,
            scheduler=scheduler,
            name=graph.name,
            execution_id=execution_id,
            on_fail=self.fail,
        )
        self.scope.stop_input = self.stop_input
        self.scope.suspect = self._suspect
        self.kind = "running"
        self.error: BaseException | None = None
        self.begin = 0.0
        self._controls = 0
        self.left: tuple[str, ...] = ()
        self.source: Source | None = None
        self.waiting_consumer: Callable[[], bool] = _always
        self._on_end = on_end
        self._timers: list[asyncio.TimerHandle] = []
        self.entry = Entry(self.scope, Port(_ignore, _ignore, _nothing, Valve()), self.stop_input)
        self._finished = False
        self._moved = 0.0  # when something was last seen to have moved
        self._progress = -1
        self._looks = 0

    # ---------------------------------------------------------------- the beginning

    def open(
        self,
        push: Push,
        control: Push,
        valve: Valve,
        *,
        keeps: bool = False,
        timeout: float | None = None,
    ) -> Entry:
        """Wire everything in front of the output; gives the entry. Sources are started by the caller."""
        scope = self.scope
        self.begin = scope.clock()
        if scope.listener is not None:
            scope.tell(PipelineStarted)

        def counted(element: StreamElement) -> None:
            self._controls += 1
            control(element)

        port = self.plan.open(scope, Port(push, counted, self._completed, valve))
        self.entry = Entry(scope, port, self.stop_input, keeps)
        config = scope.config
        if scope.loop is not None:
            limits = [limit for limit in (timeout, config.execution_timeout) if limit is not None]
            if limits:
                self._timers.append(scope.loop.call_later(min(limits), self._too_long, min(limits)))
            if config.idle_timeout is not None:
                self._moved, self._progress = scope.loop.time(), self.progress()
                self._look_again(config.idle_timeout)
        return self.entry

    # ---------------------------------------------------------------- the end

    def stop_input(self) -> None:
        """Take nothing more; what is in flight goes on."""
        if self.source is not None:
            self.source.stop()
        for stop in self.scope.drainers:
            stop()
        self.entry.end()

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if self.scope.ended:
            self.scope.late.append(error)
            return
        if isinstance(error, asyncio.CancelledError):
            cancelled = ExecutionCancelled("a task of the execution was cancelled from outside")
            cancelled.__cause__ = error
            error = cancelled
        if isinstance(error, StageError) and self.scope.listener is not None:
            self.scope.tell(StageFailed, stage=error.stage, stage_type=error.stage_type, error=error.__cause__ or error)
        self._end("failed", error)

    def cancel(self) -> None:
        """End now."""
        self._end("cancelled", None)

    def _completed(self) -> None:
        self._end("completed", None)

    def _end(self, kind: str, error: BaseException | None) -> None:
        scope = self.scope
        if scope.ended:
            return
        scope.ended = True
        self.kind, self.error = kind, error
        for timer in self._timers:
            timer.cancel()
        if self.source is not None:
            try:
                self.source.stop()
            except Exception as late:
                scope.late.append(late)
        for release in reversed(scope.release):
            try:
                release()
            except Exception as late:
                scope.late.append(late)
        for buffer in scope.edges.values():
            buffer.clear()
        if scope.tasks:
            assert scope.loop is not None
            for task in tuple(scope.tasks):
                if task not in scope.dismissed:
                    task.cancel()
                task.add_done_callback(self._task_done)
            self._timers = [scope.loop.call_later(scope.config.shutdown_timeout, self._give_up)]
        else:
            self._finish()

    def _task_done(self, _: object) -> None:
        if not self.scope.tasks:
            self._finish()

    def _give_up(self) -> None:
        self.left = tuple(sorted(set(self.scope.tasks.values())))
        for name in self.left:
            warn(
                f"stage {name!r} did not end within {self.scope.config.shutdown_timeout} s and was left behind",
                pipeline=self.scope.name,
                execution=self.scope.execution_id,
                stage=name,
            )
        self._finish()

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        for timer in self._timers:
            timer.cancel()
        scope = self.scope
        scope.refresh()
        if self.error is not None:
            for late in scope.late:
                self.error.add_note(f"during the tear-down: {type(late).__name__}: {late}")
            if self.left:
                self.error.add_note(f"left behind after the tear-down: {', '.join(self.left)}")
        if scope.listener is not None:
            kinds = {"completed": PipelineCompleted, "failed": PipelineFailed, "cancelled": PipelineCancelled}
            scope.tell(
                kinds[self.kind],
                duration=scope.clock() - self.begin,
                error=self.error,
                received=self.entry.received,
                emitted=self.emitted(),
            )
        try:
            self._on_end(self)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Hold nothing of the graph any more: whoever keeps the execution keeps none of its elements."""
        scope = self.scope
        scope.refresh()
        scope.edges = {edge: cast(Buffer, _Closed(buffer.statistics())) for edge, buffer in scope.edges.items()}
        for each in (scope.readers, scope.workers, scope.holders, scope.drainers, scope.release):
            cast("list[Any]", each).clear()
        scope.streamers.clear()
        scope.shared.clear()
        scope.scheduler = scope.listener = None
        self.waiting_consumer = _always
        self._on_end = _forgotten
        self.source = None
        self.entry.abandon()

    def emitted(self) -> int:
        """How many elements have left the graph."""
        meters = self.scope.refresh()
        return self._controls + sum(meters[leaf].emitted for leaf in self.plan.leaves)

    # ---------------------------------------------------------------- time limits and stalls

    def progress(self) -> int:
        """A number that changes whenever an element moves."""
        count = self.entry.received + self.emitted()
        for meter in self.scope.meters.values():
            count += meter.received + meter.emitted
        return count

    def describe(self) -> str:
        """Who holds what, in words."""
        return "; ".join(self.scope.holding()) or "nothing is held; the input is open"

    def _too_long(self, seconds: float) -> None:
        self._end("failed", ExecutionTimeout(f"the execution took longer than {seconds} s; {self.describe()}"))

    def _idle(self, seconds: float) -> None:
        assert self.scope.loop is not None
        progress, now = self.progress(), self.scope.loop.time()
        if progress != self._progress:
            self._moved, self._progress = now, progress
        elif now >= self._moved + seconds:
            self._end("failed", IdleTimeout(f"nothing moved for {seconds} s; {self.describe()}"))
            return
        self._look_again(seconds)

    def _look_again(self, seconds: float) -> None:
        loop = self.scope.loop
        assert loop is not None
        now = loop.time()
        self._timers = [timer for timer in self._timers if not timer.cancelled() and timer.when() > now]
        self._timers.append(loop.call_at(min(now + seconds / _LOOKS, self._moved + seconds), self._idle, seconds))

    def _suspect(self) -> None:
        """Something waits that only another branch can free: look whether anything still moves."""
        if self.scope.loop is not None and not self._looks:
            self._looks = 1
            self._look(-1)

    def _look(self, before: int) -> None:
        scope = self.scope
        if scope.ended:
            return
        if not any(words.startswith("fan-in") for words in scope.holding()):
            self._looks = 0
            return
        progress = self.progress()
        still = (
            progress == before
            and (self.source is None or self.source.paused or self.source.stopped)
            and all(worker.parked for worker in scope.workers)
            and self.waiting_consumer()
        )
        self._looks = self._looks + 1 if still else 1
        if self._looks > (_PATIENT_LOOKS if self.plan.has_operators else 2):
            self._end("failed", StallError("everything waits and nothing can come", scope.holding()))
            return
        assert scope.loop is not None
        self._timers.append(scope.loop.call_later(_SUSPECTED, self._look, progress))


class _Closed:
    """What is left of a buffer: its numbers."""

    __slots__ = ("_statistics",)

    def __init__(self, statistics: BufferStatistics) -> None:
        self._statistics = statistics

    def statistics(self) -> BufferStatistics:
        return self._statistics


def _forgotten(_: object) -> None:
    """It has been told of the end."""


def _always() -> bool:
    return True


def _ignore(element: StreamElement) -> None:
    """It has not opened."""


def _nothing() -> None:
    """It has not opened."""
