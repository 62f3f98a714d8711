"""Events: which, in what order, with what in them, on every ending; the bus; the logs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import reactivex as rx
from forms import FORMS, WAIT, Form
from reactivex.subject import Subject

from rxstage import (
    Event,
    EventBus,
    ExecutionCancelled,
    IdleTimeout,
    MapStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineCompleted,
    PipelineConfig,
    PipelineFailed,
    Retry,
    SinkStage,
    StageContext,
    StageError,
    StageFailed,
    StageFunc,
    StageType,
    StreamElement,
    disable_logging,
    enable_logging,
)
from rxstage.testing import assert_no_leaks, virtual

forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


async def slow(element: StreamElement) -> StreamElement:
    await asyncio.sleep(0.001)
    return element


def fail(element: StreamElement) -> StreamElement:
    raise ValueError("no")


async def afail(element: StreamElement) -> StreamElement:
    raise ValueError("no")


def listened(pipeline: Pipeline) -> list[Any]:
    events: list[Any] = []
    pipeline.events.subscribe(events.append)
    return events


def kinds(events: list[Any]) -> list[str]:
    return [f"{event.type}:{event.stage}" if event.stage else event.type for event in events]


@forms
@pytest.mark.parametrize("asynchronous", [True, False])
def test_completed(form: Form, asynchronous: bool) -> None:
    """Started first, then the stages, then their completion in order, and the pipeline's last."""
    work = slow if asynchronous else (lambda e: e)
    pipeline = Pipeline.of(MapStage("a", work), MapStage("b", work), SinkStage("c", lambda e: None), name="named")
    events = listened(pipeline)
    form(pipeline, ["x", "y"])
    assert kinds(events) == [
        "pipeline.started",
        "stage.started:a",
        "stage.started:b",
        "stage.started:c",
        "stage.completed:a",
        "stage.completed:b",
        "stage.completed:c",
        "pipeline.completed",
    ]
    ids = {event.execution_id for event in events}
    assert len(ids) == 1
    assert ids != {""}
    assert {event.pipeline for event in events} == {"named"}
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert all(isinstance(event, Event) for event in events)
    started, completed = events[3], events[6]
    assert started.stage_type is completed.stage_type is StageType.SINK
    assert started.duration is None
    assert completed.duration >= 0
    assert completed.error is None
    assert (completed.received, completed.emitted, completed.errors) == (2, 0, 0)
    assert events[-1].duration >= 0
    assert events[-1].error is None


@forms
@pytest.mark.parametrize("asynchronous", [True, False])
def test_failed(form: Form, asynchronous: bool) -> None:
    """A failing stage: `stage.failed` with what it raised, then `pipeline.failed` with the `StageError`."""
    pipeline = Pipeline.of(PassthroughStage("a"), MapStage("b", afail if asynchronous else fail))
    events = listened(pipeline)
    form(pipeline, ["x", "y"])
    assert kinds(events)[-2:] == ["stage.failed:b", "pipeline.failed"]
    stage, end = events[-2:]
    assert isinstance(stage, StageFailed)
    assert isinstance(stage.error, ValueError)
    assert stage.stage_type is StageType.TRANSFORM
    assert isinstance(end, PipelineFailed)
    assert isinstance(end.error, StageError)
    assert end.received >= 1
    assert end.emitted == 0
    assert "stage.completed:b" not in kinds(events)


@forms
def test_the_source_fails(form: Form) -> None:
    """A failing source is the pipeline's failure, not a stage's."""
    pipeline = Pipeline.of(PassthroughStage("a"))
    events = listened(pipeline)
    form(pipeline, rx.concat(rx.of("a"), rx.throw(KeyError("source"))))
    assert kinds(events) == ["pipeline.started", "stage.started:a", "pipeline.failed"]
    assert isinstance(events[-1].error, KeyError)


