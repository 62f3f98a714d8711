"""`pipeline.run`: an execution that the calling thread waits for."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from reactivex import abc

from rxstage.content import EndOfStream
from rxstage.element import StreamElement
from rxstage.errors import ExecutionTimeout
from rxstage.flow.bridge import open_source
from rxstage.flow.callback import CAUGHT
from rxstage.flow.codegen import MORE
from rxstage.flow.entry import Entry
from rxstage.flow.inlet import Observed
from rxstage.flow.loopthread import LoopThread
from rxstage.flow.source import Source, is_file, is_single, lines_of
from rxstage.flow.valve import Valve
from rxstage.operator_form import runs_inline
from rxstage.result import Result
from rxstage.running import Run

if TYPE_CHECKING:
    from rxstage.execution import Execution

__all__ = ["run_synchronously"]

_WAKE: Final = StreamElement.of("")
_GRACE: Final = 1.0  # seconds past a time limit that an execution gets to end by itself


def run_synchronously(execution: Execution) -> Result:
    """Run an execution to its end: inline where its graph is synchronous, else on a loop on a thread of its own."""
    execution._take("run")
    source = execution._source
    if (
        runs_inline(execution)
        and not execution.pipeline.plan.has_operators  # they may emit by themselves, later
        and not isinstance(source, abc.ObservableBase)
    ):
        _run_inline(execution)
    else:
        _run_on_thread(execution)
    execution.pipeline._flush()
    result = execution._result
    assert result is not None
    if result.error is not None and execution._raise:
        raise result.error
    return result


def _run_inline(execution: Execution) -> None:
    pipeline, feed = execution.pipeline, execution._source
    pipeline._admit(execution)
    if pipeline.config.max_concurrent_executions is not None:
        admitted = threading.Event()
        execution._unopened = lambda _: admitted.set()
        execution._enter_turnstile(admitted.set)
        admitted.wait()
        if execution._result is not None:  # cancelled while it waited
            return
    elements: list[StreamElement] = []
    run = Run(
        pipeline.plan,
        clock=time.monotonic,
        execution_id=execution.id,
        on_end=lambda ended: execution._ended(ended, elements),
    )
    execution.run = run
    run.scope.listener = pipeline._listener(execution)
    items: Any = () if feed is None else (feed,) if is_single(feed) else lines_of(feed) if is_file(feed) else feed
    execution._source = None
    try:
        entry = run.open(elements.append, elements.append, Valve())
        _pull(execution, run, entry, items)
        if not run.scope.ended:
            entry.end()
    except CAUGHT as error:
        run.fail(error)
    except BaseException:
        run.cancel()
        raise
    finally:
        if hasattr(items, "close") and hasattr(items, "send"):
            items.close()


def _pull(execution: Execution, run: Run, entry: Entry, items: Any) -> None:
    scope, inbox, enter = run.scope, execution._inbox, entry.enter
    wake = [_WAKE]
    scope.release.append(lambda: inbox.extend(wake))  # an end from inside or from another thread is seen there
    scope.drainers.append(lambda: inbox.extend(wake))
    if entry.port.drain is not None and not inbox:
        items = iter(items)
        if _drained(run, entry, items, inbox):
            return
    if inbox:
        execution._drain_inbox(run)
    for value in items:
        enter(value)
        if inbox:
            execution._drain_inbox(run)
        if scope.ended or entry.closed:
            return


def _drained(run: Run, entry: Entry, items: Any, inbox: list[StreamElement]) -> bool:
    """Let the first node pull by itself; False where something came between, and the rest is to be pulled here."""
    drain, before, admitted, first = entry.port.drain, entry.received, 0, run.scope.meters[run.plan.names[0]]
    assert drain is not None

    def count() -> None:
        entry.received = before + first.received + admitted

    run.scope.readers.append(count)

    def admit(element: StreamElement) -> None:
        nonlocal admitted
        if element.content.__class__ is EndOfStream:
            run.stop_input()
        else:
            admitted += 1
            entry.port.control(element)

    try:
        more = drain(items, admit, run.scope.clock, inbox) is MORE
    finally:
        run.scope.refresh()
        count()
        if count in run.scope.readers:
            run.scope.readers.remove(count)
    run.scope.next_sequence = itertools.count(entry.received + 1).__next__
    return not more or run.scope.ended or entry.closed


def _run_on_thread(execution: Execution) -> None:
    thread = LoopThread(f"rxstage:{execution.pipeline.name}")
    elements: list[StreamElement] = []
    ended, opened = threading.Event(), threading.Event()
    observed: Observed | None = None

    def make_source(run: Run, entry: Entry) -> Source:
        nonlocal observed
        feed = execution._source
        if isinstance(feed, abc.ObservableBase) and execution._subscribe_on == "loop":
            observed = Observed(run.scope, entry, feed, deferred=True)
            return observed
        return open_source(() if feed is None else feed, run.scope, entry, execution._subscribe_on)

    def on_ended(_: object) -> None:
        ended.set()
        opened.set()

    try:
        execution._launch(
            thread.loop,
            elements.append,
            elements.append,
            Valve(),
            elements,
            make_source=make_source,
            on_open=opened.set,
            on_ended=on_ended,
            on_unopened=on_ended,
        )
        limit = execution._timeout
        opened.wait(limit)
        if observed is not None:
            observed.subscribe(cold=True)
        shutdown = execution.pipeline.config.shutdown_timeout
        if not ended.wait(None if limit is None else limit + shutdown + _GRACE):
            _stuck(execution, limit, elements)
    except BaseException:
        if not ended.is_set():
            execution.cancel()
            ended.wait(execution.pipeline.config.shutdown_timeout + _GRACE)
        raise
    finally:
        thread.close()


def _stuck(execution: Execution, limit: float | None, elements: list[StreamElement]) -> None:
    """The loop itself is kept by a plain function that does not return: name it, and leave it behind."""
    run = execution.run
    where = run.describe() if run is not None else "it has not opened"
    error = ExecutionTimeout(f"the execution took longer than {limit} s and its loop does not answer; {where}")
    if run is None:
        execution._cancel_unopened()
        raise error
    run.kind, run.error, run.scope.ended = "failed", error, True
    if run.source is not None:
        run.source.stopped = True  # it may be in the middle of a batch: no further element
    execution._ended(run, elements)
