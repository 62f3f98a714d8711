"""Executions: the ways to take the output, sources of every kind, steering, and what is left in the result."""

from __future__ import annotations

import asyncio
import gc
import io
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from forms import FORMS, WAIT, Form, Observer, aiterate, contents, texts
from reactivex import operators as ops
from reactivex.scheduler import EventLoopScheduler
from reactivex.subject import Subject

from rxstage import (
    Audio,
    BufferOverflow,
    Data,
    EndOfTurn,
    ExecutionCancelled,
    Failure,
    FlatMapStage,
    Interrupt,
    MapStage,
    Message,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineClosed,
    PipelineConfig,
    Result,
    RxStageError,
    ShutdownTimeout,
    Stage,
    StageContext,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
    Text,
    Usage,
)
from rxstage.testing import assert_no_leaks, run_virtual, virtual

forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


async def slow(element: StreamElement) -> StreamElement:
    await asyncio.sleep(1.0)
    return element


async def never(element: StreamElement) -> StreamElement:
    await asyncio.Event().wait()
    return element


def plain() -> Pipeline:
    return Pipeline.of(PassthroughStage("p"))


def asynchronous() -> Pipeline:
    return Pipeline.of(MapStage("s", slow))


both = pytest.mark.parametrize("make", [plain, asynchronous])

# ------------------------------------------------------------------------------------------ opening


@both
@virtual
async def test_states(make: Callable[[], Pipeline]) -> None:
    """An execution is new until it is opened, then running, then completed."""
    async with assert_no_leaks():
        execution = make().execute(["a"])
        assert execution.state == "new"
        assert not execution.done
        elements = aiter(execution)
        assert execution.state == "running"
        assert [element.text async for element in elements] == ["a"]
        await execution.closed()
        assert execution.state == "completed"
        assert execution.done
        assert execution.error is None
        assert repr(execution).startswith("Execution(")


@virtual
async def test_nothing_happens_before_it_opens() -> None:
    """The source is not touched before the output is taken."""
    touched: list[str] = []

    def source() -> Iterator[str]:
        touched.append("source")
        yield "a"

    execution = plain().execute(source())
    await asyncio.sleep(1.0)
    assert not touched
    assert (await execution).text == "a"
    assert touched


@both
@virtual
async def test_async_with_opens(make: Callable[[], Pipeline]) -> None:
    """`async with` opens it and binds the loop; what it emits waits for whoever takes the output."""
    touched: list[str] = []

    def source() -> Iterator[str]:
        for text in "abc":
            touched.append(text)
            yield text

    async with assert_no_leaks(), make().execute(source()) as execution:
        await asyncio.sleep(0.1)
        assert execution.state in ("running", "completed")
        assert touched
        result = await execution
    assert result.text == "abc"
    assert execution.state == "completed"


@both
@virtual
async def test_async_with_then_output(make: Callable[[], Pipeline]) -> None:
    """After `async with`, the Observable gives what has come out so far and the rest."""
    observer = Observer()
    async with assert_no_leaks(), make().execute(list("abc")) as execution:
        await asyncio.sleep(1.5)
        execution.output.subscribe(observer)
        outcome = await observer.wait()
    assert outcome.error is None
    assert outcome.texts == ["a", "b", "c"]


@both
@virtual
async def test_async_with_then_async_for(make: Callable[[], Pipeline]) -> None:
    """After `async with`, the loop gets everything."""
    async with assert_no_leaks(), make().execute(list("abc")) as execution:
        await asyncio.sleep(1.5)
        assert [element.text async for element in execution] == ["a", "b", "c"]


@both
@pytest.mark.parametrize("error", [None, ValueError])
@virtual
async def test_async_with_cancels(make: Callable[[], Pipeline], error: type[Exception] | None) -> None:
    """Leaving `async with`, by an error too, cancels what has not ended, and waits for it."""
    closed: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
        finally:
            await asyncio.sleep(0.1)
            closed.append("source")

    async with assert_no_leaks():
        execution = make().execute(source())
        try:
            async with execution:
                async for _ in execution:
                    if error is not None:
                        raise error
                    break
                assert not execution.done
                assert execution.state == "running"
        except ValueError:
            assert error is not None
        assert execution.state == "cancelled"
        assert closed == ["source"]


@virtual
async def test_async_with_goes_on_after_break() -> None:
    """Inside `async with`, a second loop goes on where the first one broke off."""
    async with plain().execute(list("abcd")) as execution:
        async for element in execution:
            if element.text == "b":
                break
        assert [element.text async for element in execution] == ["c", "d"]


@both
@virtual
async def test_a_second_aiter_goes_on(make: Callable[[], Pipeline]) -> None:
    """A second `aiter()` goes on with the same stream."""
    execution = make().execute(list("abc"))
    first = aiter(execution)
    assert (await anext(first)).text == "a"
    second = aiter(execution)
    assert (await anext(second)).text == "b"
    assert (await anext(first)).text == "c"
    with pytest.raises(StopAsyncIteration):
        await anext(second)
    with pytest.raises(StopAsyncIteration):
        await anext(first)


@both
@virtual
async def test_break_cancels(make: Callable[[], Pipeline]) -> None:
    """Leaving the loop early cancels it when the iterator is released."""
    closed: list[str] = []

    def source() -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.append("source")

    async with assert_no_leaks():
        execution = make().execute(source())
        async for _ in execution:
            break
        gc.collect()
        await execution.closed()
        assert execution.state == "cancelled"
        assert closed == ["source"]