ENDINGS = {
    "completed": (None, "pipeline.completed"),
    "failed": (StageError, "pipeline.failed"),
    "cancelled": (ExecutionCancelled, "pipeline.cancelled"),
    "idle": (IdleTimeout, "pipeline.failed"),
    "unopened": (ExecutionCancelled, None),
    "drained": (None, "pipeline.completed"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@virtual
async def test_events_of_an_execution_complete_on_every_ending(ending: str) -> None:
    """`execution.events` is hot, and completes on every ending, after the last event."""
    work = afail if ending == "failed" else slow
    pipeline = Pipeline.of(MapStage("s", work), config=PipelineConfig(idle_timeout=5.0 if ending == "idle" else None))
    source: Any = ["a"] if ending in ("completed", "failed") else rx.never()
    execution = pipeline.execute(source, raise_on_error=False)
    seen: list[Any] = []
    execution.events.subscribe(seen.append, on_completed=lambda: seen.append("|"))
    loop = asyncio.get_running_loop()
    if ending == "cancelled":
        loop.call_later(1.0, execution.cancel)
    elif ending == "drained":
        loop.call_later(1.0, lambda: loop.create_task(execution.drain(1.0)))
    elif ending == "unopened":
        execution.cancel()
    result = await execution
    error, last = ENDINGS[ending]
    assert (type(result.error) if result.error else None) is error
    assert seen[-1] == "|"
    assert seen.count("|") == 1
    if last is not None:
        assert seen[-2].type == last
        assert sum(event.type.startswith("pipeline.") for event in seen[:-1]) == 2
        assert {event.execution_id for event in seen[:-1]} == {execution.id}
    late: list[str] = []
    execution.events.subscribe(lambda e: late.append("event"), on_completed=lambda: late.append("|"))
    assert late == ["|"]


@virtual
async def test_who_subscribes_late_hears_the_rest() -> None:
    """Who subscribes to a running execution hears what happens from then on, the stages' completion too."""
    source: Subject[str] = Subject()
    execution = Pipeline.of(MapStage("s", slow)).execute(source)
    waiting = asyncio.ensure_future(execution._wait_result())
    await asyncio.sleep(1.0)
    source.on_next("a")
    seen: list[Any] = []
    execution.events.subscribe(seen.append)
    source.on_completed()
    await waiting
    assert kinds(seen) == ["stage.completed:s", "pipeline.completed"]
    assert seen[0].received == 1


@virtual
async def test_a_raising_observer_hurts_nobody() -> None:
    """An observer of the events that raises is dropped; the execution and the other observers go on."""
    pipeline = Pipeline.of(MapStage("s", slow))
    execution = pipeline.execute(["a"])

    def bad(event: Event) -> None:
        raise KeyError("observer")

    seen: list[Any] = []
    execution.events.subscribe(bad, lambda error: seen.append(error))
    execution.events.subscribe(lambda event: seen.append(event.type))
    assert (await execution).text == "a"
    assert isinstance(seen[0], KeyError)
    assert seen[-1] == "pipeline.completed"


@virtual
async def test_stages_may_emit_events() -> None:
    """A stage's function emits events of its own through its context."""

    async def ask(element: StreamElement, context: StageContext) -> StreamElement:
        context.emit_event("provider.call.started", model="m")
        return element

    pipeline = Pipeline.of(MapStage("ask", ask), name="p")
    events = listened(pipeline)
    execution = pipeline.execute(["a"])
    await execution
    (own,) = (event for event in events if event.type == "provider.call.started")
    assert (own.pipeline, own.execution_id, own.stage) == ("p", execution.id, "ask")
    assert own.stage_type is StageType.TRANSFORM
    assert dict(own.data) == {"model": "m"}


@virtual
async def test_restarted() -> None:
    """A whole-stream function that is started again by `Retry` says so."""
    starts = 0

    async def flaky(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        nonlocal starts
        starts += 1
        async for element in elements:
            if starts == 1:
                raise ValueError("once")
            yield element

    pipeline = Pipeline.of(StageFunc("f", StageType.TRANSFORM, flaky, on_error=Retry(attempts=2)))
    events = listened(pipeline)
    result = await pipeline.execute(["a", "b"])
    assert result.text == "b"
    (restarted,) = (event for event in events if event.type == "stage.restarted")
    assert (restarted.stage, restarted.attempt, type(restarted.error)) == ("f", 2, ValueError)


@virtual
async def test_drops_are_announced() -> None:
    """Every drop is announced with the edge and its count so far."""
    gate = asyncio.Event()

    async def held(element: StreamElement) -> StreamElement:
        await gate.wait()
        return element

    pipeline = (
        PipelineBuilder()
        .add(PassthroughStage("in"), MapStage("slow", held))
        .connect("in", "slow", buffer_size=1, overflow="drop_newest")
        .build()
    )
    events = listened(pipeline)
    execution = pipeline.execute([str(number) for number in range(5)])
    asyncio.get_running_loop().call_later(1.0, gate.set)
    await execution
    drops = [event for event in events if event.type == "edge.dropped"]
    assert [(event.stage, event.target, event.dropped) for event in drops] == [
        ("in", "slow", number + 1) for number in range(len(drops))
    ]
    assert execution.statistics().edges["in", "slow"].dropped == len(drops) > 0


# ------------------------------------------------------------------------------------------ the bus


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_bus(form: Form) -> None:
    """A bus gets the events of all executions, by kind, on a thread of its own that ends with them."""
    bus = EventBus()
    by_name: list[str] = []
    by_class: list[Any] = []
    threads: set[int] = set()
    bus.subscribe("stage.*", lambda event: by_name.append(event.type))
    bus.subscribe("stage.*", lambda event: threads.add(threading.get_ident()))
    bus.subscribe(PipelineCompleted, by_class.append)
    pipeline = PipelineBuilder(events=bus).chain(MapStage("s", slow)).build()
    form(pipeline, ["a"])
    assert bus.flush(WAIT)
    assert by_name == ["stage.started", "stage.completed"]
    assert [event.emitted for event in by_class] == [1]
    assert threading.get_ident() not in threads


def test_a_slow_or_raising_handler_never_hurts_the_data_path() -> None:
    """A handler that blocks or raises neither slows nor fails an execution."""
    gate = threading.Event()
    bus = EventBus()
    bus.subscribe("*", lambda event: gate.wait(WAIT))
    bus.subscribe("*", lambda event: 1 / 0)
    pipeline = PipelineBuilder(events=bus).chain(PassthroughStage("p")).build()
    with assert_no_leaks():
        try:
            for _ in range(3):
                assert pipeline.run(["a"]).text == "a"
        finally:
            gate.set()
        assert bus.flush(WAIT)
    assert bus.failures == 12


# ------------------------------------------------------------------------------------------ the logs


def test_logs() -> None:
    """Silent by default; one call turns the logs on, bound with pipeline, execution and stage."""
    from loguru import logger

    records: list[Any] = []
    pipeline = Pipeline.of(PassthroughStage("p"), MapStage("bad", fail), name="named")
    handler = logger.add(lambda message: records.append(message.record), level=0, filter="rxstage")
    try:
        disable_logging()
        with pytest.raises(StageError):
            pipeline.run(["a"])
        assert records == []
        own = enable_logging("DEBUG", lambda message: None)
        with pytest.raises(StageError):
            pipeline.run(["a"])
    finally:
        disable_logging()
        logger.remove(handler)
    assert own is not None
    assert {record["extra"]["pipeline"] for record in records} == {"named"}
    assert all(record["extra"]["execution"] for record in records)
    assert "bad" in {record["extra"].get("stage") for record in records}
    assert {record["level"].name for record in records} >= {"INFO", "ERROR"}
