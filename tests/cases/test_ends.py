"""CASES 18-24: how an execution ends, and what is left then."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import reactivex as rx
from forms import FORMS, WAIT, Form, Observer, cause, observable, texts
from reactivex import operators as ops
from reactivex.subject import Subject

from rxstage import (
    Data,
    Event,
    Execution,
    ExecutionCancelled,
    ExecutionTimeout,
    FlatMapStage,
    IdleTimeout,
    MapStage,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineConfig,
    ShutdownTimeout,
    SinkStage,
    Stage,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
    Text,
)
from rxstage.testing import assert_no_leaks, run_virtual, virtual

forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


async def same(element: StreamElement) -> StreamElement:
    await asyncio.sleep(0.001)
    return element


async def each(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    async for element in elements:
        yield element


async def never(element: StreamElement) -> StreamElement:
    await asyncio.Event().wait()
    return element


@forms
def test_18_complete_while_full(form: Form) -> None:
    """CASE 18: the source completes while all buffers are full: everything is delivered, then the completion."""
    pipeline = Pipeline.of(MapStage("a", same), MapStage("b", same), config=PipelineConfig(buffer_size=2))
    elements, error = form(pipeline, [str(number) for number in range(9)])
    assert error is None
    assert texts(elements) == [str(number) for number in range(9)]


@virtual
async def test_18_error_while_full() -> None:
    """CASE 18: an error while the buffers are full: what has left the last stage is delivered, the rest is not."""

    async def fail_on_five(element: StreamElement) -> StreamElement:
        if element.text == "5":
            raise ValueError("five")
        return element

    pipeline = Pipeline.of(
        MapStage("a", fail_on_five), MapStage("b", same, concurrency=2), config=PipelineConfig(buffer_size=4)
    )
    execution = pipeline.execute([str(number) for number in range(9)])
    seen: list[str | None] = []
    with pytest.raises(StageError, match=r"'a'.*five"):  # noqa: PT012
        async for element in execution:
            seen.append(element.text)
            await asyncio.sleep(1.0)
    left = execution.metrics().stages["b"].emitted
    assert seen == [str(number) for number in range(left)]
    assert all(edge.depth == 0 for edge in execution.statistics().edges.values())


class Payload:
    """Something that a weak reference can be made to."""


def graphs() -> dict[str, Callable[[], Pipeline]]:
    config = PipelineConfig(buffer_size=3)

    def diamond() -> Pipeline:
        return (
            PipelineBuilder(config)
            .add(PassthroughStage("in"))
            .branch("in", MapStage("a", same), MapStage("b", never))
            .merge("a", "b", into=MapStage("out", same))
            .build()
        )

    return {
        "plain": lambda: Pipeline.of(PassthroughStage("p"), config=config),
        "async": lambda: Pipeline.of(MapStage("a", same), MapStage("n", never), config=config),
        "concurrent": lambda: Pipeline.of(MapStage("n", never, concurrency=3), config=config),
        "interruptible": lambda: Pipeline.of(MapStage("n", never, interruptible=True), config=config),
        "stream": lambda: Pipeline.of(StageFunc("s", StageType.TRANSFORM, each), config=config),
        "operator": lambda: Pipeline.of(OperatorStage("o", ops.delay(1000.0)), MapStage("a", same), config=config),
        "flat": lambda: Pipeline.of(FlatMapStage("f", lambda e: [e] * 5), MapStage("n", never), config=config),
        "diamond": diamond,
    }


@pytest.mark.parametrize("taken", ["async for", "output", "operator", "async with", "await"])
@pytest.mark.parametrize("graph", graphs().keys())
@virtual
async def test_19_dispose_with_full_buffers(graph: str, taken: str) -> None:
    """CASE 19: stopped with full buffers, the source is closed once, and no task, thread or reference is left."""
    pipeline = graphs()[graph]()
    made: list[weakref.ref[Payload]] = []
    closed: list[str] = []

    def source() -> Any:
        try:
            while graph != "operator" or len(made) < 50:  # nothing bounds what `ops.delay` holds
                payload = Payload()
                made.append(weakref.ref(payload))
                yield Data(payload)
                del payload
        finally:
            closed.append("source")

    async with assert_no_leaks():
        execution = pipeline.execute(source() if taken != "operator" else rx.never())
        if taken == "async for":
            elements = aiter(execution)
            await asyncio.sleep(1.0)
            del elements
        elif taken == "async with":
            async with execution:
                await asyncio.sleep(1.0)
        elif taken == "await":
            waiting = asyncio.ensure_future(execution._wait_result())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            del waiting
        else:
            subject: Subject[Any] = Subject()
            if taken == "operator":
                subscription = subject.pipe(pipeline).subscribe(lambda _: None)
                (execution,) = pipeline.executions
                for _ in range(20):
                    payload = Payload()
                    made.append(weakref.ref(payload))
                    subject.on_next(Data(payload))
                    del payload
            else:
                subscription = execution.output.subscribe(lambda _: None)
            await asyncio.sleep(1.0 if graph not in ("plain", "stream") else 0)
            subscription.dispose()
            if taken == "operator":
                assert not subject.observers
                closed.append("source")
        await execution.closed()
    assert closed == ["source"]
    assert execution.state == "cancelled"
    assert made
    gc.collect()
    if taken == "await":
        made.clear()  # what came out before is in the result
    assert [ref() for ref in made if ref() is not None] == []


@pytest.mark.parametrize("on_a_loop", [True, False])
@pytest.mark.parametrize("asynchronous", [True, False])
def test_19_dispose_from_inside_a_handler(asynchronous: bool, on_a_loop: bool) -> None:
    """CASE 19: dispose from inside a handler: nothing comes after it."""
    pipeline = Pipeline.of(MapStage("s", same if asynchronous else lambda e: e))

    async def on_loop() -> list[str | None]:
        async with assert_no_leaks():
            seen = start()
            await asyncio.sleep(1.0)
        return seen

    done = threading.Event()

    def start() -> list[str | None]:
        seen: list[str | None] = []
        source: Subject[str] = Subject()

        def on_next(element: StreamElement) -> None:
            seen.append(element.text)
            if element.text == "b":
                subscription.dispose()
                done.set()

        subscription = source.pipe(pipeline).subscribe(on_next, lambda e: seen.append("#"), lambda: seen.append("|"))
        for text in "abc":
            source.on_next(text)
        return seen

    if on_a_loop:
        seen = run_virtual(on_loop())
    else:
        with assert_no_leaks():
            seen = start()
            assert done.wait(WAIT)
    assert seen == ["a", "b"]


@forms
def test_19_dispose_twice_and_after_the_end(form: Form) -> None:
    """CASE 19: disposing twice, or after the end, does nothing."""
    pipeline = Pipeline.of(MapStage("s", same))

    async def main() -> None:
        async with assert_no_leaks():
            observer = Observer()
            subscription = rx.of("a").pipe(pipeline).subscribe(observer)
            outcome = await observer.wait()
            subscription.dispose()
            subscription.dispose()
            execution = pipeline.execute(["a"])
            assert (await execution).text == "a"
            execution.cancel()
            execution.cancel()
            await asyncio.sleep(1.0)
            assert execution.state == "completed"
        assert texts(outcome.elements) == ["a"]

    run_virtual(main())
    assert form(pipeline, ["b"]).texts == ["b"]


@pytest.mark.parametrize("graph", ["plain", "async", "stream", "operator"])
@pytest.mark.parametrize("source_kind", ["async", "generator", "endless observable"])
@virtual
async def test_20_take_one(graph: str, source_kind: str) -> None:
    """CASE 20: `take(1)` behind the pipeline cancels what is before it; an async source is aclosed."""
    stage: Stage = {
        "plain": PassthroughStage("p"),
        "async": MapStage("p", same),
        "stream": StageFunc("p", StageType.TRANSFORM, each),
        "operator": OperatorStage("p", ops.map(lambda e: e)),
    }[graph]
    closed: list[str] = []

    async def asource() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
        finally:
            await asyncio.sleep(0.5)
            closed.append("aclosed")

    def gsource() -> Any:
        try:
            while True:
                yield "x"
        finally:
            closed.append("closed")

    async with assert_no_leaks():
        observer = Observer()
        if source_kind == "endless observable":
            endless = rx.interval(0.1).pipe(ops.map(str), ops.finally_action(lambda: closed.append("disposed")))
            out = endless.pipe(Pipeline.of(stage))
        else:
            out = Pipeline.of(stage).execute(asource() if source_kind == "async" else gsource()).output
        out.pipe(ops.take(1)).subscribe(observer)
        outcome = await observer.wait()
        for _ in range(100):
            await asyncio.sleep(0.1)
    assert len(outcome.elements) == 1
    assert outcome.error is None
    assert len(closed) == 1


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("source_kind", ["iterable", "observable"])
def test_20_take_one_without_a_loop(source_kind: str, asynchronous: bool) -> None:
    """CASE 20: the same without a loop, of a source without end."""
    closed = threading.Event()

    def source() -> Any:
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    pipeline = Pipeline.of(MapStage("s", same if asynchronous else lambda e: e))
    with assert_no_leaks():
        observer = Observer()
        if source_kind == "iterable":
            out = pipeline.execute(source()).output
        else:
            out = observable(source()).pipe(ops.finally_action(closed.set), pipeline)
        out.pipe(ops.take(1)).subscribe(observer)
        assert observer.ended.wait(WAIT)
        assert closed.wait(WAIT)
    assert texts(observer.outcome().elements) == ["x"]


@pytest.mark.parametrize("how", ["cancel", "idle_timeout", "execution_timeout"])
@pytest.mark.parametrize("graph", graphs().keys())
@pytest.mark.parametrize("taken", ["async for", "await", "output"])
@virtual
async def test_21_an_idle_execution(graph: str, how: str, taken: str) -> None:
    """CASE 21: with its input open and nothing moving, each of cancel and the two timeouts ends it."""
    pipeline = graphs()[graph]()
    if how != "cancel":
        graph_config = pipeline.config.with_(**{how: 5.0})
        pipeline = Pipeline(type(pipeline.graph)("t", pipeline.graph.stages, pipeline.graph.edges, graph_config))
    expected = {"cancel": ExecutionCancelled, "idle_timeout": IdleTimeout, "execution_timeout": ExecutionTimeout}[how]
    loop = asyncio.get_running_loop()
    async with assert_no_leaks():
        source: Subject[str] = Subject()
        execution = pipeline.execute(source)
        if how == "cancel":
            loop.call_later(5.0, execution.cancel)
        loop.call_soon(lambda: source.on_next("a"))
        begin = loop.time()
        if taken == "output":
            observer = Observer()
            execution.output.subscribe(observer)
            error = (await observer.wait()).error
        else:
            with pytest.raises(expected) as caught:  # noqa: PT012
                if taken == "await":
                    await execution
                else:
                    async for _ in execution:
                        pass
            error = caught.value
    assert isinstance(error, expected)
    assert 4.99 <= loop.time() - begin <= 6.5
    assert not source.observers


@forms
@pytest.mark.parametrize("asynchronous", [True, False])
def test_22_raises_without_emitting(form: Form, asynchronous: bool) -> None:
    """CASE 22: a stage that raises before it emits anything: the caller sees it, and both events carry it."""

    async def afail(element: StreamElement) -> StreamElement:
        raise LookupError("nothing")

    def fail(element: StreamElement) -> StreamElement:
        raise LookupError("nothing")

    pipeline = Pipeline.of(MapStage("bad", afail if asynchronous else fail))
    events: list[Event] = []
    pipeline.events.subscribe(events.append)
    elements, error = form(pipeline, ["a", "b"])
    assert elements == []
    assert isinstance(cause(error), LookupError)
    failed = {event.type: event for event in events}
    assert isinstance(failed["stage.failed"].error, LookupError)
    assert failed["stage.failed"].stage == "bad"
    assert failed["pipeline.failed"].error is error
    assert "pipeline.completed" not in failed


@virtual
async def test_22_from_drain_and_closed() -> None:
    """CASE 22: the failure is in the execution too, for who only waits for the end."""

    async def fail(element: StreamElement) -> StreamElement:
        raise LookupError("nothing")

    execution = Pipeline.of(MapStage("bad", fail)).execute(["a"])
    execution.output.subscribe(lambda _: None, lambda _: None)
    await execution.closed()
    assert execution.state == "failed"
    assert isinstance(cause(execution.error), LookupError)


async def _stubborn(element: StreamElement) -> StreamElement:
    """Ignores its cancellation for five seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 5.0
    while loop.time() < end:
        try:
            await asyncio.sleep(end - loop.time())
        except asyncio.CancelledError:
            pass
    return element