@virtual
async def test_aclose_of_the_iterator() -> None:
    """`aclose()` of the iterator cancels and waits."""
    async with assert_no_leaks():
        execution = asynchronous().execute(list("abc"))
        elements: Any = aiter(execution)
        await anext(elements)
        await elements.aclose()
        assert execution.state == "cancelled"


TAKE: dict[str, Callable[[Any], Any]] = {
    "iteration": aiter,
    "await": lambda execution: asyncio.ensure_future(execution._wait_result()),
    "output": lambda execution: execution.output.subscribe(lambda _: None, lambda _: None),
}


@pytest.mark.parametrize("first", TAKE)
@pytest.mark.parametrize("second", TAKE)
@virtual
async def test_taking_the_output_in_two_ways(first: str, second: str) -> None:
    """Taking the output in two ways raises, and says what to do."""
    if first == second:
        execution = plain().execute(["a"])
        kept = [TAKE[first](execution), TAKE[second](execution)]
        await asyncio.sleep(0.1)
        assert len(kept) == 2
        if first == "await":
            assert [(await task).text for task in kept] == ["a", "a"]
        return
    async with plain().execute(["a"]) as execution:
        kept = [TAKE[first](execution)]
        await asyncio.sleep(0)
        errors: list[Exception] = []
        with pytest.raises(RxStageError, match=f"already taken by {first}; take it in one way"):  # noqa: PT012
            if second == "output":
                execution.output.subscribe(lambda _: None, errors.append)
                raise errors[0]
            taken = TAKE[second](execution)
            await taken
        del kept


@virtual
async def test_awaited_twice() -> None:
    """A second `await` gives the same result, or raises the same error."""
    execution = plain().execute(["a"])
    assert await execution is await execution
    failing = Pipeline.of(MapStage("bad", lambda e: 1 / 0)).execute(["a"])
    with pytest.raises(StageError) as first:
        await failing
    with pytest.raises(StageError) as second:
        await failing
    assert first.value is second.value


