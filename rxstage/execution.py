"""One execution of a pipeline: how its output is taken, and how it is steered from outside."""

from __future__ import annotations

import asyncio
import itertools
import os
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace
from reactivex import Observable

from rxstage.content import Interrupt
from rxstage.element import StreamElement
from rxstage.errors import (
    BufferOverflow,
    ExecutionCancelled,
    PipelineClosed,
    RxStageError,
    ShutdownTimeout,
)
from rxstage.flow.bridge import open_source
from rxstage.flow.buffer import Buffer
from rxstage.flow.entry import Entry
from rxstage.flow.gate import Gate
from rxstage.flow.operator import ExecutionScheduler
from rxstage.flow.outlet import Outlet
from rxstage.flow.port import Push
from rxstage.flow.source import Source
from rxstage.flow.valve import Valve
from rxstage.observe.metrics import Metrics, Statistics, metrics_of, statistics_of
from rxstage.observe.stream import EventStream
from rxstage.output import Elements, Output, Shared
from rxstage.result import Result
from rxstage.running import Run

if TYPE_CHECKING:
    from types import TracebackType

    from rxstage.pipeline import Pipeline

__all__ = ["Execution"]

_PREFIX: Final = os.urandom(4).hex()
_NUMBER: Final = itertools.count(1)


