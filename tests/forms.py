"""Every way to run a pipeline, as one function each that tells what came out of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import reactivex as rx
from reactivex import Observable, abc

from rxstage import Pipeline, StageError, StreamElement
from rxstage.testing import run_virtual

__all__ = [
    "FORMS",
    "LOOP_FORMS",
    "WAIT",
    "Form",
    "Observer",
    "Outcome",
    "aiterate",
    "cause",
    "contents",
    "observable",
    "texts",
]

WAIT: Final = 20.0
"""Real seconds after which something that waits for another thread is taken for a hang."""


class Outcome(NamedTuple):
    """What came out of an execution, and how it ended."""

    elements: list[StreamElement]
    error: BaseException | None

    @property
    def texts(self) -> list[str]:
        return texts(self.elements)


class Observer(abc.ObserverBase[StreamElement]):
    """Writes down what it is told, anything after the end too."""

    def __init__(self) -> None:
        self.elements: list[StreamElement] = []
        self.ends: list[BaseException | None] = []
        self.late: list[object] = []
        self.ended = threading.Event()

    def on_next(self, value: StreamElement) -> None:
        (self.late if self.ends else self.elements).append(value)

    def on_error(self, error: Exception) -> None:
        self.ends.append(error)
        self.ended.set()

    def on_completed(self) -> None:
        self.ends.append(None)
        self.ended.set()

    def outcome(self) -> Outcome:
        assert len(self.ends) == 1, f"{len(self.ends)} ends"
        assert not self.late
        return Outcome(self.elements, self.ends[0])

    async def wait(self) -> Outcome:
        """The outcome, on a loop."""
        async with asyncio.timeout(3600.0):
            while not self.ends:
                await asyncio.sleep(0.01)
        return self.outcome()


def texts(elements: Iterable[StreamElement]) -> list[str]:
    """The text of each element, and the name of the kind of what is none."""
    return [e.text if e.text is not None else type(e.content).__name__ for e in elements]


def contents(elements: Iterable[StreamElement]) -> list[Any]:
    return [element.content for element in elements]


async def aiterate(items: Iterable[Any]) -> AsyncIterator[Any]:
    """An async iterator that gives the loop a turn before each item."""
    for item in items:
        await asyncio.sleep(0)
        yield item


def observable(source: Any) -> Observable[Any]:
    """The source as an Observable, for operator form."""
    return source if isinstance(source, Observable) else rx.from_iterable(source)


async def _iterate(pipeline: Pipeline, source: Any) -> Outcome:
    elements: list[StreamElement] = []
    try:
        async for element in pipeline.execute(source):
            elements.append(element)  # noqa: PERF401 - what came before an error counts
    except Exception as error:
        return Outcome(elements, error)
    return Outcome(elements, None)


async def _await(pipeline: Pipeline, source: Any) -> Outcome:
    result = await pipeline.execute(source, raise_on_error=False)
    if result.error is None:
        assert result.ok
    return Outcome(list(result.elements), result.error)


async def _output(pipeline: Pipeline, source: Any) -> Outcome:
    observer = Observer()
    pipeline.execute(source).output.subscribe(observer.on_next, observer.on_error, observer.on_completed)
    return await observer.wait()


async def _operator(pipeline: Pipeline, source: Any) -> Outcome:
    observer = Observer()
    observable(source).pipe(pipeline).subscribe(observer.on_next, observer.on_error, observer.on_completed)
    return await observer.wait()


@contextmanager
def _no_threads_left() -> Iterator[None]:
    """As `assert_no_leaks` for threads, in microseconds: the forms are used a thousand times."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith("asyncio_"):
            thread.join(WAIT)
            assert not thread.is_alive(), thread.name


def _run(pipeline: Pipeline, source: Any) -> Outcome:
    with _no_threads_left():
        result = pipeline.run(source, raise_on_error=False)
    return Outcome(list(result.elements), result.error)


def _operator_without_loop(pipeline: Pipeline, source: Any) -> Outcome:
    observer = Observer()
    with _no_threads_left():
        observable(source).pipe(pipeline).subscribe(observer.on_next, observer.on_error, observer.on_completed)
        assert observer.ended.wait(WAIT)
    return observer.outcome()


def _output_without_loop(pipeline: Pipeline, source: Any) -> Outcome:
    observer = Observer()
    with _no_threads_left():
        output = pipeline.execute(source).output
        output.subscribe(observer.on_next, observer.on_error, observer.on_completed)
        assert observer.ended.wait(WAIT)
    return observer.outcome()


Form = Callable[[Pipeline, Any], Outcome]


def _on_a_loop(form: Callable[[Pipeline, Any], Any]) -> Form:
    def run(pipeline: Pipeline, source: Any) -> Outcome:
        with _no_threads_left():
            outcome: Outcome = run_virtual(form(pipeline, source))  # which looks for tasks that are left
        return outcome

    return run


LOOP_FORMS: Final[dict[str, Form]] = {
    "async for": _on_a_loop(_iterate),
    "await": _on_a_loop(_await),
    "output": _on_a_loop(_output),
    "operator": _on_a_loop(_operator),
}
"""The ways on a running loop; the time is virtual."""

FORMS: Final[dict[str, Form]] = {
    **LOOP_FORMS,
    "run": _run,
    "operator without a loop": _operator_without_loop,
    "output without a loop": _output_without_loop,
}
"""All ways. Each checks that there is one end, nothing after it, and no task or thread left behind."""


def cause(error: BaseException | None) -> BaseException | None:
    """What a stage raised."""
    assert isinstance(error, StageError), repr(error)
    return error.__cause__