@virtual
async def test_cancelling_whoever_awaits() -> None:
    """Cancelling the task that awaits cancels the execution and goes on as a cancellation."""
    async with assert_no_leaks():
        execution = asynchronous().execute(list("abc"))
        task = asyncio.ensure_future(execution._wait_result())
        await asyncio.sleep(1.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert execution.state == "cancelled"


# ------------------------------------------------------------------------------------------ sending


@both
@virtual
async def test_send_before_opening(make: Callable[[], Pipeline]) -> None:
    """What is sent before it opens enters first."""
    execution = make().execute(["c"])
    execution.send("a")
    execution.send(StreamElement.of("b"))
    assert (await execution).text == "abc"


@virtual
async def test_send_before_opening_is_bounded() -> None:
    """As many as `hot_source_limit` may wait for it to open."""
    pipeline = Pipeline.of(PassthroughStage("p"), config=PipelineConfig(hot_source_limit=3))
    execution = pipeline.execute(())
    for text in "abc":
        execution.send(text)
    with pytest.raises(BufferOverflow, match="has not opened yet"):
        execution.send("d")
    assert (await execution).text == "abc"


@both
@virtual
async def test_send_past_a_paused_source(make: Callable[[], Pipeline]) -> None:
    """What is sent enters past a source that is paused."""
    pipeline = make()
    pulled = 0

    def source() -> Iterator[str]:
        nonlocal pulled
        while True:
            pulled += 1
            yield "x"

    async with pipeline.execute(source()) as execution:
        elements = aiter(execution)
        await asyncio.sleep(100.0)
        before = pulled
        assert before < 50
        execution.send("sent")
        await asyncio.sleep(0.1)
        assert pulled == before
        seen = [(await anext(elements)).text for _ in range(before + 1)]
        assert seen.count("sent") == 1


@both
@virtual
async def test_interrupt_past_a_paused_source(make: Callable[[], Pipeline]) -> None:
    """An interrupt enters past a paused source and overtakes what is queued."""

    def source() -> Iterator[str]:
        for number in range(100):
            yield str(number)

    pipeline = make()
    execution = pipeline.execute(source())
    elements = aiter(execution)
    await asyncio.sleep(100.0)
    execution.interrupt("stop")
    await asyncio.sleep(0.1)
    first = await anext(elements)
    assert first.content == Interrupt("stop")
    assert len([element async for element in elements]) < 100


@pytest.mark.parametrize("make", [plain, asynchronous])
def test_send_from_another_thread(make: Callable[[], Pipeline]) -> None:
    """`send`, `interrupt` and `cancel` work from any thread."""

    async def main() -> list[str]:
        async with assert_no_leaks():
            execution = make().execute(rx.never())
            elements = aiter(execution)

            def other() -> None:
                for text in "abc":
                    execution.send(text)

            thread = threading.Thread(target=other)
            thread.start()
            seen = [(await anext(elements)).text or "" for _ in range(3)]
            thread.join(WAIT)
            killer = threading.Thread(target=execution.cancel)
            killer.start()
            with pytest.raises(ExecutionCancelled):
                await anext(elements)
            killer.join(WAIT)
        return seen

    assert run_virtual(main()) == ["a", "b", "c"]


@both
@virtual
async def test_send_after_the_end(make: Callable[[], Pipeline]) -> None:
    """After the end, or once its input has ended, it takes nothing more."""
    execution = make().execute(["a"])
    await execution
    with pytest.raises(PipelineClosed, match="takes nothing more"):
        execution.send("b")
    with pytest.raises(PipelineClosed):
        execution.interrupt()


@pytest.mark.parametrize("source_kind", ["subject", "generator"])
def test_send_into_an_inline_execution(source_kind: str) -> None:
    """Without a loop, what is sent enters on the thread of whoever sends, or between two elements of a source."""
    seen: list[str] = []
    if source_kind == "subject":
        source: Subject[str] = Subject()
        pipeline = plain()
        source.pipe(pipeline).subscribe(lambda e: seen.extend(texts([e])), on_completed=lambda: seen.append("|"))
        (execution,) = pipeline.executions
        source.on_next("a")
        execution.send("b")
        assert seen == ["a", "b"]
        execution.interrupt()
        source.on_completed()
        assert seen == ["a", "b", "Interrupt", "|"]
        with pytest.raises(PipelineClosed):
            execution.send("c")
        return

    def items() -> Iterator[str]:
        yield "a"
        execution.send("b")
        yield "c"
        execution.send("d")

    execution = plain().execute(items())
    execution.output.subscribe(lambda e: seen.append(texts([e])[0]), on_completed=lambda: seen.append("|"))
    assert sorted(seen) == sorted(["a", "b", "c", "d", "|"])
    assert seen[-1] == "|"


def test_send_from_inside_run() -> None:
    """A stage of a synchronous run may send to its own execution."""
    pipeline: Pipeline

    def work(element: StreamElement) -> StreamElement:
        if element.text == "a":
            pipeline.executions[0].send("b")
        return element

    pipeline = Pipeline.of(MapStage("w", work))
    assert pipeline.run(["a", "c"]).text == "abc"


# ------------------------------------------------------------------------------------------ cancel, drain


@both
@virtual
async def test_cancel_before_opening(make: Callable[[], Pipeline]) -> None:
    """Cancelled before it opens: every way of taking the output tells so, and the source stays untouched."""
    async with assert_no_leaks():
        pipeline = make()
        first, second, third, quiet = (pipeline.execute(list("abc")) for _ in range(4))
        for execution in (first, second, third, quiet):
            execution.cancel()
            execution.cancel()
            assert execution.state == "cancelled"
            assert execution.done
        with pytest.raises(ExecutionCancelled):
            await first
        with pytest.raises(ExecutionCancelled):
            async for _ in second:
                pass
        observer = Observer()
        third.output.subscribe(observer)
        assert isinstance((await observer.wait()).error, ExecutionCancelled)
        async with quiet:
            pass
        with pytest.raises(PipelineClosed):
            quiet.send("x")
        assert pipeline.executions == ()


@pytest.mark.parametrize("make", [plain, asynchronous])
def test_cancel_before_opening_without_a_loop(make: Callable[[], Pipeline]) -> None:
    """The same where no loop is running."""
    with assert_no_leaks():
        execution = make().execute(list("abc"))
        execution.cancel()
        observer = Observer()
        execution.output.subscribe(observer)
        assert observer.ended.wait(WAIT)
    assert isinstance(observer.outcome().error, ExecutionCancelled)


@pytest.mark.parametrize("kind", ["plain", "async", "stream"])
@virtual
async def test_cancel_from_inside_a_stage(kind: str) -> None:
    """A stage may cancel its own execution; nothing comes after it."""
    pipeline: Pipeline

    def work(element: StreamElement) -> StreamElement:
        if element.text == "b":
            pipeline.executions[0].cancel()
        return element

    async def awork(element: StreamElement) -> StreamElement:
        await asyncio.sleep(0.1)
        return work(element)

    async def stream(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield work(element)

    stage: Stage = {
        "plain": MapStage("w", work),
        "async": MapStage("w", awork),
        "stream": StageFunc("w", StageType.TRANSFORM, stream),
    }[kind]
    pipeline = Pipeline.of(stage)
    async with assert_no_leaks():
        result = await pipeline.execute(list("abc"), raise_on_error=False)
    assert isinstance(result.error, ExecutionCancelled)
    assert texts(result.elements) in (["a"], ["a", "b"])


def test_cancel_from_inside_a_synchronous_run() -> None:
    """The same in a run without a loop: the source is not pulled on."""
    pipeline: Pipeline
    pulled: list[str] = []

    def source() -> Iterator[str]:
        try:
            for text in "abc":
                pulled.append(text)
                yield text
        finally:
            pulled.append("closed")

    def work(element: StreamElement) -> StreamElement:
        if element.text == "b":
            pipeline.executions[0].cancel()
        return element

    pipeline = Pipeline.of(MapStage("w", work))
    with assert_no_leaks(), pytest.raises(ExecutionCancelled, match="was cancelled"):
        pipeline.run(source())
    assert pulled == ["a", "b", "closed"]
    assert pipeline.executions == ()


@pytest.mark.parametrize("make", [plain, asynchronous])
def test_cancel_a_run_from_another_thread(make: Callable[[], Pipeline]) -> None:
    """`cancel` from another thread ends a `run`."""
    pipeline = make()
    started = threading.Event()

    def source() -> Iterator[str]:
        while True:
            started.set()
            yield "x"

    def cancel() -> None:
        assert started.wait(WAIT)
        pipeline.executions[0].cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with assert_no_leaks(), pytest.raises(ExecutionCancelled):
        pipeline.run(source())
    thread.join(WAIT)


@both
@virtual
async def test_drain(make: Callable[[], Pipeline]) -> None:
    """`drain` takes no more from the source and lets out what is in flight."""
    pulled = 0

    def source() -> Iterator[str]:
        nonlocal pulled
        while True:
            pulled += 1
            yield str(pulled)

    async with assert_no_leaks():
        execution = make().execute(source())
        elements = aiter(execution)
        await asyncio.sleep(5.5)
        await execution.drain(100.0)
        with pytest.raises(PipelineClosed):
            execution.send("late")
        assert execution.state == "completed"
        seen = [element.text async for element in elements]
    assert seen == [str(number + 1) for number in range(pulled)]


@virtual
async def test_drain_times_out() -> None:
    """What does not drain in time is named, and cancelled."""
    async with assert_no_leaks():
        execution = Pipeline.of(MapStage("stuck", never)).execute(rx.concat(rx.of("a"), rx.never()))
        execution.output.subscribe(lambda _: None, lambda _: None)
        await asyncio.sleep(1.0)
        with pytest.raises(ShutdownTimeout, match="stuck") as caught:
            await execution.drain(5.0)
        assert asyncio.get_running_loop().time() == pytest.approx(6.0)
        assert "stuck" in caught.value.left[0]
        await execution.closed()
        assert execution.state == "cancelled"


@both
@virtual
async def test_drain_twice_and_after_the_end(make: Callable[[], Pipeline]) -> None:
    """Draining twice, or after the end, does nothing; before the opening it cancels."""
    execution = make().execute(["a"])
    waiting = asyncio.ensure_future(execution._wait_result())
    await asyncio.sleep(0.1)
    await asyncio.gather(execution.drain(10.0), execution.drain(10.0))
    await execution.drain()
    assert (await waiting).text == "a"
    unopened = make().execute(["a"])
    await unopened.drain()
    assert unopened.state == "cancelled"


def test_drain_an_inline_execution() -> None:
    """An execution in operator form without a loop completes when it is drained."""
    source: Subject[str] = Subject()
    observer = Observer()
    pipeline = plain()
    source.pipe(pipeline).subscribe(observer)
    source.on_next("a")
    (execution,) = pipeline.executions
    run_virtual(execution.drain(1.0))
    assert observer.outcome().texts == ["a"]
    assert not source.observers
    source.on_next("b")
    assert observer.late == []


@virtual
async def test_end_of_stream_completes_after_draining() -> None:
    """An `EndOfStream` that enters completes after draining; it is not emitted, and the source is closed."""
    closed: list[str] = []

    async def source() -> AsyncIterator[Any]:
        try:
            yield "a"
            yield StreamElement.end_of_stream()
            yield "late"
        finally:
            closed.append("source")

    async with assert_no_leaks():
        result = await asynchronous().execute(source())
    assert texts(result.elements) == ["a"]
    assert closed == ["source"]


@forms
@pytest.mark.parametrize("shape", ["plain", "async"])
def test_end_of_stream(form: Form, shape: str) -> None:
    """The same in every form."""
    stage = MapStage("s", lambda e: e) if shape == "plain" else MapStage("s", aslow)
    elements, error = form(Pipeline.of(stage), ["a", StreamElement.end_of_stream(), "late"])
    assert error is None
    assert texts(elements) == ["a"]


async def aslow(element: StreamElement) -> StreamElement:
    await asyncio.sleep(0.001)
    return element


@forms
@pytest.mark.parametrize("shape", ["plain", "async"])
def test_end_of_stream_made_by_a_stage(form: Form, shape: str) -> None:
    """An `EndOfStream` that a stage makes ends the input, too."""

    def work(element: StreamElement) -> StreamElement:
        return StreamElement.end_of_stream() if element.text == "b" else element

    async def awork(element: StreamElement) -> StreamElement:
        await asyncio.sleep(0.001)
        return work(element)

    pipeline = Pipeline.of(MapStage("s", work if shape == "plain" else awork), config=PipelineConfig(buffer_size=1))
    elements, error = form(pipeline, ["a", "b"] + ["late"] * 20)
    assert error is None
    assert texts(elements)[0] == "a"
    assert len(elements) < 10


# ------------------------------------------------------------------------------------------ errors


def bad() -> Pipeline:
    def work(element: StreamElement) -> StreamElement:
        if element.text == "b":
            raise ValueError("no b")
        return element

    return Pipeline.of(MapStage("bad", work))


@virtual
async def test_raise_on_error_false() -> None:
    """`raise_on_error=False` returns the failed execution's result, and ends a loop quietly."""
    result = await bad().execute(list("abc"), raise_on_error=False)
    assert not result.ok
    assert isinstance(result.error, StageError)
    assert result.text == "a"
    execution = bad().execute(list("abc"), raise_on_error=False)
    assert [element.text async for element in execution] == ["a"]
    assert execution.state == "failed"
    assert isinstance(execution.error, StageError)
    assert bad().run(list("abc"), raise_on_error=False).text == "a"
    assert bad().execute_sync(*"abc", raise_on_error=False).text == "a"


def test_raising_is_the_default() -> None:
    """A failed `run` or `execute_sync` raises."""
    with pytest.raises(StageError, match=r"stage 'bad' \(TRANSFORM\) failed on .*ValueError: no b"):
        bad().run(list("abc"))
    with pytest.raises(StageError):
        bad().execute_sync(*"abc")


def test_stage_error_says_everything() -> None:
    """A `StageError` has the stage, its type, the element and the cause."""
    error = bad().run(list("abc"), raise_on_error=False).error
    assert isinstance(error, StageError)
    assert (error.stage, error.stage_type, error.element.text) == ("bad", StageType.TRANSFORM, "b")
    assert isinstance(error.__cause__, ValueError)


@virtual
async def test_later_errors_are_attached() -> None:
    """Errors of the tear-down are attached to the first error as notes."""

    async def rude(element: StreamElement) -> StreamElement:
        try:
            await asyncio.sleep(100.0)
        finally:
            raise KeyError("tear-down")

    async def fail(element: StreamElement) -> StreamElement:
        await asyncio.sleep(1.0)
        raise ValueError("first")

    pipeline = (
        PipelineBuilder()
        .add(PassthroughStage("in"))
        .branch("in", MapStage("rude", rude), MapStage("bad", fail))
        .build()
    )
    async with assert_no_leaks():
        result = await pipeline.execute(["a"], raise_on_error=False)
    assert isinstance(result.error, StageError)
    assert result.error.stage == "bad"
    assert any("tear-down" in note for note in result.error.__notes__)


# ------------------------------------------------------------------------------------------ sources


class Numbers:
    """An iterable that is no iterator."""

    def __iter__(self) -> Iterator[str]:
        return iter(["1", "2"])


@forms
@pytest.mark.parametrize("shape", ["plain", "async"])
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (["a", "b"], [Text("a"), Text("b")]),
        (("a",), [Text("a")]),
        ([], []),
        ([Text("a"), StreamElement.of("b"), 3, None], [Text("a"), Text("b"), Data(3), Data(None)]),
        ({"k": "v"}, [Data({"k": "v"})]),
        ("hello", [Text("hello")]),
        (b"hello", [Data(b"hello")]),
        (StreamElement.of("e"), [Text("e")]),
        (Message.user("m"), [Message.user("m")]),
        (Text("t"), [Text("t")]),
        (17, [Data(17)]),
        (None, []),
        (Numbers(), [Text("1"), Text("2")]),
        (range(2), [Data(0), Data(1)]),
    ],
    ids=str,
)
def test_sources(form: Form, shape: str, source: Any, expected: list[Any]) -> None:
    """Iterables give their items; a bare string, bytes, element, message, mapping or other value is one element."""
    if form in (FORMS["operator"], FORMS["operator without a loop"]) and not isinstance(source, (list, tuple)):
        source = rx.from_iterable(() if source is None else [source] if len(expected) == 1 else source)
    stage = MapStage("s", lambda e: e) if shape == "plain" else MapStage("s", aslow)
    elements, error = form(Pipeline.of(stage), source)
    assert error is None
    assert contents(elements) == expected


