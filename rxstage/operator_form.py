"""A pipeline as an Rx operator: every subscription is an execution."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace as _replace
from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.scheduler import CurrentThreadScheduler

from rxstage.element import StreamElement
from rxstage.errors import RxStageError
from rxstage.flow.bridge import open_source
from rxstage.flow.buffer import BATCH
from rxstage.flow.callback import CAUGHT
from rxstage.flow.entry import Entry
from rxstage.flow.guard import Guard, Serial
from rxstage.flow.inlet import Observed
from rxstage.flow.loopthread import shared_loop
from rxstage.flow.operator import ExecutionScheduler
from rxstage.flow.outlet import Outlet
from rxstage.flow.source import Source, is_file, is_single, lines_of
from rxstage.flow.valve import Valve
from rxstage.running import Run

if TYPE_CHECKING:
    from rxstage.execution import Execution
    from rxstage.pipeline import Pipeline

__all__ = ["PipelineObservable", "clock_of", "deliver", "runs_inline", "subscribe"]

_OPENING: Final = 10.0  # seconds that the library's own loop gets to open an execution


class PipelineObservable(Observable[StreamElement]):
    """`source.pipe(pipeline)`: cold."""

    def __init__(self, pipeline: Pipeline, source: Observable[Any], keeps: bool = False) -> None:
        super().__init__()
        self._pipeline = pipeline
        self._source = source
        self._keeps = keeps

    def _subscribe_core(
        self, observer: abc.ObserverBase[StreamElement], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        execution = self._pipeline.execute(self._source)
        execution._take("operator")
        return subscribe(execution, observer, scheduler, keeps=self._keeps)


def runs_inline(execution: Execution) -> bool:
    """Whether an execution needs no loop: its graph is synchronous and it has no time limits to watch."""
    pipeline = execution.pipeline
    config = pipeline.config
    return (
        not pipeline.plan.asynchronous
        and config.execution_timeout is None
        and config.idle_timeout is None
        and execution._timeout is None
        and not hasattr(execution._source, "__aiter__")
    )


def clock_of(scheduler: abc.SchedulerBase | None) -> Callable[[], float]:
    """Seconds, on the clock of a scheduler; monotonic time where there is none."""
    if scheduler is None:
        return time.monotonic
    scope = getattr(scheduler, "scope", None)
    if scope is not None:
        clock: Callable[[], float] = scope.clock
        return clock
    return lambda: float(scheduler.to_seconds(scheduler.now))


def subscribe(
    execution: Execution, observer: Any, scheduler: abc.SchedulerBase | None = None, keeps: bool = False
) -> abc.DisposableBase:
    """Open an execution whose output goes to an observer."""
    if execution._result is not None:  # cancelled before somebody took its output
        observer.on_error(execution._cancelled())
        return Disposable()
    keeps = keeps or hasattr(scheduler, "scope")
    running = _running_loop()
    operator = execution._mode == "operator"
    if runs_inline(execution) and (operator or running is None):
        return _inline(execution, observer, scheduler, keeps)
    return _on_loop(execution, observer, scheduler, keeps, running)


def deliver(execution: Execution, outlet: Outlet, observer: Any) -> abc.DisposableBase:
    """Hand an observer what comes out of an execution that has opened already."""
    loop = execution._loop
    assert loop is not None
    buffer = outlet.buffer
    disposed = False

    def kick() -> None:
        loop.call_soon(turn)

    def turn() -> None:
        for _ in range(BATCH):
            if disposed or not buffer.queue:
                break
            try:
                observer.on_next(outlet.take())
            except Exception as error:
                buffer.clear()
                execution._fail(error)
        if disposed:
            buffer.clear()
        elif buffer.queue:
            kick()
        elif outlet.ended:
            if execution.run is not None:
                _terminal(execution.run, execution, observer)
            else:
                observer.on_error(execution._cancelled())
        else:
            buffer.park(kick)

    def dispose() -> None:
        nonlocal disposed
        disposed = True
        execution.cancel()

    kick()
    return Disposable(dispose)


def _claimed(claim: list[None]) -> bool:
    try:
        claim.pop()
    except IndexError:
        return False
    return True


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _terminal(run: Run, execution: Execution, observer: Any) -> None:
    """Tell an observer how the execution ended."""
    if run.kind == "completed":
        observer.on_completed()
    else:
        observer.on_error(run.error if run.kind == "failed" else execution._cancelled())


# ------------------------------------------------------------------------------------------ inline


class _InlineSource(Source):
    """The one who pushes into an inline graph, and what keeps its terminal behind its elements."""

    def __init__(self, run: Run, entry: Entry, observer: Any) -> None:
        super().__init__(run.scope, entry)
        self.run = run
        self.observer = observer
        self.consumer_raised = False
        self.subscription: abc.DisposableBase | None = None
        self.guard = Guard()
        self.on_next = self._inlet()

    def _inlet(self) -> Callable[[Any], None]:
        """What the source pushes into: one function, because every element passes it."""
        entry, scope, guard, run = self.entry, self.scope, self.guard, self.run
        push, enter, serial = entry.port.push, entry.enter, scope.serial
        number, clock, inside = scope.next_sequence, scope.clock, guard.inside
        lean = serial is None and not entry.keeps

        def enter_alone(value: Any) -> None:  # perhaps on another thread than the one that brought it
            try:
                enter(value)
            except RxStageError as error:
                run.fail(error)

        def on_next(value: Any) -> None:
            inside.append(None)
            try:
                if guard.closed or entry.closed or self.consumer_raised:
                    if self.consumer_raised:
                        self._release()
                    return
                if lean and value.__class__ is StreamElement:
                    entry.received += 1
                    push(_replace(value, sequence=number(), timestamp=clock()))
                elif serial is not None:
                    serial.run(enter_alone, value)
                else:
                    enter(value)
            except RxStageError as error:
                run.fail(error)
            except BaseException as error:
                self.consumer_raised = True  # not a stage: whoever is behind the pipeline raised, and hears it himself
                run.fail(error)
                raise
            finally:
                inside.pop()
                if guard.closed and not inside:
                    guard.deliver()

        return on_next

    def completed(self) -> None:
        self.guard.finish(self._complete)

    def failed(self, error: BaseException) -> None:
        if self.consumer_raised:  # the source has caught what the consumer raised: so he hears of it, as in plain Rx
            self._release()
            self.observer.on_error(error)
            return
        self.guard.finish(lambda: self.run.fail(error))

    def _complete(self) -> None:
        try:
            self.entry.end()
        except RxStageError as error:
            self.run.fail(error)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            if not self.consumer_raised:  # else the source must still be able to tell what it has caught
                self._release()

    def _release(self) -> None:
        subscription, self.subscription = self.subscription, None
        if subscription is not None:
            subscription.dispose()


def _inline(
    execution: Execution, observer: Any, scheduler: abc.SchedulerBase | None, keeps: bool
) -> abc.DisposableBase:
    pipeline, feed = execution.pipeline, execution._source
    disposed = False
    source: _InlineSource | None = None

    def ended(run: Run) -> None:
        execution._ended(run, None)
        if not disposed and not (source is not None and source.consumer_raised):
            _terminal(run, execution, observer)

    def start() -> None:
        nonlocal source
        if disposed or execution._result is not None:
            return
        run = Run(
            pipeline.plan, clock=clock_of(scheduler), scheduler=scheduler, execution_id=execution.id, on_end=ended
        )
        execution.run = run
        run.scope.listener = pipeline._listener(execution)
        if pipeline.plan.has_operators:
            run.scope.serial = Serial()
        try:
            entry = run.open(observer.on_next, observer.on_next, Valve(), keeps=keeps)
        except RxStageError as error:
            run.fail(error)
            return
        run.source = source = _InlineSource(run, entry, observer)
        execution._source = None
        inbox = execution._inbox
        while inbox and not run.scope.ended:
            source.on_next(inbox.pop(0))
        if isinstance(feed, abc.ObservableBase):
            source.accept = source.on_next
            subscription = feed.subscribe(source.on_next, source.failed, source.completed, scheduler=scheduler)
            if source.stopped and not source.consumer_raised:
                subscription.dispose()
            else:
                source.subscription = subscription
        else:  # on the trampoline, as all cold sources: first `subscribe` returns what can dispose of it
            pulled = source
            CurrentThreadScheduler.singleton().schedule(lambda *_: _pull(pulled, feed, inbox))

    def unopened(error: BaseException) -> None:
        if not disposed:
            observer.on_error(error)

    pipeline._admit(execution)
    execution._unopened = unopened
    execution._enter_turnstile(start)

    def dispose() -> None:
        nonlocal disposed
        disposed = True
        execution.cancel()

    return Disposable(dispose)


def _pull(source: _InlineSource, feed: Any, inbox: list[StreamElement]) -> None:
    items: Any = () if feed is None else (feed,) if is_single(feed) else lines_of(feed) if is_file(feed) else feed
    try:
        for value in items:
            if source.stopped:
                return
            source.on_next(value)
            while inbox:
                source.on_next(inbox.pop(0))
    except CAUGHT as error:
        if source.consumer_raised:
            raise
        source.failed(error)
    else:
        while inbox:
            source.on_next(inbox.pop(0))
        source.completed()
    finally:
        if hasattr(items, "close") and hasattr(items, "send"):
            items.close()


# ------------------------------------------------------------------------------------------ on a loop


def _on_loop(
    execution: Execution,
    observer: Any,
    scheduler: abc.SchedulerBase | None,
    keeps: bool,
    running: asyncio.AbstractEventLoop | None,
) -> abc.DisposableBase:
    scope = getattr(scheduler, "scope", None)
    valve = getattr(scheduler, "valve", None) if isinstance(scheduler, ExecutionScheduler) else None
    loop = scope.loop if scope is not None and scope.loop is not None else running
    owned = None
    if loop is None:
        owned = shared_loop.acquire()
        loop = owned.loop
    opened = threading.Event()
    observed: Observed | None = None
    disposed = False
    claim = [None]  # on who subscribes: the caller's thread, unless it cannot wait for that

    def make_source(run: Run, entry: Entry) -> Source:
        nonlocal observed
        feed = execution._source
        where = execution._subscribe_on
        if isinstance(feed, abc.ObservableBase) and owned is not None:
            if _claimed(claim):
                observed = Observed(run.scope, entry, feed, deferred=True)  # the caller's thread subscribes
                return observed
            where = "thread"
        return open_source(() if feed is None else feed, run.scope, entry, where)

    def unlinked() -> None:
        opened.set()
        if valve is not None:
            valve.unlink(output)
        if owned is not None:
            shared_loop.release()

    def ended(run: Run) -> None:
        try:
            if not disposed:
                _terminal(run, execution, observer)
        finally:
            unlinked()

    def unopened(error: BaseException) -> None:
        try:
            if not disposed:
                observer.on_error(error)
        finally:
            unlinked()

    output = Valve()
    if valve is not None:
        valve.link(output)
    began = execution._launch(
        loop,
        observer.on_next,
        observer.on_next,
        output,
        make_source=make_source,
        keeps=keeps,
        on_open=opened.set,
        on_ended=ended,
        on_unopened=unopened,
    )
    if owned is not None and (began or not _claimed(claim)):
        if not opened.wait(_OPENING):
            _claimed(claim)
        if observed is not None:
            observed.subscribe()

    def dispose() -> None:
        nonlocal disposed
        disposed = True
        execution.cancel()

    return Disposable(dispose)
