"""What is slowed and how, on which thread things run, and that nothing is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import reactivex as rx
from forms import WAIT, Observer, texts
from reactivex import operators as ops
from reactivex.subject import Subject

from rxstage import (
    BufferOverflow,
    FilterStage,
    FlatMapStage,
    GenerateStage,
    MapStage,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineConfig,
    SinkStage,
    Stage,
    StageError,
    StageFunc,
    StageType,
    StallError,
    StreamElement,
    Text,
)
from rxstage.testing import assert_no_leaks, run_virtual, virtual


async def slow(element: StreamElement) -> StreamElement:
    await asyncio.sleep(0.001)
    return element


async def each(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    async for element in elements:
        yield element


# ------------------------------------------------------------------------------------------ what is slowed


@pytest.mark.parametrize("on_a_loop", [True, False])
def test_another_thread_is_slowed_by_blocking_it(on_a_loop: bool) -> None:
    """A source that pushes from another thread is blocked while `buffer_size` elements wait to enter."""
    gate = threading.Event()
    pushed = 0

    async def held(element: StreamElement) -> StreamElement:
        while not gate.is_set():
            await asyncio.sleep(0.001)
        return element

    pipeline = Pipeline.of(MapStage("held", held), config=PipelineConfig(buffer_size=4, hot_source_limit=10))
    source: Subject[str] = Subject()

    def push() -> None:
        nonlocal pushed
        for number in range(500):
            source.on_next(str(number))
            pushed += 1
        source.on_completed()

    def watch(thread: threading.Thread) -> None:
        stuck = threading.Event()
        before = -1
        while before != pushed:  # it stands still once it is blocked
            before = pushed
            stuck.wait(0.05)
        assert thread.is_alive()
        assert 4 <= pushed <= 4 + 4 + 2
        gate.set()

    async def main() -> Observer:
        observer = Observer()
        pipeline.execute(source).output.subscribe(observer)
        thread = threading.Thread(target=push)
        thread.start()
        await asyncio.to_thread(watch, thread)
        while not observer.ends:
            await asyncio.sleep(0.001)
        thread.join(WAIT)
        return observer

    if on_a_loop:
        observer = asyncio.run(main())
    else:
        observer = Observer()
        with assert_no_leaks():
            source.pipe(pipeline).subscribe(observer)
            thread = threading.Thread(target=push)
            thread.start()
            watch(thread)
            assert observer.ended.wait(WAIT)
            thread.join(WAIT)
    assert observer.outcome().error is None
    assert observer.outcome().texts == [str(number) for number in range(500)]


def test_a_producer_is_blocked_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer that is blocked while nothing moves is let go after a while, and the execution fails."""
    monkeypatch.setattr("rxstage.flow.inlet._PATIENCE", 0.05)

    async def never(element: StreamElement) -> StreamElement:
        await asyncio.Event().wait()
        return element

    observer = Observer()
    with assert_no_leaks():
        rx.from_iterable(map(str, range(100))).pipe(
            Pipeline.of(MapStage("stuck", never), config=PipelineConfig(buffer_size=2))
        ).subscribe(observer)
        assert observer.ended.wait(WAIT)
    error = observer.outcome().error
    assert isinstance(error, StallError)
    assert "stage 'stuck'" in str(error)


def test_a_blocked_producer_is_let_go_at_the_end() -> None:
    """A producer that is blocked when the execution is cancelled is let go."""
    source: Subject[str] = Subject()

    async def never(element: StreamElement) -> StreamElement:
        await asyncio.Event().wait()
        return element

    pipeline = Pipeline.of(MapStage("n", never), config=PipelineConfig(buffer_size=2))
    with assert_no_leaks():
        subscription = source.pipe(pipeline).subscribe(lambda _: None)
        started = threading.Event()

        def push() -> None:
            for number in range(100):
                source.on_next(str(number))
                if number == 3:
                    started.set()

        thread = threading.Thread(target=push)
        thread.start()
        assert started.wait(WAIT)
        subscription.dispose()
        thread.join(WAIT)
        assert not thread.is_alive()


