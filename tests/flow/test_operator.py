"""Rx operators wired into an execution."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from reactivex.scheduler import NewThreadScheduler
from reactivex.subject import Subject

from rxstage import (
    EndOfTurn,
    Failure,
    MapStage,
    OperatorStage,
    Pipeline,
    PipelineConfig,
    SinkStage,
    StageError,
    StreamElement,
    Text,
)
from rxstage.flow.operator import ExecutionScheduler
from rxstage.testing import SinkProbe, assert_no_leaks, elements_from, run_marbles, settle, virtual

WAIT = 20.0


def shown(elements: Any) -> list[Any]:
    return [type(e.content).__name__ if e.is_control else e.payload for e in elements]


async def same(text: str) -> str:
    return text


def divide(_: Any) -> None:
    raise ZeroDivisionError


SAME = MapStage("same", same, on=Text)


@virtual
async def test_on_a_loop() -> None:
    """In an execution on a loop: elements, controls round it in their place, the end, nothing left."""
    async with assert_no_leaks():
        pipeline = Pipeline.of(SAME, OperatorStage("o", ops.map(lambda e: e.text * 2)))
        result = await pipeline.execute(["a", StreamElement.end_of_turn(), "b"])
    assert shown(result.elements) == ["aa", "EndOfTurn", "bb"]
    assert result.metrics.stages["o"].received == 2
    assert result.metrics.stages["o"].emitted == 2


@virtual
async def test_time_is_the_execution_s() -> None:
    """Timed operators take the loop's clock, also where an operator makes inner sources."""
    stage = OperatorStage("o", ops.flat_map(lambda e: rx.timer(100.0).pipe(ops.map(lambda _: e.text))))
    result = await Pipeline.of(SAME, stage).execute(["a", "b"])
    assert shown(result.elements) == ["a", "b"]
    assert asyncio.get_running_loop().time() == pytest.approx(100.0)


@virtual
async def test_end_of_its_own() -> None:
    """An operator that completes by itself ends the execution, and its source is released."""
    async with assert_no_leaks():
        result = await Pipeline.of(SAME, OperatorStage("take", ops.take(2))).execute(iter("abcdef"))
    assert result.text == "ab"


@virtual
async def test_never_ends() -> None:
    """An operator that emits on its own can be cancelled; its subscription is disposed of, once."""
    disposed: list[int] = []

    def ticking(source: Observable[Any]) -> Observable[Any]:
        return rx.merge(source, rx.interval(1.0)).pipe(ops.finally_action(lambda: disposed.append(1)))

    async with assert_no_leaks(), Pipeline.of(SAME, OperatorStage("o", ticking)).execute(["x"]) as execution:
        await SinkProbe(execution).expect("x", 0, 1, 2)
    assert disposed == [1]


@virtual
async def test_errors() -> None:
    """A raising callback names its operator and the element; on_error comes with its cause; a timer's error, too."""
    cases: list[tuple[Any, bool]] = [
        (ops.do_action(divide), False),
        (ops.flat_map(lambda e: rx.throw(ZeroDivisionError())), False),
        (ops.flat_map(lambda e: rx.timer(5.0).pipe(ops.map(lambda _: 1 / 0))), False),
    ]
    for operator, _ in cases:
        async with assert_no_leaks():
            with pytest.raises(StageError) as caught:
                await Pipeline.of(SAME, OperatorStage("bad", operator)).execute(["a"])
        assert caught.value.stage == "bad"
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


@virtual
async def test_error_behind_is_not_blamed_on_it() -> None:
    """STYLE 4: what raises behind an operator is the error of the stage behind, also from a timer."""
    for operator in (ops.map(lambda e: e), ops.delay(5.0), ops.flat_map(lambda e: rx.of(e))):
        with pytest.raises(StageError) as caught:
            await Pipeline.of(SAME, OperatorStage("o", operator), MapStage("bad", lambda e: 1 / 0)).execute(["a"])
        assert caught.value.stage == "bad", operator


@virtual
async def test_error_behind_that_the_operator_catches() -> None:
    """An operator that catches what is raised behind it, or tries again, does not hide it."""
    for operator in (ops.flat_map(lambda e: rx.of(e).pipe(ops.catch(rx.empty()))), ops.retry(3)):
        calls: list[str] = []

        def bad(element: StreamElement, calls: list[str] = calls) -> Any:
            calls.append(element.text or "")
            raise ValueError("behind")

        with pytest.raises(StageError) as caught:
            await Pipeline.of(SAME, OperatorStage("o", operator), MapStage("bad", bad)).execute(["a", "b"])
        assert caught.value.stage == "bad"
        assert calls == ["a"]


@virtual
async def test_dates() -> None:
    """Operators that compare dates go by the loop's clock; wall-clock dates that users name are near it."""
    stage = OperatorStage("o", ops.timestamp(), ops.map(lambda t: (t.value.text, t.timestamp)))
    result = await Pipeline.of(SAME, OperatorStage("d", ops.delay(3600.0)), stage).execute(["a"])
    assert asyncio.get_running_loop().time() == pytest.approx(3600.0)
    ((text, date),) = (e.data for e in result.elements)
    assert text == "a"
    assert abs(date - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=5)


def test_error_behind_inline() -> None:
    """The same inline; what the subscriber himself raises is nobody's stage."""
    pipeline = Pipeline.of(OperatorStage("o", ops.map(lambda e: e)), MapStage("bad", lambda e: 1 / 0))
    errors: list[Exception] = []
    rx.of("a").pipe(pipeline).subscribe(on_error=errors.append)
    assert [error.stage for error in errors if isinstance(error, StageError)] == ["bad"]