@virtual
async def test_23_shutdown_names_what_ignores_it() -> None:
    """CASE 23: a stage ignores cancellation for five seconds: shutdown returns at its timeout and names it."""
    loop = asyncio.get_running_loop()
    pipeline = Pipeline.of(MapStage("stubborn", _stubborn), config=PipelineConfig(shutdown_timeout=2.0))
    async with assert_no_leaks():
        execution = pipeline.execute(["a"])
        execution.output.subscribe(lambda _: None, lambda _: None)
        await asyncio.sleep(0.1)
        begin = loop.time()
        with pytest.raises(ShutdownTimeout, match="stubborn") as caught:
            await pipeline.shutdown(1.0)
        assert loop.time() - begin == pytest.approx(1.0)
        assert "stubborn" in " ".join(caught.value.left)
        await execution.closed()
        assert loop.time() - begin == pytest.approx(3.0)
        await asyncio.sleep(5.0)


@virtual
async def test_23_cancel_is_bounded_too() -> None:
    """CASE 23: cancel waits for it for `shutdown_timeout` at most; the result says what was left behind."""
    loop = asyncio.get_running_loop()
    pipeline = Pipeline.of(MapStage("stubborn", _stubborn), config=PipelineConfig(shutdown_timeout=2.0))
    async with assert_no_leaks():
        async with pipeline.execute(["a"]) as execution:
            await asyncio.sleep(0.1)
        assert loop.time() == pytest.approx(2.1)
        assert execution.done
        await asyncio.sleep(5.0)