no_operator = pytest.mark.parametrize(
    "form", [f for n, f in FORMS.items() if "operator" not in n], ids=[n for n in FORMS if "operator" not in n]
)


@no_operator
@pytest.mark.parametrize("shape", ["plain", "async"])
def test_generator_source(form: Form, shape: str) -> None:
    """A generator gives its items and is closed."""
    log: list[str] = []

    def source() -> Iterator[str]:
        try:
            yield from "ab"
        finally:
            log.append("closed")

    stage = MapStage("s", lambda e: e) if shape == "plain" else MapStage("s", aslow)
    elements, error = form(Pipeline.of(stage), source())
    assert error is None
    assert texts(elements) == ["a", "b"]
    assert log == ["closed"]


@no_operator
@pytest.mark.parametrize("shape", ["plain", "async"])
def test_generator_is_closed_on_failure(form: Form, shape: str) -> None:
    """A generator is closed when the execution fails."""
    log: list[str] = []

    def source() -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            log.append("closed")

    async def afail(element: StreamElement) -> StreamElement:
        raise ValueError

    def fail(element: StreamElement) -> StreamElement:
        raise ValueError

    _, error = form(Pipeline.of(MapStage("s", fail if shape == "plain" else afail)), source())
    assert isinstance(error, StageError)
    assert log == ["closed"]