@pytest.mark.parametrize("graph", ["async", "output"])
@virtual
async def test_the_loops_own_thread_cannot_be_slowed(graph: str) -> None:
    """A source that pushes on the loop's own thread overflows at `hot_source_limit`; the error names the remedies."""
    config = PipelineConfig(buffer_size=4, hot_source_limit=50)
    stage = MapStage("s", slow) if graph == "async" else PassthroughStage("s")
    source: Subject[str] = Subject()
    async with assert_no_leaks():
        execution = Pipeline.of(stage, config=config).execute(source)
        elements = aiter(execution)
        pushed = 0
        while execution.state == "running":
            source.on_next(str(pushed))
            pushed += 1
            assert pushed < 100
        with pytest.raises(BufferOverflow) as caught:
            async for _ in elements:
                pass
    assert 50 <= pushed <= 50 + 4 + 3
    message = str(caught.value)
    assert "hot_source_limit" in message
    assert "dropping overflow policy" in message
    assert "subscribe_on='thread'" in message
    assert "50" in message


@virtual
async def test_a_dropping_policy_is_a_remedy() -> None:
    """With a dropping policy the same source runs through, bounded."""
    config = PipelineConfig(buffer_size=4, hot_source_limit=50, overflow="drop_oldest")
    source: Subject[str] = Subject()
    execution = Pipeline.of(MapStage("s", slow), config=config).execute(source)
    elements = aiter(execution)
    for number in range(1000):
        source.on_next(str(number))
    source.on_completed()
    assert [element.text async for element in elements][-1] == "999"
    assert execution.statistics().edges["<input>", "s"].dropped >= 990


def test_another_loop_is_never_blocked() -> None:
    """A source that pushes on the thread of another loop does not block it; it overflows instead."""
    source: Subject[str] = Subject()

    async def never(element: StreamElement) -> StreamElement:
        await asyncio.Event().wait()
        return element

    pipeline = Pipeline.of(MapStage("n", never), config=PipelineConfig(buffer_size=4, hot_source_limit=50))
    observer = Observer()
    with assert_no_leaks():
        source.pipe(pipeline).subscribe(observer)  # on the library's own loop

        async def push() -> None:
            for number in range(200):
                source.on_next(str(number))
                await asyncio.sleep(0)

        asyncio.run(push())
        assert observer.ended.wait(WAIT)
    error = observer.outcome().error
    assert isinstance(error, BufferOverflow)
    assert "another loop" in str(error)


def test_iterables_are_pulled_only_as_needed() -> None:
    """A source that is pulled waits: nothing is read ahead of a slow stage but what the buffers hold."""
    ahead = 0
    most = 0

    def source() -> Iterator[str]:
        nonlocal ahead, most
        for number in range(200):
            ahead += 1
            most = max(most, ahead)
            yield str(number)

    async def work(element: StreamElement) -> StreamElement:
        nonlocal ahead
        await asyncio.sleep(0.001)
        ahead -= 1
        return element

    async def main() -> None:
        await Pipeline.of(MapStage("w", work), config=PipelineConfig(buffer_size=4)).execute(source())

    run_virtual(main())
    assert most <= 4 + 2


# ------------------------------------------------------------------------------------------ where it runs


def test_a_synchronous_graph_runs_on_the_thread_that_pushes() -> None:
    """In operator form a graph of synchronous stages runs inline, on whatever thread pushes."""
    threads: list[int] = []

    def note(element: StreamElement) -> StreamElement:
        threads.append(threading.get_ident())
        return element

    source: Subject[str] = Subject()
    pipeline = Pipeline.of(
        MapStage("n", note), FilterStage("f", lambda e: True), OperatorStage("o", ops.map(note)), SinkStage("s", note)
    )
    with assert_no_leaks():
        subscription = source.pipe(pipeline).subscribe(lambda _: None)
        assert threading.active_count() == len(threading.enumerate())
        source.on_next("a")
        other = threading.Thread(target=source.on_next, args=("b",))
        other.start()
        other.join(WAIT)
        subscription.dispose()
    assert threads[:3] == [threading.get_ident()] * 3
    assert len(set(threads[3:])) == 1
    assert threads[3] != threads[0]


