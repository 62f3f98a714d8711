"""Pipelines: how many executions at once, shutdown, what is listed, nesting, and use as an operator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import reactivex as rx
from forms import WAIT, Observer, texts
from reactivex import operators as ops
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

from rxstage import (
    ExecutionCancelled,
    ExecutionTimeout,
    GraphError,
    MapStage,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineClosed,
    PipelineConfig,
    ShutdownTimeout,
    StageFunc,
    StageType,
    StreamElement,
    Text,
)
from rxstage.testing import assert_no_leaks, virtual

ONE = PipelineConfig(max_concurrent_executions=1)


async def slow(element: StreamElement) -> StreamElement:
    await asyncio.sleep(1.0)
    return element


async def never(element: StreamElement) -> StreamElement:
    await asyncio.Event().wait()
    return element


def limited(limit: int = 1) -> Pipeline:
    return Pipeline.of(MapStage("s", slow), config=PipelineConfig(max_concurrent_executions=limit))


# ------------------------------------------------------------------------------------------ how many at once


@pytest.mark.parametrize("limit", [1, 2, 5])
@virtual
async def test_a_further_execution_waits_for_its_turn(limit: int) -> None:
    """As many as `max_concurrent_executions` run at once; the others follow in order."""
    running = most = 0

    async def work(element: StreamElement) -> StreamElement:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1.0)
        running -= 1
        return element

    pipeline = Pipeline.of(MapStage("s", work), config=PipelineConfig(max_concurrent_executions=limit))
    async with assert_no_leaks():
        results = await asyncio.gather(*(pipeline.execute([str(number)]) for number in range(5)))
    assert [result.text for result in results] == [str(number) for number in range(5)]
    assert most == limit
    assert asyncio.get_running_loop().time() == pytest.approx(-(-5 // limit))


@virtual
async def test_states_of_one_that_waits() -> None:
    """One that waits says so, is listed, and takes what is sent for later."""
    pipeline = limited()
    first, second = pipeline.execute(["a"]), pipeline.execute(["c"])
    one, two = aiter(first), aiter(second)
    assert (first.state, second.state) == ("running", "waiting")
    assert pipeline.executions == (first, second)
    second.send("b")
    assert [element.text async for element in one] == ["a"]
    await first.closed()
    assert second.state == "running"
    assert [element.text async for element in two] == ["b", "c"]
    await second.closed()
    assert not pipeline.executions


@pytest.mark.parametrize("taken", ["async for", "await", "output", "operator", "drain", "async with"])
@virtual
async def test_cancelled_while_it_waits(taken: str) -> None:
    """One that is cancelled while it waits ends, its source untouched, and the next has its turn."""
    touched: list[str] = []

    def source() -> Any:
        touched.append("source")
        yield "x"

    pipeline = limited()
    async with assert_no_leaks():
        first, third = pipeline.execute(["a"]), pipeline.execute(["c"])
        one = asyncio.ensure_future(first._wait_result())
        await asyncio.sleep(0.1)
        observer = Observer()
        if taken == "operator":
            rx.defer(lambda _: rx.from_iterable(source())).pipe(pipeline).subscribe(observer)
            second = pipeline.executions[-1]
        else:
            second = pipeline.execute(source())
        waiting: Any = None
        if taken == "output":
            second.output.subscribe(observer)
        elif taken == "async with":
            await second.__aenter__()
        elif taken != "operator":
            waiting = asyncio.ensure_future(second._wait_result() if taken != "async for" else anext(aiter(second)))
            await asyncio.sleep(0)
        three = asyncio.ensure_future(third._wait_result())
        await asyncio.sleep(0)
        assert second.state == "waiting"
        if taken == "drain":
            await second.drain()
        elif taken == "async with":
            await second.__aexit__(None, None, None)
        else:
            second.cancel()
        assert second.state == "cancelled"
        assert second not in pipeline.executions
        if taken in ("output", "operator"):
            assert isinstance((await observer.wait()).error, ExecutionCancelled)
        elif waiting is not None:
            with pytest.raises(ExecutionCancelled):
                await waiting
        assert (await one).text == "a"
        assert (await three).text == "c"
    assert not touched
    assert not pipeline.executions


@virtual
async def test_a_disposed_subscription_gives_its_turn_up() -> None:
    """Disposing a subscription that waits for its turn gives it up, without a terminal."""
    pipeline = limited()
    observer = Observer()
    async with assert_no_leaks():
        first = asyncio.ensure_future(pipeline.execute(["a"])._wait_result())
        await asyncio.sleep(0.1)
        rx.of("b").pipe(pipeline).subscribe(observer).dispose()
        assert len(pipeline.executions) == 1
        await first
    assert observer.ends == []


@pytest.mark.parametrize("asynchronous", [True, False])
def test_turns_without_a_loop(asynchronous: bool) -> None:
    """Without a loop, a subscription that waits neither blocks its caller nor is forgotten."""
    stage = MapStage("s", quick if asynchronous else lambda e: e)
    pipeline = Pipeline.of(stage, config=ONE)
    with assert_no_leaks():
        source: Subject[str] = Subject()
        first, second = Observer(), Observer()
        source.pipe(pipeline).subscribe(first)
        rx.from_iterable(["b"] * 100).pipe(pipeline).subscribe(second)
        assert [execution.state for execution in pipeline.executions] == ["running", "waiting"]
        source.on_next("a")
        assert second.elements == []
        source.on_completed()
        assert first.ended.wait(WAIT)
        assert second.ended.wait(WAIT)
    assert first.outcome().texts == ["a"]
    assert second.outcome().texts == ["b"] * 100


async def quick(element: StreamElement) -> StreamElement:
    await asyncio.sleep(0)
    return element


@pytest.mark.parametrize("asynchronous", [True, False])
def test_runs_take_turns(asynchronous: bool) -> None:
    """`run` in several threads: each has its turn, and one that is cancelled while it waits returns."""
    gate, inside = threading.Event(), threading.Event()

    def hold(element: StreamElement) -> StreamElement:
        inside.set()
        assert gate.wait(WAIT)
        return element

    stage = MapStage("s", hold, blocking=asynchronous)
    pipeline = Pipeline.of(stage, config=ONE)
    results: dict[str, Any] = {}
    threads = {
        name: threading.Thread(target=lambda n=name: results.setdefault(n, pipeline.run([n], raise_on_error=False)))
        for name in "abc"
    }
    with assert_no_leaks():
        threads["a"].start()
        assert inside.wait(WAIT)
        waiting = threading.Event()
        for name in "bc":
            threads[name].start()
        while len(pipeline.executions) < 3:
            waiting.wait(0.001)
        second = pipeline.executions[1]
        while second.state != "waiting":
            waiting.wait(0.001)
        second.cancel()
        while len(pipeline.executions) > 2:
            waiting.wait(0.001)
        gate.set()
        for thread in threads.values():
            thread.join(WAIT)
            assert not thread.is_alive()
    errors = [type(result.error) for result in results.values() if result.error is not None]
    assert errors == [ExecutionCancelled]
    assert sum(result.text != "" for result in results.values()) == 2


def test_a_run_gives_up_waiting_for_its_turn() -> None:
    """`run(timeout=...)` that never has its turn raises, and leaves nothing in the queue."""
    pipeline = Pipeline.of(PassthroughStage("p"), config=ONE.with_(shutdown_timeout=0.1))
    source: Subject[str] = Subject()
    observer = Observer()
    source.pipe(pipeline).subscribe(observer)
    with assert_no_leaks(), pytest.raises((ExecutionTimeout, ExecutionCancelled)):
        pipeline.run(["a"], timeout=0.05)
    assert len(pipeline.executions) == 1
    source.on_completed()
    assert pipeline.run(["b"]).text == "b"


# ------------------------------------------------------------------------------------------ shutdown


@virtual
async def test_shutdown_drains() -> None:
    """`shutdown` refuses new executions and lets the live ones drain."""
    pipeline = Pipeline.of(MapStage("s", slow))
    async with assert_no_leaks():
        source: Subject[str] = Subject()
        observer = Observer()
        source.pipe(pipeline).subscribe(observer)
        source.on_next("a")
        source.on_next("b")
        unopened = pipeline.execute(["c"])
        await pipeline.shutdown()
        assert observer.outcome().texts == ["a", "b"]
        assert observer.outcome().error is None
    for start in (
        lambda: pipeline.execute(["x"]),
        lambda: pipeline.run(["x"]),
        lambda: pipeline.execute_sync("x"),
    ):
        with pytest.raises(PipelineClosed, match="is shut down"):
            start()
    with pytest.raises(PipelineClosed):
        await unopened
    late = Observer()
    rx.of("x").pipe(pipeline).subscribe(late)
    assert isinstance(late.outcome().error, PipelineClosed)
    await pipeline.shutdown()


@virtual
async def test_shutdown_names_what_was_left() -> None:
    """`ShutdownTimeout` names the executions and stages that did not drain; they are cancelled."""
    pipeline = Pipeline.of(MapStage("good", slow), MapStage("stuck", never))
    async with assert_no_leaks():
        executions = [pipeline.execute(rx.concat(rx.of("a"), rx.never())) for _ in range(2)]
        for execution in executions:
            execution.output.subscribe(lambda _: None, lambda _: None)
        await asyncio.sleep(2.0)
        with pytest.raises(ShutdownTimeout, match=r"did not shut down within 3\.0 s") as caught:
            await pipeline.shutdown(3.0)
        assert asyncio.get_running_loop().time() == pytest.approx(5.0)
        assert len(caught.value.left) == 2
        for execution, left in zip(executions, caught.value.left, strict=True):
            assert execution.id in left
            assert "stage 'stuck'" in left
            assert "good" not in left
            await execution.closed()
            assert execution.state == "cancelled"


@virtual
async def test_shutdown_cancels_what_waits() -> None:
    """An execution that waits for its turn is cancelled."""
    pipeline = limited()
    async with assert_no_leaks():
        first = asyncio.ensure_future(pipeline.execute(["a"])._wait_result())
        second = asyncio.ensure_future(pipeline.execute(["b"], raise_on_error=False)._wait_result())
        await asyncio.sleep(0.1)
        await pipeline.shutdown()
        assert (await first).text == "a"
        assert isinstance((await second).error, ExecutionCancelled)


@virtual
async def test_shutdown_of_inline_executions() -> None:
    """Executions in operator form are drained, too: their observers complete."""
    pipeline = Pipeline.of(PassthroughStage("p"))
    source: Subject[str] = Subject()
    observer = Observer()
    source.pipe(pipeline).subscribe(observer)
    source.on_next("a")
    await pipeline.shutdown()
    assert observer.outcome().texts == ["a"]
    assert not source.observers


@virtual
async def test_shutdown_leaves_nested_ones_to_their_parent() -> None:
    """Shutting a nested pipeline object down does not concern the executions of the outer one."""
    inner = Pipeline.of(MapStage("s", slow), name="inner")
    outer = Pipeline.of(inner)
    waiting = asyncio.ensure_future(outer.execute(["a"])._wait_result())
    await asyncio.sleep(0.1)
    await inner.shutdown()
    assert (await waiting).text == "a"
    assert (await outer.execute(["b"])).text == "b"


# ------------------------------------------------------------------------------------------ what is listed


@virtual
async def test_executions_are_listed() -> None:
    """Live executions are listed, those in operator form too, until they end."""
    pipeline = Pipeline.of(MapStage("s", slow))
    quick_one = Pipeline.of(PassthroughStage("p"))
    assert not pipeline.executions
    source: Subject[str] = Subject()
    subscription = source.pipe(pipeline).subscribe(lambda _: None)
    inline = source.pipe(quick_one).subscribe(lambda _: None)
    execution = pipeline.execute(["a"])
    assert len(pipeline.executions) == 1
    elements = aiter(execution)
    assert len(pipeline.executions) == 2
    assert execution in pipeline.executions
    assert len(quick_one.executions) == 1
    assert [element.text async for element in elements] == ["a"]
    await execution.closed()
    assert execution not in pipeline.executions
    subscription.dispose()
    inline.dispose()
    await asyncio.sleep(0.1)
    assert not pipeline.executions
    assert not quick_one.executions


@virtual
async def test_ids_are_unique() -> None:
    """Every execution has an id of its own."""
    pipeline = Pipeline.of(PassthroughStage("p"))
    assert len({pipeline.execute().id for _ in range(100)}) == 100


@virtual
async def test_events_of_all_executions() -> None:
    """`pipeline.events` has the events of all executions, in operator form too, and completes at shutdown."""
    pipeline = Pipeline.of(PassthroughStage("p"), name="named")
    events: list[Any] = []
    pipeline.events.subscribe(events.append, on_completed=lambda: events.append("|"))
    await pipeline.execute(["a"])
    pipeline.run(["a"])
    rx.of("a").pipe(pipeline).subscribe(lambda _: None)
    await pipeline.shutdown()
    assert events[-1] == "|"
    ids = list(dict.fromkeys(event.execution_id for event in events[:-1]))
    assert len(ids) == 3
    for each in ids:
        kinds = [event.type for event in events[:-1] if event.execution_id == each]
        assert kinds == ["pipeline.started", "stage.started", "stage.completed", "pipeline.completed"]
    assert {event.pipeline for event in events[:-1]} == {"named"}


# ------------------------------------------------------------------------------------------ as an operator


def test_pipeline_of_a_series() -> None:
    """`Pipeline.of(a >> b)` is the chain."""
    a, b = MapStage("a", str.upper, on=Text), MapStage("b", lambda t: t + "!", on=Text)
    pipeline = Pipeline.of(a >> b, name="series")
    assert pipeline.run(["x"]).text == "X!"
    assert tuple(pipeline.graph.nodes) == ("a", "b")
    assert pipeline.name == "series"
    with pytest.raises(GraphError, match="no stages"):
        Pipeline.of()


def test_cold_and_fresh() -> None:
    """In operator form it is cold, and every subscription is a fresh execution."""
    subscribed: list[str] = []

    def source(_: Any) -> rx.Observable[str]:
        subscribed.append("source")
        return rx.of("a", "b")

    out = rx.defer(source).pipe(Pipeline.of(OperatorStage("count", ops.map_indexed(lambda _, i: str(i)))))
    assert not subscribed
    for number in (1, 2):
        observer = Observer()
        out.subscribe(observer)
        assert observer.outcome().texts == ["0", "1"]
        assert len(subscribed) == number


@pytest.mark.parametrize("asynchronous", [True, False])
@virtual
async def test_a_pipeline_inside_an_operator_of_another(asynchronous: bool) -> None:
    """A pipeline piped inside an operator stage joins the loop of the outer execution and keeps its numbers."""
    inner = Pipeline.of(MapStage("s", slow if asynchronous else lambda e: e), name="inner")
    nested = OperatorStage("o", ops.flat_map(lambda e: rx.of(e).pipe(inner)))
    async with assert_no_leaks():
        result = await Pipeline.of(PassthroughStage("p"), nested).execute(["a", "b", "c"])
    assert sorted(texts(result.elements)) == ["a", "b", "c"]
    assert sorted(element.sequence for element in result.elements) == [1, 2, 3]
    assert not inner.executions


@pytest.mark.parametrize("asynchronous", [True, False])
@virtual
async def test_cancelling_the_outer_cancels_the_inner(asynchronous: bool) -> None:
    """Cancelling an execution cancels what its operators have subscribed to."""
    inner = Pipeline.of(MapStage("s", never if asynchronous else lambda e: e), name="inner")
    nested = OperatorStage("o", ops.flat_map(lambda e: rx.concat(rx.of(e), rx.never()).pipe(inner)))
    async with assert_no_leaks():
        async with Pipeline.of(nested).execute(["a", "b"]):
            await asyncio.sleep(1.0)
            assert len(inner.executions) == 2
        await asyncio.sleep(0.1)
        assert not inner.executions


def test_virtual_time_of_an_inline_pipeline() -> None:
    """Under a `TestScheduler` a graph without async stages runs in its time: 30 seconds cost nothing."""
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(
        ReactiveTest.on_next(210, "a"), ReactiveTest.on_next(220, "b"), ReactiveTest.on_completed(400)
    )
    pipeline = Pipeline.of(PassthroughStage("p"), OperatorStage("settle", ops.debounce(30.0)))
    messages: list[Any] = scheduler.start(lambda: source.pipe(pipeline)).messages
    assert [(message.time, message.value.kind) for message in messages] == [(250.0, "N"), (400.0, "C")]
    element = messages[0].value.value
    assert (element.text, element.timestamp) == ("b", 220.0)
    assert [(s.subscribe, s.unsubscribe) for s in source.subscriptions] == [(200.0, 400.0)]


def test_a_stage_is_an_operator() -> None:
    """Any stage can be piped into an Rx app; raw values become elements."""

    async def both(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield element

    make: list[Callable[[], Any]] = [
        lambda: MapStage("m", str.upper, on=Text),
        lambda: MapStage("m", lambda t: t.upper(), on=Text) >> PassthroughStage("p"),
        lambda: Pipeline.of(MapStage("m", str.upper, on=Text)),
        lambda: StageFunc("f", StageType.TRANSFORM, both) >> MapStage("m", str.upper, on=Text),
    ]
    for each in make:
        observer = Observer()
        rx.of("a", "b").pipe(each(), ops.map(lambda e: e)).subscribe(observer)
        assert observer.ended.wait(WAIT)
        assert observer.outcome().texts == ["A", "B"]