@no_operator
@pytest.mark.parametrize("shape", ["plain", "async"])
def test_async_source(form: Form, shape: str) -> None:
    """An async iterable gives its items and is aclosed."""
    log: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            async for item in aiterate("ab"):
                yield item
        finally:
            await asyncio.sleep(0)
            log.append("aclosed")

    stage = MapStage("s", lambda e: e) if shape == "plain" else MapStage("s", aslow)
    elements, error = form(Pipeline.of(stage), source())
    assert error is None
    assert texts(elements) == ["a", "b"]
    assert log == ["aclosed"]


@no_operator
@pytest.mark.parametrize("shape", ["plain", "async"])
def test_text_file(form: Form, shape: str, tmp_path: Path) -> None:
    """A text file gives its lines, without their ends."""
    path = tmp_path / "lines.txt"
    path.write_bytes(b"one\r\ntwo\n\nlast")
    stage = MapStage("s", lambda e: e) if shape == "plain" else MapStage("s", aslow)
    with path.open() as file:
        elements, error = form(Pipeline.of(stage), file)
    assert error is None
    assert texts(elements) == ["one", "two", "", "last"]
    elements, error = form(Pipeline.of(stage), io.StringIO("a\nb\n"))
    assert texts(elements) == ["a", "b"]


@no_operator
def test_binary_file(form: Form, tmp_path: Path) -> None:
    """A binary file gives chunks of 64 KiB."""
    path = tmp_path / "bytes.bin"
    path.write_bytes(bytes(range(256)) * 512)
    with path.open("rb") as file:
        elements, error = form(plain(), file)
    assert error is None
    chunks = [content.value for content in contents(elements)]
    assert [len(chunk) for chunk in chunks] == [65536, 65536]
    assert b"".join(chunks) == path.read_bytes()