class Execution:
    """One run of a pipeline over one source.

    Its output is taken in one of three ways: `async for element in execution`, `execution.output` (an
    Observable), or `await execution` for the `Result`. It opens at the first of them, and binds the running
    loop. `async with execution` cancels it on leaving.
    """

    __slots__ = (
        "__weakref__",
        "_closers",
        "_events",
        "_inbox",
        "_iterator",
        "_leave",
        "_loop",
        "_mode",
        "_outlet",
        "_raise",
        "_result",
        "_shared",
        "_source",
        "_subscribe_on",
        "_timeout",
        "_unopened",
        "_within",
        "id",
        "pipeline",
        "run",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        source: Any = None,
        *,
        raise_on_error: bool = True,
        subscribe_on: str = "loop",
        timeout: float | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.id = f"{_PREFIX}-{next(_NUMBER)}"
        self.run: Run | None = None
        self._source = source
        self._raise = raise_on_error
        self._subscribe_on = subscribe_on
        self._timeout = timeout
        self._mode = ""
        self._events: EventStream | None = None
        self._inbox: list[StreamElement] = []  # sent before it opened
        self._iterator: weakref.ref[Elements] | None = None
        self._leave: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outlet: Outlet | None = None
        self._result: Result | None = None
        self._shared: Shared | None = None
        self._unopened: Callable[[BaseException], object] | None = None  # told where it is cancelled before it opens
        self._within = False
        self._closers: list[Callable[[], object]] = []

    # ---------------------------------------------------------------- what it tells of itself

    @property
    def state(self) -> str:
        """`"new"`, `"waiting"` (for its turn), `"running"`, `"completed"`, `"failed"` or `"cancelled"`."""
        if self.run is not None:
            return self.run.kind
        return "cancelled" if self._result is not None else "waiting" if self.id in self.pipeline._state.live else "new"

    @property
    def done(self) -> bool:
        """Whether it has ended and nothing of it is left."""
        return self._result is not None

    @property
    def error(self) -> BaseException | None:
        """What it failed with."""
        return None if self.run is None else self.run.error

    @property
    def duration(self) -> float:
        """Seconds since it opened, or from its opening to its end."""
        if self._result is not None:
            return self._result.duration
        return 0.0 if self.run is None else self.run.scope.clock() - self.run.begin

    @property
    def events(self) -> EventStream:
        """Its events, as a hot Observable that completes on every ending."""
        if self._events is None:
            self._events = EventStream(on_first_observer=self._listen)
            if self.done:
                self._events.complete()
        return self._events

    def metrics(self) -> Metrics:
        """Counters and times per stage, now."""
        return Metrics({}) if self.run is None else metrics_of(self.run.scope, self.duration)

    def statistics(self) -> Statistics:
        """Depth, peak, capacity and drops per edge, now."""
        if self.run is None:
            return Statistics({})
        statistics = statistics_of(self.run.scope)
        if self._outlet is None:
            return statistics
        output = self._outlet.buffer.statistics()
        return Statistics({**statistics.edges, **{(leaf, "<output>"): output for leaf in self.pipeline.plan.leaves}})

    # ---------------------------------------------------------------- three ways to take the output

    def __aiter__(self) -> AsyncIterator[StreamElement]:
        self._take("iteration")
        elements = self._iterator() if self._iterator is not None else None
        if self.run is None and self._outlet is None:
            self._open_outlet()
        if elements is None:
            elements = Elements(self)
            self._iterator = weakref.ref(elements)
        return elements

    def _open_outlet(self) -> None:
        """Open it with a buffer at its end, that somebody takes the elements from."""
        loop = asyncio.get_running_loop()
        self.pipeline._refuse_if_closed()
        config = self.pipeline.config
        buffer = Buffer(
            config.buffer_size,
            config.overflow,
            priority_queue=config.priority_queue,
            edge=(", ".join(self.pipeline.plan.leaves[:3]), "<output>"),
            on_drop=lambda edge, count: self._scope_dropped(edge, count),
            on_overflow=lambda error: self._fail(error),
        )
        self._outlet = Outlet(buffer, Gate(loop))
        if self._result is None:
            self._launch(loop, buffer.push, buffer.control, buffer.valve)
        else:
            self._outlet.end(self._result.error if self._raise else None)

    def __await__(self) -> Generator[Any, None, Result]:
        return self._wait_result().__await__()

    @property
    def output(self) -> Observable[StreamElement]:
        """The output as an Observable; the first subscription opens the execution."""
        return Output(self)

    async def _wait_result(self) -> Result:
        self._take("await")
        try:
            if self._outlet is not None:
                await self._collect(self._outlet)
            elif self._result is None:
                if self.run is None and self._loop is None:
                    elements: list[StreamElement] = []
                    self._launch(asyncio.get_running_loop(), elements.append, elements.append, Valve(), elements)
                await self.closed()
        except asyncio.CancelledError:
            self.cancel()
            await self.closed()
            raise
        await self.pipeline._flush_async()
        result = self._result
        assert result is not None
        if result.error is not None and self._raise:
            raise result.error
        return result

    async def _collect(self, outlet: Outlet) -> None:
        """Take what comes out of an execution that was opened before somebody awaited it."""
        elements: list[StreamElement] = []
        while True:
            if not outlet.buffer.queue:
                try:
                    await outlet.arrival()
                except StopAsyncIteration:
                    break
                except Exception:
                    if self._result is None:
                        raise
                    break  # the result has it
            elements.append(outlet.take())
        assert self._result is not None
        if elements:
            self._result = replace(self._result, elements=tuple(elements))

    def _take(self, mode: str) -> None:
        if self._mode not in ("", mode):
            raise RxStageError(
                f"the output of execution {self.id} is already taken by {self._mode}; take it in one way, or execute "
                f"the pipeline again"
            )
        self._mode = mode

    # ---------------------------------------------------------------- steering

    def send(self, value: Any) -> None:
        """Put an element in out of band, past a paused source. From any thread.

        Raises:
            PipelineClosed: it takes nothing more.
            BufferOverflow: as many as `hot_source_limit` wait for it to open.
        """
        element = StreamElement.of(value)
        run = self.run
        if run is None:
            if self._result is not None:
                raise PipelineClosed(f"execution {self.id} takes nothing more: it was cancelled")
            if len(self._inbox) >= self.pipeline.config.hot_source_limit:
                raise BufferOverflow(
                    f"execution {self.id} has not opened yet and {len(self._inbox)} elements wait for it"
                )
            self._inbox.append(element)
            return
        if run.scope.ended or run.entry.closed:
            raise PipelineClosed(f"execution {self.id} takes nothing more: its input has ended")
        if run.scope.loop is None:
            accept = run.source.accept if run.source is not None else None
            if accept is not None:
                accept(element)
            else:
                self._inbox.append(element)  # taken by whoever pulls the source
            return
        here = _is_running(run.scope.loop)
        run.entry.pending += here  # what the source pushes after it stays behind it
        self._on_loop(lambda: self._enter(run, element, here))

    def interrupt(self, reason: str = "") -> None:
        """Send an `Interrupt`."""
        self.send(StreamElement(Interrupt(reason)))

    def cancel(self) -> None:
        """Stop now, without an error; whoever takes the output gets `ExecutionCancelled`. From any thread."""
        run = self.run
        if run is None:
            loop = self._loop
            if loop is None or loop.is_closed():
                self._cancel_unopened()
            else:
                _soon(loop, self._cancel_unopened)
        elif run.scope.loop is None:
            run.cancel()
        elif not run.scope.loop.is_closed():
            _soon(run.scope.loop, run.cancel)

    def _abandon(self) -> None:
        """Nobody takes the output any more; called by a finalizer, which may run in the middle of anything."""
        run = self.run
        if run is None or run.scope.loop is None:
            self.cancel()
            return

        def end() -> None:
            run.cancel()
            if self._outlet is not None:
                self._outlet.buffer.clear()

        self._on_loop(end)

    def _cancel_unopened(self) -> None:
        if self.run is not None:  # it has opened meanwhile
            self.run.cancel()
        elif self._result is None:
            error = self._cancelled()
            self._result = Result((), error)
            self._inbox.clear()
            self._source = None
            leave, self._leave = self._leave, None
            self.pipeline._forget(self)
            self._told_end(error)
            unopened, self._unopened = self._unopened, None
            if unopened is not None:
                unopened(error)
            if leave is not None:
                leave()

    async def drain(self, timeout: float | None = None) -> None:
        """Accept no more and let out what is in flight; what the output holds can still be taken.

        Args:
            timeout: seconds; by default the configured `shutdown_timeout`.

        Raises:
            ShutdownTimeout: something was still in flight; the execution has been cancelled.
        """
        run = self.run
        if run is None:
            self.cancel()
            return
        seconds = self.pipeline.config.shutdown_timeout if timeout is None else timeout
        if run.scope.loop is None:
            run.stop_input()
        else:
            self._on_loop(self._stop_input)
        if not await self._closed_within(seconds):
            left = run.scope.holding() or [f"stage {name!r}" for name in set(run.scope.tasks.values())]
            self.cancel()
            raise ShutdownTimeout(f"execution {self.id} did not drain within {seconds} s", left)

    async def closed(self) -> None:
        """Wait until it has ended and nothing of it is left."""
        if self._result is not None:
            return
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        self._closers.append(lambda: loop.call_soon_threadsafe(wake))
        if self._result is not None:
            return
        await ended

    async def _closed_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.closed()
        except TimeoutError:
            return False
        return True

    async def __aenter__(self) -> Execution:
        self._within = True
        if self.run is None and self._loop is None and self._result is None:
            self._open_outlet()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._within = False
        if not self.done:
            self.cancel()
            await self.closed()
        if self._outlet is not None:
            self._outlet.buffer.clear()  # nobody takes it any more

    # ---------------------------------------------------------------- opening

    def _launch(
        self,
        loop: asyncio.AbstractEventLoop,
        push: Push,
        control: Push,
        valve: Valve,
        collected: list[StreamElement] | None = None,
        *,
        make_source: Callable[[Run, Entry], Source] | None = None,
        keeps: bool = False,
        on_open: Callable[[], object] | None = None,
        on_ended: Callable[[Run], object] | None = None,
        on_unopened: Callable[[BaseException], object] | None = None,
    ) -> bool:
        """Open on a loop, at once or when its turn comes; tells whether at once."""
        self.pipeline._admit(self)
        self._loop, self._unopened = loop, on_unopened

        def ended(run: Run) -> None:
            self._ended(run, collected)
            if on_ended is not None:
                on_ended(run)

        def start() -> None:
            if self._result is not None:
                return
            run = Run(self.pipeline.plan, clock=loop.time, loop=loop, execution_id=self.id, on_end=ended)
            run.scope.scheduler = ExecutionScheduler(loop, run.scope, valve)
            if self._outlet is not None:
                run.waiting_consumer = self._consumer_waits
            self.run = run
            run.scope.listener = self.pipeline._listener(self)
            try:
                entry = run.open(push, control, valve, keeps=keeps, timeout=self._timeout)
                source = (
                    make_source(run, entry)
                    if make_source is not None
                    else open_source(() if self._source is None else self._source, run.scope, entry, self._subscribe_on)
                )
                run.source = source
                self._source = None
                self._drain_inbox(run)
                if on_open is not None:
                    on_open()
                if not run.scope.ended:
                    source.start()
            except Exception as error:
                run.fail(error)

        began = False

        def begin() -> None:
            nonlocal began
            began = True
            try:
                _soon(loop, start)
            except RuntimeError:  # its loop was closed while it waited for its turn
                self._cancel_unopened()

        self._enter_turnstile(begin)
        return began

    def _enter_turnstile(self, start: Callable[[], object]) -> None:
        self._leave = leave = self.pipeline._enter(start)
        if self._result is not None and leave is not None:  # it has ended already
            self._leave = None
            leave()

    def _consumer_waits(self) -> bool:
        return self._outlet is not None and self._outlet.gate.waiting

    def _enter(self, run: Run, element: StreamElement, here: bool) -> None:
        run.entry.pending -= here
        if run.scope.ended:
            return
        try:
            run.entry.enter(element)
        except Exception as error:
            run.fail(error)

    def _drain_inbox(self, run: Run) -> None:
        while self._inbox and not run.scope.ended:
            run.entry.enter(self._inbox.pop(0))

    def _stop_input(self) -> None:
        assert self.run is not None
        if self._outlet is not None:
            self._outlet.buffer.lift()
        if self.run.scope.ended:
            return
        try:
            self.run.stop_input()
        except Exception as error:
            self.run.fail(error)

    def _on_loop(self, call: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(call)

    def _scope_dropped(self, edge: tuple[str, str], count: int) -> None:
        if self.run is not None:
            self.run.scope.dropped(edge, count)

    def _fail(self, error: BaseException) -> None:
        if self.run is not None:
            self.run.fail(error)

    def _listen(self) -> None:
        if self.run is not None and not self.run.scope.ended:
            self.run.scope.listener = self.pipeline._listener(self)

    # ---------------------------------------------------------------- the end

    def _cancelled(self) -> ExecutionCancelled:
        return ExecutionCancelled(f"execution {self.id} of pipeline {self.pipeline.name!r} was cancelled")

    def _ended(self, run: Run, collected: list[StreamElement] | None) -> None:
        error = self._cancelled() if run.kind == "cancelled" else run.error
        duration = run.scope.clock() - run.begin
        self._result = Result(tuple(collected or ()), error, duration, lambda: metrics_of(run.scope, duration))
        if self._mode != "run":
            self._inbox.clear()
        self._unopened = None
        leave, self._leave = self._leave, None
        self.pipeline._forget(self)
        self._told_end(error)
        if leave is not None:
            leave()

    def _told_end(self, error: BaseException | None) -> None:
        if self._outlet is not None:
            self._outlet.end(error if self._raise else None)
            self._outlet.buffer.valve.wakers.clear()
        if self._events is not None:
            self._events.complete()
        closers, self._closers = self._closers, []
        for close in closers:
            try:
                close()
            except RuntimeError:
                pass  # the loop of somebody who waited is closed: nobody waits there any more

    def __repr__(self) -> str:
        return f"Execution({self.id!r}, pipeline={self.pipeline.name!r}, state={self.state!r})"

    def _repr_html_(self) -> str:
        from rxstage.observe.table import execution_html

        return execution_html(self)


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is the loop's own thread."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _soon(loop: asyncio.AbstractEventLoop, start: Callable[[], None]) -> None:
    """Start at once on the loop's own thread, else as soon as it comes to it."""
    if _is_running(loop):
        start()
    else:
        loop.call_soon_threadsafe(start)
