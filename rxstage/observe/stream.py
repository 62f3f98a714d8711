"""Events as a hot Observable."""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxstage.events import Event
from rxstage.observe.log import warn

__all__ = ["EventStream"]

_WAITING: Final = 4096  # events of other threads that wait while an observer is being called


class EventStream(Observable[Event]):
    """The events of one execution, or of all of a pipeline, for whoever is subscribed when they happen.

    Observers are called where the event happens, one at a time and in one order for all: an event that
    happens on another thread, or inside an observer, meanwhile is delivered after the one at hand.

        in       --s--f-c--|
        observer   ^-f-c--|

    Args:
        on_first_observer: called when somebody subscribes while nobody else is subscribed, on their thread.

    Emits: each event, to every observer; one that raises gets its error, is dropped and hurts no other.
    Holds: nothing, but for events of other threads while an observer is being called (4096, the oldest drop).
    Completes: at `complete`; who subscribes later completes at once.
    Fails: never.
    """

    def __init__(self, on_first_observer: Callable[[], object] | None = None) -> None:
        super().__init__()
        self._observers: tuple[abc.ObserverBase[Event], ...] = ()
        self._on_first_observer = on_first_observer
        self._waiting: deque[Event | None] = deque()  # None is the end
        self._delivering = False
        self._completing = False
        self._completed = False

    @property
    def observed(self) -> bool:
        """Whether anybody is subscribed."""
        return bool(self._observers)

    def on_event(self, event: Event) -> None:
        """Tell the observers; never raises what an observer raises.

        Args:
            event: what happened; costs next to nothing while nobody observes.
        """
        if self._observers:
            self._send(event)

    def complete(self) -> None:
        """Complete every observer, after the events before it; a second call does nothing."""
        self._send(None)

    def _subscribe_core(
        self, observer: abc.ObserverBase[Event], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        with self.lock:
            completed = self._completed
            first = not self._observers
            if not completed:
                self._observers = (*self._observers, observer)
        if completed:
            observer.on_completed()
        elif first and self._on_first_observer is not None:
            self._on_first_observer()
        return Disposable(lambda: self._forget(observer))

    def _forget(self, observer: abc.ObserverBase[Event]) -> None:
        with self.lock:
            self._observers = tuple(each for each in self._observers if each is not observer)

    def _send(self, item: Event | None) -> None:
        with self.lock:
            if self._completing:
                return
            self._completing = item is None
            if len(self._waiting) >= _WAITING:
                self._waiting.popleft()
            self._waiting.append(item)
            if self._delivering:
                return
            self._delivering = True
        try:
            self._deliver()
        except BaseException:  # KeyboardInterrupt: the next event must find its way
            self._delivering = False
            raise

    def _deliver(self) -> None:
        while True:
            with self.lock:
                if not self._waiting:
                    self._delivering = False
                    return
                item = self._waiting.popleft()
                observers = self._observers
                if item is None:
                    self._observers = ()
                    self._completed = True
            for observer in observers:
                try:
                    if item is None:
                        observer.on_completed()
                    else:
                        observer.on_next(item)
                except (Exception, CancelledError) as error:  # the others go on
                    self._drop(observer, error, item)

    def _drop(self, observer: abc.ObserverBase[Event], error: BaseException, item: Event | None) -> None:
        self._forget(observer)
        with suppress(Exception, CancelledError):
            observer.on_error(cast(Exception, error))  # which by default raises it
        warn(
            f"an observer of the events raised {type(error).__name__}: {error}; it gets no more of them",
            error=error,
            pipeline=item.pipeline if item is not None else "",
            execution=item.execution_id if item is not None else "",
            stage=item.stage if item is not None else "",
        )