@pytest.mark.parametrize("subscribe_on", ["loop", "thread"])
@virtual
async def test_cold_observable_on_a_loop(subscribe_on: str) -> None:
    """A cold Observable, on the loop or on a thread of its own."""
    threads: set[int] = set()
    source = rx.from_iterable(map(str, range(50))).pipe(ops.do_action(lambda _: threads.add(threading.get_ident())))
    async with assert_no_leaks():
        result = await plain().execute(source, subscribe_on=subscribe_on)
    assert texts(result.elements) == [str(number) for number in range(50)]
    assert (threads == {threading.get_ident()}) == (subscribe_on == "loop")


@pytest.mark.parametrize("kind", ["observable", "generator"])
@virtual
async def test_subscribe_on_thread_is_slowed(kind: str) -> None:
    """With `subscribe_on="thread"` a cold source is slowed by blocking its thread, not bounded by a limit."""
    pulled = 0

    def items() -> Iterator[str]:
        nonlocal pulled
        for number in range(3000):
            pulled += 1
            yield str(number)

    source: Any = rx.from_iterable(items()) if kind == "observable" else items()
    pipeline = Pipeline.of(PassthroughStage("p"), config=PipelineConfig(buffer_size=4, hot_source_limit=10))
    async with assert_no_leaks():
        count = 0
        async for element in pipeline.execute(source, subscribe_on="thread"):
            assert element.text == str(count)
            count += 1
            assert pulled - count <= 4 + 4 + 2
    assert count == 3000


def test_unknown_subscribe_on() -> None:
    """An unknown `subscribe_on` is refused."""
    with pytest.raises(ValueError, match="'loop' or 'thread', got 'pool'"):
        plain().execute([], subscribe_on="pool")


@pytest.mark.parametrize("make", [plain, asynchronous])
def test_hot_observable_from_another_thread(make: Callable[[], Pipeline]) -> None:
    """A hot Observable that pushes from another thread, in order."""

    async def main() -> list[str]:
        scheduler = EventLoopScheduler()
        source: Subject[str] = Subject()
        execution = Pipeline.of(MapStage("s", aslow) if make is asynchronous else PassthroughStage("s")).execute(source)
        elements = aiter(execution)
        rx.from_iterable(map(str, range(100)), scheduler=scheduler).subscribe(source)
        seen = [element.text or "" async for element in elements]
        scheduler.dispose()
        return seen

    assert asyncio.run(main()) == [str(number) for number in range(100)]


@virtual
async def test_hot_observable_on_the_loop() -> None:
    """A hot Observable on the loop: a burst within the limit waits for room, then it completes."""
    source: Subject[str] = Subject()
    pipeline = Pipeline.of(MapStage("s", aslow), config=PipelineConfig(buffer_size=2, hot_source_limit=100))
    async with assert_no_leaks():
        execution = pipeline.execute(source)
        elements = aiter(execution)
        for number in range(90):
            source.on_next(str(number))
        source.on_completed()
        assert [element.text async for element in elements] == [str(number) for number in range(90)]


@virtual
async def test_an_interrupt_in_band_of_a_hot_source_spares_failures() -> None:
    """An interrupt that a hot source brings clears what waits before it, but what is critical stays."""
    source: Subject[Any] = Subject()
    pipeline = Pipeline.of(MapStage("s", never, interruptible=True), config=PipelineConfig(buffer_size=1))
    async with pipeline.execute(source) as execution:
        elements = aiter(execution)
        for number in range(5):
            source.on_next(str(number))
        source.on_next(StreamElement.of(ValueError("kept")))
        source.on_next(StreamElement.end_of_turn())
        source.on_next(Interrupt("now"))
        assert (await anext(elements)).content == Interrupt("now")
        assert isinstance((await anext(elements)).content, Failure)
        source.on_completed()
        assert [e async for e in elements] == []


# ------------------------------------------------------------------------------------------ run


def test_run_in_a_running_loop() -> None:
    """`run` works inside a running loop, as in a notebook, for graphs of both kinds."""

    async def main() -> list[str]:
        return [
            plain().run(["a"]).text,
            Pipeline.of(MapStage("s", aslow)).run(["b"]).text,
            Pipeline.of(MapStage("s", aslow)).execute_sync("c", "d").text,
            Pipeline.of(MapStage("s", aslow)).run(rx.of("e")).text,
        ]

    assert asyncio.run(main()) == ["a", "b", "cd", "e"]


def test_run_in_a_thread() -> None:
    """`run` works in any thread, several at once."""
    pipeline = Pipeline.of(MapStage("s", aslow))
    results: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.setdefault(n, pipeline.run([str(n)]).text)) for n in range(5)
    ]
    with assert_no_leaks():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    assert results == {n: str(n) for n in range(5)}


