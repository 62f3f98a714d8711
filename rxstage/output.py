"""The output of an execution as whoever takes it sees it: an async iterator, or an Observable that can be shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxstage.element import StreamElement
from rxstage.operator_form import deliver, subscribe

if TYPE_CHECKING:
    from rxstage.execution import Execution

__all__ = ["Elements", "Output", "Shared"]


class Elements:
    """The async iterator of an execution; when the last reference to it goes, the execution is cancelled."""

    __slots__ = ("__weakref__", "_execution", "_outlet")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        assert execution._outlet is not None
        self._outlet = execution._outlet

    def __aiter__(self) -> Elements:
        return self

    async def __anext__(self) -> StreamElement:
        outlet = self._outlet
        buffer = outlet.buffer
        queue = buffer.queue
        if not queue:
            await outlet.arrival()
        element = queue.popleft()
        if buffer.full:
            buffer.reopen()
        return element

    async def aclose(self) -> None:
        """Cancel the execution and wait for its end."""
        if not self._execution.done:
            self._execution.cancel()
            await self._execution.closed()
        self._outlet.buffer.clear()

    def __del__(self) -> None:
        execution = self._execution
        if not execution._within:
            try:
                execution._abandon()
            except RuntimeError:
                pass  # the loop is closed already: nothing runs any more


class Output(Observable[StreamElement]):
    """`execution.output`: subscribing opens it; a second subscriber shares what comes from then on."""

    def __init__(self, execution: Execution) -> None:
        super().__init__()
        self._execution = execution

    def _subscribe_core(
        self, observer: abc.ObserverBase[StreamElement], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        execution = self._execution
        execution._take("output")
        shared = execution._shared
        if shared is not None:
            return shared.add(observer)
        execution._shared = shared = Shared(execution)
        subscription = shared.add(observer)
        shared.open(scheduler)
        return subscription


class Shared:
    """The observers of one execution: each sees everything from its subscription on, whatever the others do."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.observers: list[abc.ObserverBase[StreamElement]] = []
        self.terminal: Callable[[abc.ObserverBase[StreamElement]], object] | None = None
        self.subscription: abc.DisposableBase = Disposable()

    def open(self, scheduler: abc.SchedulerBase | None) -> None:
        """Open the execution, or take what it has made since it was opened."""
        outlet = self.execution._outlet
        if outlet is not None:  # opened by `async with` already
            self.subscription = deliver(self.execution, outlet, self)
        else:
            self.subscription = subscribe(self.execution, self, scheduler)

    def add(self, observer: abc.ObserverBase[StreamElement]) -> abc.DisposableBase:
        """Let one more see what comes; the last one that goes cancels the execution."""
        if self.terminal is not None:
            self.terminal(observer)
            return Disposable()
        self.observers.append(observer)

        def dispose() -> None:
            if observer in self.observers:
                self.observers.remove(observer)
                if not self.observers and self.terminal is None:
                    self.subscription.dispose()
                    self.execution.cancel()

        return Disposable(dispose)

    def on_next(self, element: StreamElement) -> None:
        """Tell all of them; one that raises hears its own error and no more."""
        if len(self.observers) == 1:
            self.observers[0].on_next(element)
            return
        for observer in tuple(self.observers):
            try:
                observer.on_next(element)
            except Exception as error:
                if observer in self.observers:
                    self.observers.remove(observer)
                observer.on_error(error)

    def on_error(self, error: Exception) -> None:
        """Tell all of them, and whoever comes later."""
        self._end(lambda observer: observer.on_error(error))

    def on_completed(self) -> None:
        """Tell all of them, and whoever comes later."""
        self._end(lambda observer: observer.on_completed())

    def _end(self, terminal: Callable[[abc.ObserverBase[StreamElement]], object]) -> None:
        if self.terminal is not None:
            return
        self.terminal = terminal
        observers, self.observers = self.observers, []
        raised: Exception | None = None
        for observer in observers:
            try:
                terminal(observer)
            except Exception as error:  # one without on_error raises it; the others are told first
                raised = error
        if raised is not None:
            raise raised