@forms
@pytest.mark.parametrize("graph", ["plain", "async", "diamond", "flat", "end of stream"])
def test_24_totals(form: Form, graph: str) -> None:
    """CASE 24: the completed event, the metrics and the stages' events carry the true totals."""
    turn = StreamElement.end_of_turn()
    items: list[Any] = ["a", "b", turn, "c"]
    out = 4
    builder = PipelineBuilder()
    if graph == "diamond":
        builder.add(PassthroughStage("in")).branch("in", MapStage("x", same), PassthroughStage("y"))
        builder.merge("x", "y", into=PassthroughStage("out"))
        out = 7
    elif graph == "flat":
        builder.add(FlatMapStage("in", lambda e: [e, e]))
        out = 7
    else:
        builder.add(MapStage("in", same if graph == "async" else lambda e: e))
        if graph == "end of stream":
            items += [StreamElement.end_of_stream(), "late"]
    pipeline = builder.build()
    events: list[Any] = []
    pipeline.events.subscribe(events.append)
    elements, error = form(pipeline, items)
    assert error is None
    assert len(elements) == out
    by_type = {event.type: event for event in events}
    completed = by_type["pipeline.completed"]
    assert (completed.received, completed.emitted) == (4, out)
    assert completed.duration >= 0
    stage = next(event for event in events if event.type == "stage.completed" and event.stage == "in")
    assert (stage.received, stage.emitted, stage.errors) == (3, 6 if graph == "flat" else 3, 0)


@virtual
async def test_24_totals_of_sinks() -> None:
    """CASE 24: what goes into a sink is received, not emitted."""
    pipeline = Pipeline.of(MapStage("m", same), SinkStage("s", lambda e: None))
    events: list[Any] = []
    execution: Execution = pipeline.execute(["a", "b"])
    execution.events.subscribe(events.append)
    result = await execution
    assert result.elements == ()
    completed = events[-1]
    assert (completed.type, completed.received, completed.emitted) == ("pipeline.completed", 2, 0)
    assert (result.metrics.stages["s"].received, result.metrics.stages["s"].emitted) == (2, 0)


def test_text_is_used() -> None:
    """The payload form of the stages above, once."""
    assert Pipeline.of(MapStage("u", str.upper, on=Text)).execute_sync("a").text == "A"
