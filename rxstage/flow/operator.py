"""A stage that is any Rx operator, wired into a running graph."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.scheduler import CurrentThreadScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxstage.element import ControlElement, StreamElement
from rxstage.errors import RxStageError
from rxstage.flow.callback import Callback
from rxstage.flow.port import Port
from rxstage.flow.scope import DROP, Scope
from rxstage.flow.valve import Valve

__all__ = ["ExecutionScheduler", "open_operator"]


class ExecutionScheduler(AsyncIOScheduler):
    """The scheduler of one operator in an execution: immediate work on the trampoline, timed work on the loop.

    Attributes:
        scope: the execution that the operator runs in; a pipeline subscribed inside it joins its loop.
        valve: what stands behind the operator; sources of ours that are subscribed inside it obey it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, scope: Scope, valve: Valve) -> None:
        super().__init__(loop)
        self.scope = scope
        self.valve = valve
        # Dates that users name are wall-clock dates, so the loop's clock gets one to count from, once.
        self._epoch = datetime.now(UTC) - timedelta(seconds=loop.time())

    @property
    def now(self) -> datetime:
        """The loop's clock as a date: what operators compare (`delay`, `timestamp`) goes by it, virtual or not."""
        return self._epoch + timedelta(seconds=self._loop.time())

    def schedule(self, action: abc.ScheduledAction[Any], state: Any = None) -> abc.DisposableBase:
        """Do it on the trampoline of this thread: a loop's turn per element would be slow and unseen by valves."""
        return CurrentThreadScheduler.singleton().schedule(action, state)


class _Feed(Observable[StreamElement]):
    """What the operator subscribes to: hands on what its node is given, to each who has subscribed."""

    def __init__(self) -> None:
        super().__init__()
        self.observers: list[abc.ObserverBase[StreamElement]] = []
        self.completed = False

    def _subscribe_core(
        self, observer: abc.ObserverBase[StreamElement], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        if self.completed:
            observer.on_completed()
            return Disposable()
        self.observers.append(observer)

        def dispose() -> None:
            if observer in self.observers:
                self.observers.remove(observer)

        return Disposable(dispose)


class _Operator:
    def __init__(self, callback: Callback, scope: Scope, down: Port, sees_controls: bool) -> None:
        self.callback, self.scope, self.down, self.sees_controls = callback, scope, down, sees_controls
        self.meter = scope.meters[callback.name]
        self.feed = _Feed()
        self.inside = False  # whether an element of ours is on its way through the operator
        self.behind: BaseException | None = None  # an error that came from behind the operator
        self.ended = False
        self.thread = threading.get_ident() if scope.loop is not None else None

    def open(self) -> Port:
        scope = self.scope
        scheduler = scope.scheduler
        if scope.loop is not None:
            scheduler = ExecutionScheduler(scope.loop, scope, self.down.valve)
        try:
            output = self.callback.function(self.feed)
        except Exception as error:
            raise self.callback.failed(error, None) from error
        if not isinstance(output, abc.ObservableBase):
            wrong = TypeError(f"the operator of stage {self.callback.name!r} gave {output!r}, which is no Observable")
            raise self.callback.failed(wrong, None)
        subscription = output.subscribe(self.on_next, self.on_error, self.on_completed, scheduler=scheduler)
        scope.release.append(subscription.dispose)
        control = self.push if self.sees_controls else self.down.control
        return Port(self.push, control, self.done, self.down.valve)

    # -- into the operator

    def push(self, element: StreamElement) -> None:
        self.meter.received += element.__class__ is StreamElement
        nested, self.inside = self.inside, True
        try:
            for observer in tuple(self.feed.observers):
                observer.on_next(element)
        except Exception as error:
            if error is self.behind or isinstance(error, RxStageError):
                raise
            self.meter.errors += 1
            raise self.callback.failed(error, element) from error
        finally:
            self.inside = nested
        if self.behind is not None and not nested:
            raise self.behind  # the operator has caught it, and would go on as if nothing had happened

    def done(self) -> None:
        self.feed.completed = True
        nested, self.inside = self.inside, True
        try:
            for observer in tuple(self.feed.observers):
                observer.on_completed()
        finally:
            self.inside = nested
        if self.behind is not None and not nested:
            raise self.behind

    # -- out of the operator

    def on_next(self, value: Any) -> None:
        if self.thread is not None and threading.get_ident() != self.thread:
            self._hop(self._emit, value)
        elif self.scope.serial is not None:
            self.scope.serial.run(self._emit, value)
        else:
            self._emit(value)

    def on_error(self, error: Exception) -> None:
        if error is self.behind:
            if not self.inside:
                self.scope.fail(error)
            return  # else whoever pushed hears of it
        self.meter.errors += 1
        failure = self.callback.failed(error, None)
        if self.thread is not None and threading.get_ident() != self.thread:
            self._hop(self.scope.fail, failure)
        else:
            self.scope.fail(failure)

    def on_completed(self) -> None:
        if self.thread is not None and threading.get_ident() != self.thread:
            self._hop(self._complete)
        else:
            self._complete()

    def _hop(self, call: Callable[..., object], *args: Any) -> None:
        assert self.scope.loop is not None
        self.scope.loop.call_soon_threadsafe(call, *args)

    def _complete(self) -> None:
        if not self.ended and not self.scope.ended:
            self.ended = True
            self.down.done()

    def _emit(self, value: Any) -> None:
        if self.ended or self.scope.ended or self.behind is not None:
            return
        element = value if isinstance(value, StreamElement) else StreamElement.of(value, source=self.callback.name)
        try:
            if element.__class__ is StreamElement:
                self.meter.emitted += 1
                self.down.push(element)
            else:
                assert isinstance(element, ControlElement)
                control = element if element.sequence else self.scope.born(element, self.callback.node)
                if control is not DROP:
                    self.down.control(control)
        except Exception as error:
            self.behind = error
            if self.inside:
                raise
            self.scope.fail(error)  # the operator emitted by itself: nobody of ours is there to catch it


def open_operator(callback: Callback, scope: Scope, down: Port, sees_controls: bool = False) -> Port:
    """The node of an Rx operator; controls go round it unless it sees them."""
    return _Operator(callback, scope, down, sees_controls).open()