@pytest.mark.parametrize(
    "stage",
    [
        MapStage("s", slow),
        MapStage("s", lambda e: e, concurrency=2),
        MapStage("s", lambda e: e, blocking=True),
        MapStage("s", lambda e: e, timeout=5.0),
        StageFunc("s", StageType.TRANSFORM, each),
        GenerateStage("s", lambda: iter(())),
    ],
    ids=["async", "concurrency", "blocking", "timeout", "stream", "producer"],
)
def test_everything_else_lives_on_a_loop(stage: Stage) -> None:
    """Everything else lives on one loop: without a running one, on a thread of the library's own."""
    names: set[str] = set()

    def note_name(element: StreamElement) -> StreamElement:
        names.add(threading.current_thread().name)
        return element

    note = MapStage("note", note_name)
    observer = Observer()
    with assert_no_leaks():
        rx.of("a").pipe(Pipeline.of(stage, note)).subscribe(observer)
        assert observer.ended.wait(WAIT)
    assert observer.outcome().texts == ["a"]
    assert names == {"rxstage-loop"}


@pytest.mark.parametrize("option", ["edge", "execution_timeout", "idle_timeout"])
def test_options_that_need_a_loop(option: str) -> None:
    """An edge with options or a configured timeout makes a graph of plain functions asynchronous."""
    names: set[str] = set()

    def note_name(element: StreamElement) -> StreamElement:
        names.add(threading.current_thread().name)
        return element

    note = MapStage("note", note_name)
    config = PipelineConfig() if option == "edge" else PipelineConfig().with_(**{option: 100.0})
    builder = PipelineBuilder(config).add(PassthroughStage("in"), note)
    builder.connect("in", "note", buffer_size=4 if option == "edge" else None)
    observer = Observer()
    with assert_no_leaks():
        rx.of("a").pipe(builder.build()).subscribe(observer)
        assert observer.ended.wait(WAIT)
    assert names == {"rxstage-loop"}


def test_the_source_is_subscribed_on_the_callers_thread() -> None:
    """Without a loop, the source is subscribed on the caller's thread; stages run on the library's."""
    subscribed: list[int] = []

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        subscribed.append(threading.get_ident())
        return rx.of("a", "b").subscribe(observer)

    observer = Observer()
    with assert_no_leaks():
        rx.create(subscribe).pipe(Pipeline.of(MapStage("s", slow))).subscribe(observer)
        assert observer.ended.wait(WAIT)
    assert subscribed == [threading.get_ident()]
    assert observer.outcome().texts == ["a", "b"]


def test_one_library_loop_for_all() -> None:
    """Executions without a loop share one thread, which ends with the last of them."""
    first, second = Subject[str](), Subject[str]()
    observers = Observer(), Observer()
    with assert_no_leaks():
        before = threading.active_count()
        first.pipe(Pipeline.of(MapStage("s", slow))).subscribe(observers[0])
        second.pipe(Pipeline.of(MapStage("s", slow))).subscribe(observers[1])
        assert threading.active_count() == before + 1
        first.on_completed()
        assert observers[0].ended.wait(WAIT)
        assert threading.active_count() == before + 1
        second.on_completed()
        assert observers[1].ended.wait(WAIT)