def test_consumer_raises_inline() -> None:
    """CASE 7: what the subscriber himself raises is nobody's stage, and comes back to him."""

    def raising(element: StreamElement) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        rx.of("a").pipe(Pipeline.of(OperatorStage("o", ops.map(lambda e: e)))).subscribe(raising)


@virtual
async def test_from_another_thread() -> None:
    """An operator that emits on a thread of its own comes back to the loop, elements, end and errors."""
    main = threading.get_ident()
    threads: set[int] = set()
    note = SinkStage("note", lambda e: threads.add(threading.get_ident()))
    hop = OperatorStage("hop", ops.observe_on(NewThreadScheduler()))
    result = await Pipeline.of(SAME, hop, MapStage("m", lambda e: e)).execute(list("abc"))
    assert result.text == "abc"
    await Pipeline.of(SAME, hop, note).execute(list("abc"))
    assert threads == {main}
    bad = OperatorStage("bad", ops.observe_on(NewThreadScheduler()), ops.map(lambda e: 1 / 0))
    with pytest.raises(StageError) as caught:
        await Pipeline.of(SAME, bad).execute(["a"])
    assert caught.value.stage == "bad"


def test_threads_inline() -> None:
    """Inline, operators that emit from several threads are serialised."""
    inside, most = 0, 0
    lock = threading.Lock()
    ended = threading.Event()
    seen: list[Any] = []

    def work(element: StreamElement) -> StreamElement:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        result = element.replace(metadata={"seen": True})
        with lock:
            inside -= 1
        return result

    spread = OperatorStage("o", ops.flat_map(lambda e: rx.from_iterable([e], scheduler=NewThreadScheduler())))
    rx.from_iterable(range(50)).pipe(Pipeline.of(spread, MapStage("w", work))).subscribe(
        lambda e: seen.append(e.data), on_completed=ended.set
    )
    assert ended.wait(WAIT)
    assert sorted(seen) == list(range(50))
    assert most == 1


@virtual
async def test_seen_controls() -> None:
    """With `sees_controls` the operator decides about them; those that it makes are marked and leave once."""

    def turns(source: Observable[Any]) -> Observable[Any]:
        return source.pipe(
            ops.flat_map(lambda e: rx.of(e, EndOfTurn()) if not e.is_control else rx.empty()),
        )

    stage = OperatorStage("o", turns, sees_controls=True)
    result = await Pipeline.of(SAME, stage).execute(["a", StreamElement.of(ValueError("x")), "b"])
    assert shown(result.elements) == ["a", "EndOfTurn", "b", "EndOfTurn"]


def test_end_of_stream_from_an_operator() -> None:
    """An EndOfStream that it emits ends the input; a raw exception becomes a Failure."""
    stage = OperatorStage("o", ops.map(lambda e: StreamElement.end_of_stream() if e.text == "c" else e))
    assert Pipeline.of(stage).run(list("abcd")).text == "ab"
    result = Pipeline.of(OperatorStage("o", ops.map(lambda e: ValueError("x")))).run(["a"])
    assert isinstance(result.elements[0].content, Failure)


@virtual
async def test_valve_reaches_through() -> None:
    """A full buffer behind an operator slows the source before it."""
    pulled = 0

    def source() -> Any:
        nonlocal pulled
        for n in range(1000):
            pulled += 1
            yield str(n)

    pipeline = Pipeline.of(OperatorStage("o", ops.map(lambda e: e)), SAME, config=PipelineConfig(buffer_size=4))
    async with pipeline.execute(source()) as execution:
        await SinkProbe(execution).expect("0", "1")
        await settle()
        assert pulled <= 2 + 3 * 4


@virtual
async def test_nested_pipeline_joins_the_loop() -> None:
    """A pipeline that is subscribed inside an operator lives on the same loop and clock."""
    inner = Pipeline.of(MapStage("inner", same, on=Text), OperatorStage("d", ops.delay(10.0)))
    stage = OperatorStage("o", ops.flat_map(lambda e: rx.of(e).pipe(inner)))
    async with assert_no_leaks():
        result = await Pipeline.of(SAME, stage).execute(["a", "b"])
    assert sorted(result.text) == ["a", "b"]
    assert asyncio.get_running_loop().time() == pytest.approx(10.0)


@virtual
async def test_scheduler() -> None:
    """Immediate work is done at once on the trampoline, timed work on the loop; it knows its execution."""
    seen: list[ExecutionScheduler] = []

    def build(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: Any, scheduler: Any = None) -> Any:
            seen.append(scheduler)
            return source.subscribe(observer, scheduler=scheduler)

        return Observable(subscribe)

    execution = Pipeline.of(SAME, OperatorStage("o", build)).execute(["a"])
    assert (await execution).text == "a"
    (scheduler,) = seen
    assert isinstance(scheduler, ExecutionScheduler)
    assert scheduler.scope.execution_id == execution.id
    done: list[str] = []
    scheduler.schedule(lambda *_: done.append("now"))
    assert done == ["now"]


def test_subscribed_late_and_twice() -> None:
    """An operator may subscribe to its source several times, or only after it has ended."""
    twice = OperatorStage("o", lambda source: rx.merge(source, source))
    assert Pipeline.of(twice).run(list("ab")).text == "aabb"
    late: Subject[Any] = Subject()
    after = OperatorStage("o", lambda source: rx.concat(source, source))
    assert Pipeline.of(after).run(list("ab")).text == "ab"
    assert not late.observers


def test_under_test_scheduler() -> None:
    """Inline it takes the scheduler of the subscription."""
    stage = OperatorStage("o", ops.delay(3.0))
    assert run_marbles(stage, "a-b|") == "---a-b|"
    assert run_marbles(stage, "a-#") == "a-#".replace("a-", "--")
    seen: list[Any] = []
    elements_from("a|", timespan=0.001).pipe(stage).subscribe(seen.append).dispose()
    assert seen == []