def test_execute_sync_takes_elements() -> None:
    """`execute_sync` takes elements and raw values one by one."""
    result = plain().execute_sync("a", StreamElement.end_of_turn(), 3)
    assert contents(result.elements) == [Text("a"), EndOfTurn(), Data(3)]
    assert plain().execute_sync().elements == ()


# ------------------------------------------------------------------------------------------ what elements get


@forms
@pytest.mark.parametrize("shape", ["plain", "async"])
def test_sequence_and_time(form: Form, shape: str) -> None:
    """Elements are numbered from 1 and stamped with the execution's clock where they enter."""
    stage = MapStage("s", lambda e: e) if shape == "plain" else MapStage("s", aslow)
    items = [StreamElement.of("a", sequence=77, timestamp=5e9), "b", StreamElement.end_of_turn(), "c"]
    elements, error = form(Pipeline.of(stage), items)
    assert error is None
    assert [element.sequence for element in elements] == [1, 2, 3, 4]
    times = [element.timestamp for element in elements]
    assert times == sorted(times)
    assert times[-1] < 5e9


def test_a_stage_in_operator_form_keeps_sequence_numbers() -> None:
    """A single stage in operator form keeps the numbers and times that elements have; a pipeline numbers anew."""
    source = [StreamElement.of("a", sequence=7, timestamp=3.0), StreamElement.end_of_turn(sequence=8), "c"]
    for stage in (PassthroughStage("p"), MapStage("m", lambda e: e)):
        seen: list[StreamElement] = []
        rx.from_iterable(source).pipe(stage).subscribe(seen.append)
        assert [element.sequence for element in seen][:2] == [7, 8]
        assert seen[0].timestamp == 3.0
    seen = []
    rx.from_iterable(source).pipe(plain()).subscribe(seen.append)
    assert [element.sequence for element in seen] == [1, 2, 3]


def test_source_is_named_where_the_engine_makes_the_envelope() -> None:
    """`source` is the stage that returned a bare payload; an element that a stage makes keeps what stood."""
    result = Pipeline.of(
        MapStage("payload", str.upper, on=Text), MapStage("element", lambda e: e.replace(content=(e.text or "") + "!"))
    ).run([StreamElement.of("a", source="user")])
    assert [element.source for element in result.elements] == ["payload"]


@virtual
async def test_stage_context() -> None:
    """A function that asks for its context gets the execution's id, clock and name, and sees a cancellation."""
    seen: dict[str, Any] = {}

    async def ask(element: StreamElement, context: StageContext) -> StreamElement:
        begin = context.now()
        await context.sleep(3.0)
        seen.update(id=context.execution_id, stage=context.stage, slept=context.now() - begin, gone=context.cancelled)
        return element

    execution = Pipeline.of(MapStage("ask", ask), name="p").execute(["a"])
    await execution
    assert seen == {"id": execution.id, "stage": "ask", "slept": pytest.approx(3.0), "gone": False}


# ------------------------------------------------------------------------------------------ results


def test_result() -> None:
    """A result has the elements, their text, messages and failures, the usage of all messages, and the metrics."""
    first, second = Usage(1, 2), Usage(3, 4)
    items = [
        "a",
        Message("assistant", (Text("x"),), usage=first),
        StreamElement.end_of_turn(),
        Message("assistant", (Text("y"),), usage=second),
        ValueError("v"),
        Audio(b"\0\0", 8000),
        "b",
    ]
    result = plain().run(items)
    assert result.ok
    assert result.text == "ab"
    assert [message.usage for message in result.messages] == [first, second]
    assert result.usage == first + second
    assert [type(failure.error) for failure in result.failures] == [ValueError]
    assert result.duration >= 0
    assert result.metrics.stages["p"].received == 5
    assert len(result.contents) == 5
    assert repr(result).startswith("Result(7 elements, ok")


def test_failures_alone_do_not_fail_an_execution() -> None:
    """`Failure` elements alone do not fail an execution."""
    result = Pipeline.of(MapStage("bad", lambda e: 1 / 0, on_error="emit")).run(["a", "b"])
    assert result.ok
    assert [failure.stage for failure in result.failures] == ["bad", "bad"]


@pytest.mark.parametrize("failed", [False, True])
def test_results_pickle(failed: bool) -> None:
    """A result pickles, its error, metrics and elements with it."""
    result = (bad() if failed else plain()).run(list("ab"), raise_on_error=False)
    copy: Result = pickle.loads(pickle.dumps(result))
    assert copy.elements == result.elements
    assert copy.duration == result.duration
    assert copy.metrics == result.metrics
    assert str(copy.error) == str(result.error)
    assert type(copy.error) is type(result.error)
    if failed:
        assert isinstance(copy.error, StageError)
        assert isinstance(copy.error.__cause__, ValueError)


def test_result_keeps_its_numbers() -> None:
    """The metrics of a result do not change any more."""
    result = plain().run(list("abc"))
    before = result.metrics
    plain().run(list("abc"))
    assert result.metrics == before
    assert before.stages["p"].emitted == 3