def test_serialised_on_the_loop() -> None:
    """On a loop, what several threads push is serialised: a stage never runs twice at once."""
    inside = most = 0

    async def turn(element: StreamElement) -> StreamElement:
        await asyncio.sleep(0)
        return element

    def work(element: StreamElement) -> StreamElement:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        inside -= 1
        return element

    source: Subject[str] = Subject()
    observer = Observer()
    with assert_no_leaks():
        source.pipe(Pipeline.of(MapStage("a", turn), MapStage("w", work))).subscribe(observer)

        def push(n: int) -> None:
            for i in range(50):
                source.on_next(f"{n}-{i}")

        threads = [threading.Thread(target=push, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        source.on_completed()
        assert observer.ended.wait(WAIT)
    assert most == 1
    seen = observer.outcome().texts
    for n in range(4):
        assert [text for text in seen if text.startswith(f"{n}-")] == [f"{n}-{i}" for i in range(50)]


def test_an_operator_that_emits_under_a_lock_of_its_own() -> None:
    """Inline, an operator that emits from another thread under its own lock, as `ops.delay` does, deadlocks nobody."""
    lock, held, entering = threading.Lock(), threading.Event(), threading.Event()

    def locked(source: rx.Observable[Any]) -> rx.Observable[Any]:
        def subscribe(observer: Any, scheduler: Any = None) -> Any:
            def on_next(element: StreamElement) -> None:
                entering.set()
                with lock:
                    observer.on_next(element)

            def emit() -> None:
                with lock:
                    held.set()
                    assert entering.wait(WAIT)
                    observer.on_next("own")

            threading.Thread(target=emit, daemon=True).start()
            return source.subscribe(on_next, observer.on_error, observer.on_completed)

        return rx.create(subscribe)

    source: Subject[str] = Subject()
    observer = Observer()
    source.pipe(Pipeline.of(OperatorStage("locked", locked))).subscribe(observer)
    assert held.wait(WAIT)
    pusher = threading.Thread(target=source.on_next, args=("pushed",), daemon=True)
    pusher.start()
    pusher.join(WAIT)
    assert not pusher.is_alive()
    source.on_completed()
    assert sorted(observer.outcome().texts) == ["own", "pushed"]


# ------------------------------------------------------------------------------------------ what is left


def stages() -> dict[str, Stage]:
    async def ticks() -> AsyncIterator[str]:
        while True:
            await asyncio.sleep(0.01)
            yield "tick"

    return {
        "plain": MapStage("s", lambda e: e),
        "async": MapStage("s", slow),
        "concurrent": MapStage("s", slow, concurrency=4),
        "blocking": MapStage("s", lambda e: e, blocking=True),
        "timed": MapStage("s", slow, timeout=5.0),
        "flat": FlatMapStage("s", lambda t: [t, t], on=Text),
        "stream": StageFunc("s", StageType.TRANSFORM, each),
        "operator": OperatorStage("s", ops.map(lambda e: e)),
        "delay": MapStage("first", slow) >> OperatorStage("s", ops.delay(0.001)),  # on a loop: see the deadlock above
        "timer": OperatorStage("s", ops.timeout(1000.0)),
        "producer": GenerateStage("s", ticks),
    }


@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled", "source failed", "drained"])
@pytest.mark.parametrize("shape", stages().keys())
@pytest.mark.parametrize("on_a_loop", [True, False])
def test_nothing_is_left(shape: str, ending: str, on_a_loop: bool) -> None:
    """No task, thread or subscription outlives its execution, whatever its graph and its ending."""

    def fail(element: StreamElement) -> StreamElement:
        if ending == "failed":
            raise ValueError
        return element

    pipeline = Pipeline.of(stages()[shape], MapStage("end", fail))
    sources: dict[str, Any] = {
        "completed": rx.of("a", "b"),
        "failed": rx.concat(rx.of("a", "b"), rx.never()),
        "source failed": rx.concat(rx.of("a"), rx.throw(KeyError())),
    }
    source = sources.get(ending, rx.concat(rx.of("a"), rx.never()))
    endless = shape == "producer" and ending == "completed"

    async def on_loop() -> Any:
        async with assert_no_leaks():
            execution = pipeline.execute(source)
            observer = Observer()
            execution.output.subscribe(observer)
            await asyncio.sleep(0.1)
            if ending == "drained":
                await execution.drain(10.0)
            elif ending == "cancelled" or endless:
                execution.cancel()
            await execution.closed()
            return execution.state, observer.outcome()

    def without() -> Any:
        with assert_no_leaks():
            observer = Observer()
            seen = threading.Event()

            def on_next(element: StreamElement) -> None:
                observer.on_next(element)
                seen.set()

            subscription = source.pipe(pipeline).subscribe(on_next, observer.on_error, observer.on_completed)
            executions = pipeline.executions
            if ending == "drained":
                assert seen.wait(WAIT)
                asyncio.run(executions[0].drain(WAIT))
            elif ending == "cancelled" or endless:
                assert seen.wait(WAIT)
                executions[0].cancel()
            assert observer.ended.wait(WAIT)
            subscription.dispose()
        return None, observer.outcome()

    state, outcome = run_virtual(on_loop()) if on_a_loop else without()
    if ending == "failed":
        assert isinstance(outcome.error, StageError)
    elif ending == "source failed":
        assert isinstance(outcome.error, KeyError)
    elif ending == "drained" or (ending == "completed" and not endless):
        assert outcome.error is None
        assert texts(outcome.elements)[0] in ("a", "tick")
    if state is not None and not endless:
        assert state == ending.split()[-1].replace("drained", "completed")