@pytest.mark.parametrize("shape", ["plain", "async", "flat", "concurrent", "policy"])
@pytest.mark.parametrize("metrics", [True, False])
@virtual
async def test_metrics(shape: str, metrics: bool) -> None:
    """Counters per stage always, quantiles of the processing time only with `metrics=True`."""

    def fail(element: StreamElement) -> StreamElement:
        if element.text == "b":
            raise ValueError
        return element

    stages: dict[str, Stage] = {
        "plain": MapStage("s", lambda e: e),
        "async": MapStage("s", aslow),
        "flat": FlatMapStage("s", lambda e: [e, e]),
        "concurrent": MapStage("s", aslow, concurrency=2),
        "policy": MapStage("s", fail, on_error="skip"),
    }
    pipeline = Pipeline.of(stages[shape], PassthroughStage("p"), config=PipelineConfig(metrics=metrics))
    execution = pipeline.execute(["a", "b", StreamElement.end_of_turn(), "c"])
    await execution
    stage = execution.metrics().stages["s"]
    emitted = {"flat": 6, "policy": 2}.get(shape, 3)
    assert (stage.received, stage.emitted, stage.errors) == (3, emitted, shape == "policy")
    assert execution.metrics().stages["p"].received == emitted
    if metrics:
        assert stage.p50 is not None
        assert stage.p99 is not None
        assert 0 <= stage.p50 <= stage.p99
    else:
        assert stage.p50 is None
        assert stage.p99 is None


@virtual
async def test_metrics_of_a_running_execution() -> None:
    """Metrics and statistics can be asked for at any time: before, while it runs, and after."""
    source: Subject[str] = Subject()
    execution = Pipeline.of(MapStage("s", never), config=PipelineConfig(buffer_size=2)).execute(source)
    assert execution.metrics().stages == {}
    assert execution.statistics().edges == {}
    async with execution:
        for text in "abcde":
            source.on_next(text)
            await asyncio.sleep(0.1)
        assert execution.metrics().stages["s"].received == 1
        edge = execution.statistics().edges["<input>", "s"]
        assert (edge.depth, edge.capacity, edge.waiting, edge.dropped) == (2, 2, True, 0)
    assert execution.metrics().stages["s"].received == 1
    edge = execution.statistics().edges["<input>", "s"]
    assert (edge.depth, edge.peak, edge.waiting) == (0, 2, False)


@virtual
async def test_several_subscribers_of_one_output() -> None:
    """A second subscriber of the output shares the execution from then on; it ends when the last one leaves."""
    source: Subject[str] = Subject()
    execution = Pipeline.of(MapStage("s", aslow)).execute(source)
    first, second = Observer(), Observer()
    one = execution.output.subscribe(first)
    source.on_next("a")
    await asyncio.sleep(1.0)
    two = execution.output.subscribe(second)
    source.on_next("b")
    await asyncio.sleep(1.0)
    one.dispose()
    source.on_next("c")
    await asyncio.sleep(1.0)
    assert execution.state == "running"
    two.dispose()
    await execution.closed()
    assert execution.state == "cancelled"
    assert not source.observers
    assert (texts(first.elements), texts(second.elements)) == (["a", "b"], ["b", "c"])
    late = Observer()
    execution.output.subscribe(late)
    assert late.elements == []


@virtual
async def test_a_failure_disposes_the_source_and_cancels_the_other_stages() -> None:
    """The first error cancels every other stage and disposes the source, at once."""
    log: list[str] = []

    async def fail(element: StreamElement) -> StreamElement:
        await asyncio.sleep(1.0)
        raise ValueError

    async def other(element: StreamElement) -> StreamElement:
        try:
            await asyncio.sleep(1000.0)
        except asyncio.CancelledError:
            log.append("other cancelled")
            raise
        return element

    pipeline = (
        PipelineBuilder()
        .add(PassthroughStage("in"))
        .branch("in", MapStage("bad", fail), MapStage("other", other))
        .build()
    )
    source: Subject[str] = Subject()
    execution = pipeline.execute(source)
    asyncio.get_running_loop().call_soon(source.on_next, "a")
    async with assert_no_leaks():
        with pytest.raises(StageError, match="'bad'"):
            await execution
    assert log == ["other cancelled"]
    assert not source.observers
    assert asyncio.get_running_loop().time() == pytest.approx(1.0)


def test_an_operator_that_cannot_be_built() -> None:
    """An operator that raises when it is applied, or gives no Observable, is a `StageError`."""

    def broken(source: Any) -> Any:
        raise KeyError("build")

    cases: list[tuple[Any, type[Exception]]] = [(broken, KeyError), (lambda source: 3, TypeError)]
    for operator, kind in cases:
        for form in FORMS.values():
            elements, error = form(Pipeline.of(OperatorStage("bad", operator)), ["a"])
            assert elements == []
            assert isinstance(error, StageError)
            assert isinstance(error.__cause__, kind)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("sent", ["x", StreamElement.interrupt()], ids=["element", "interrupt"])
def test_what_the_source_sends_before_it_ends_is_not_lost(kind: str, sent: Any) -> None:
    """What is sent from inside the source enters, even where the source ends at once."""

    async def main() -> list[str]:
        async def elements() -> AsyncIterator[Any]:
            execution.send(sent)
            yield "b"

        def plain() -> Iterator[Any]:
            execution.send(sent)
            yield "b"

        execution = Pipeline.of(PassthroughStage("p")).execute(elements() if kind == "async" else plain())
        return [element.text or type(element.content).__name__ async for element in execution]

    assert (sent if isinstance(sent, str) else "Interrupt") in run_virtual(main())
