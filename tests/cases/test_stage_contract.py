"""CASES 1-11: the contract of a stage, any stage."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import reactivex as rx
from forms import FORMS, LOOP_FORMS, WAIT, Form, Observer, aiterate, cause, contents, texts
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxstage import (
    Data,
    ExecutionCancelled,
    FilterStage,
    FlatMapStage,
    MapStage,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
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


async def upper(text: str) -> str:
    await asyncio.sleep(0.01)
    return text.upper()


async def loop(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    async for element in elements:
        yield element if element.text is None else element.replace(content=element.text.upper())


def stages() -> dict[str, Stage]:
    """One stage of each shape; each makes upper case of text."""
    return {
        "plain": MapStage("s", str.upper, on=Text),
        "async": MapStage("s", upper, on=Text),
        "concurrent": MapStage("s", upper, on=Text, concurrency=3),
        "interruptible": MapStage("s", upper, on=Text, interruptible=True),
        "thread": MapStage("s", str.upper, on=Text, blocking=True),
        "timed": MapStage("s", upper, on=Text, timeout=5.0),
        "policy": MapStage("s", str.upper, on=Text, on_error="emit"),
        "flat": FlatMapStage("s", lambda text: [text.upper()], on=Text),
        "stream": StageFunc("s", StageType.TRANSFORM, loop),
        "operator": OperatorStage("s", ops.map(lambda e: e.replace(content=e.text.upper()))),
        "pipeline": Pipeline.of(MapStage("s", str.upper, on=Text), name="inner"),
    }


shapes = pytest.mark.parametrize("shape", stages().keys())


@forms
@shapes
def test_01_one_terminal(form: Form, shape: str) -> None:
    """CASE 1: the source completes: everything comes out, then one terminal and nothing after it."""
    elements, error = form(Pipeline.of(stages()[shape]), ["a", "b", "c"])
    assert error is None
    assert texts(elements) == ["A", "B", "C"]


@forms
@shapes
def test_01_empty_source(form: Form, shape: str) -> None:
    """CASE 1: an empty source completes without an element."""
    assert form(Pipeline.of(stages()[shape]), []) == ([], None)


@shapes
@virtual
async def test_01_never_ending_source_on_a_loop(shape: str) -> None:
    """CASE 1: with a source that never ends, disposing returns and nothing is left."""
    async with assert_no_leaks():
        observer = Observer()
        source: Subject[str] = Subject()
        subscription = source.pipe(Pipeline.of(stages()[shape])).subscribe(observer)
        source.on_next("a")
        while not observer.elements:
            await asyncio.sleep(0.01)
        subscription.dispose()
        await asyncio.sleep(1.0)
        source.on_next("b")
        await asyncio.sleep(1.0)
    assert texts(observer.elements) == ["A"]
    assert observer.ends == []
    assert not source.observers


@shapes
def test_01_never_ending_source_without_a_loop(shape: str) -> None:
    """CASE 1: the same, where the library brings the loop."""
    arrived = threading.Event()
    source: Subject[str] = Subject()
    seen: list[str | None] = []

    def on_next(element: StreamElement) -> None:
        seen.append(element.text)
        arrived.set()

    with assert_no_leaks():
        subscription = source.pipe(Pipeline.of(stages()[shape])).subscribe(on_next)
        source.on_next("a")
        assert arrived.wait(WAIT)
        subscription.dispose()
    assert seen == ["A"]
    assert not source.observers


@forms
@pytest.mark.parametrize("asynchronous_source", [False, True])
@pytest.mark.parametrize("shape", ["plain", "async", "flat", "filter", "sink", "class", "stream", "operator"])
def test_02_raises_on_element_k(form: Form, shape: str, asynchronous_source: bool) -> None:
    """CASE 2: the function raises on the third element: two outputs, one error, no call for the fourth."""
    calls: list[str] = []

    def work(text: str) -> str:
        calls.append(text)
        if text == "c":
            raise ValueError("no c")
        return text

    async def awork(text: str) -> str:
        return work(text)

    async def stream(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            yield work(element.text or "")

    class Own(Stage):
        def apply(self, element: StreamElement) -> Any:
            return work(element.text or "")

    stage: Stage = {
        "plain": MapStage("bad", work, on=Text),
        "async": MapStage("bad", awork, on=Text),
        "flat": FlatMapStage("bad", lambda text: [work(text)], on=Text),
        "filter": FilterStage("bad", work, on=Text),
        "sink": SinkStage("bad", work, on=Text),
        "class": Own("bad"),
        "stream": StageFunc("bad", StageType.TRANSFORM, stream),
        "operator": OperatorStage("bad", ops.map(lambda e: work(e.text))),
    }[shape]
    takes_observables = form in (LOOP_FORMS["operator"], FORMS["operator without a loop"])
    source = aiterate("abcde") if asynchronous_source and not takes_observables else list("abcde")
    elements, error = form(Pipeline.of(stage), source)
    assert texts(elements) == ([] if shape == "sink" else ["a", "b"])
    assert isinstance(cause(error), ValueError)
    assert isinstance(error, StageError)
    assert error.stage == "bad"
    assert calls == ["a", "b", "c"]


class Broken(Exception):
    pass


@forms
@shapes
def test_03_the_source_errors(form: Form, shape: str) -> None:
    """CASE 3: the error of the source itself reaches the caller, with its cause."""
    broken = Broken("source")
    broken.__cause__ = KeyError("why")
    source = rx.concat(rx.of("a"), rx.throw(broken))
    elements, error = form(Pipeline.of(stages()[shape]), source)
    assert error is broken
    assert isinstance(error.__cause__, KeyError)
    assert set(texts(elements)) <= {"A"}


@pytest.mark.parametrize(
    "form", [f for n, f in FORMS.items() if "operator" not in n], ids=[n for n in FORMS if "operator" not in n]
)
@pytest.mark.parametrize("kind", ["iterable", "async"])
def test_03_an_iterable_errors(form: Form, kind: str) -> None:
    """CASE 3: the same for an iterable and an async iterable."""
    broken = Broken("source")

    def items() -> Any:
        yield "a"
        raise broken

    async def aitems() -> AsyncIterator[str]:
        yield "a"
        raise broken

    elements, error = form(Pipeline.of(PassthroughStage("p")), items() if kind == "iterable" else aitems())
    assert error is broken
    assert texts(elements) == ["a"]


@forms
@shapes
def test_04_falsy_payloads(form: Form, shape: str) -> None:
    """CASE 4: None, "", 0 and b"" pass as payloads."""
    values: list[Any] = [None, "", 0, b""]
    stage = stages()[shape]
    if shape in ("operator", "flat"):
        stage = PassthroughStage("s")
    elements, error = form(Pipeline.of(stage), values)
    assert error is None
    assert contents(elements) == [Data(None), Text(""), Data(0), Data(b"")]


@forms
def test_04_falsy_results(form: Form) -> None:
    """CASE 4: a function may return "", 0 and b"" as payloads."""
    pipeline = Pipeline.of(MapStage("m", lambda e: {"a": "", "b": 0, "c": b""}[e.text]))
    elements, error = form(pipeline, list("abc"))
    assert error is None
    assert contents(elements) == [Text(""), Data(0), Data(b"")]


class Unruly(rx.Observable[Any]):
    """Goes on after its terminal."""

    def __init__(self, *terminals: str) -> None:
        super().__init__()
        self.terminals = terminals

    def subscribe(self, on_next: Any = None, on_error: Any = None, on_completed: Any = None, **_: Any) -> Any:
        on_next("a")
        for terminal in self.terminals:
            on_completed() if terminal == "|" else on_error(Broken(terminal))
            on_next("late")
        return Disposable()


@forms
@shapes
@pytest.mark.parametrize("terminals", ["||", "|#", "##", "#|"])
def test_05_emits_after_its_terminal(form: Form, shape: str, terminals: str) -> None:
    """CASE 5: what a bad source emits after its terminal is ignored, a second terminal too."""
    elements, error = form(Pipeline.of(stages()[shape]), Unruly(*terminals))
    assert (error is None) == (terminals[0] == "|")
    assert set(texts(elements)) <= {"A"}
    if error is None:
        assert texts(elements) == ["A"]


@pytest.mark.parametrize("shape", ["plain", "async", "operator"])
def test_06_next_races_error(shape: str) -> None:
    """CASE 6: on_next races on_error from two threads: never an element after the error."""
    pipeline = Pipeline.of(stages()[shape])
    rounds = 1000 if shape == "plain" else 200
    chance = random.Random(6)
    for _ in range(rounds):
        observer = Observer()
        inlet: list[Any] = []

        class Source(rx.Observable[Any]):
            def subscribe(self, on_next: Any = None, on_error: Any = None, *_: Any, **__: Any) -> Any:
                inlet.extend((on_next, on_error))  # noqa: B023
                return Disposable()

        # past AutoDetachObserver, which would hide what comes late
        PipelineTap(pipeline(Source()), observer)
        start = threading.Barrier(2)
        spins = chance.randrange(200)

        def fail() -> None:
            start.wait(WAIT)  # noqa: B023
            for _ in range(spins):  # noqa: B023
                pass
            inlet[1](Broken("now"))  # noqa: B023

        thread = threading.Thread(target=fail)
        thread.start()
        start.wait(WAIT)
        for text in ("a", "b", "c"):
            inlet[0](text)
        thread.join(WAIT)
        assert observer.ended.wait(WAIT)
        assert len(observer.ends) == 1
        assert observer.late == []
        assert isinstance(observer.ends[0], Broken)


class PipelineTap:
    """Subscribes without the guard that reactivex puts before every observer."""

    def __init__(self, source: Any, observer: Observer) -> None:
        source._subscribe_core(observer, None)


@pytest.mark.parametrize("shape", ["plain", "async"])
def test_07_no_error_handler(shape: str) -> None:
    """CASE 7: without an on_error handler the failure still reaches whoever runs the pipeline."""

    async def afail(element: StreamElement) -> StreamElement:
        raise Broken("b")

    def fail(element: StreamElement) -> StreamElement:
        raise Broken("b")

    pipeline = Pipeline.of(MapStage("bad", fail if shape == "plain" else afail))
    told: list[dict[str, Any]] = []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with assert_no_leaks():
            execution = pipeline.execute(["a"])
            execution.output.subscribe(lambda _: None)
            await execution.closed()
            await asyncio.sleep(1.0)
        return execution

    execution = run_virtual(main())
    assert isinstance(execution.error.__cause__, Broken)
    assert [type(context["exception"]) for context in told] == [StageError]


def test_07_no_error_handler_inline() -> None:
    """CASE 7: inline, it is raised to whoever pushes."""
    pipeline = Pipeline.of(MapStage("bad", lambda e: 1 / 0))
    source: Subject[str] = Subject()
    source.pipe(pipeline).subscribe(lambda _: None)
    with pytest.raises(StageError, match="bad"):
        source.on_next("a")


def test_07_no_error_handler_on_the_library_loop() -> None:
    """CASE 7: on the library's own loop, its thread still ends, and the execution has the error."""

    async def fail(element: StreamElement) -> StreamElement:
        raise Broken("b")

    pipeline = Pipeline.of(MapStage("bad", fail))
    with assert_no_leaks():
        execution = pipeline.execute(["a"], raise_on_error=False)
        ended = threading.Event()
        execution.events.subscribe(on_completed=ended.set)
        execution.output.subscribe(lambda _: None)
        assert ended.wait(WAIT)
    assert isinstance(cause(execution.error), Broken)


@forms
@pytest.mark.parametrize("shape", ["plain", "async", "concurrent", "flat", "stream"])
def test_08_unasked_cancelled_error(form: Form, shape: str) -> None:
    """CASE 8: a CancelledError that nobody asked for fails the execution, whatever the error policy says."""

    def work(element: StreamElement) -> StreamElement:
        if element.text == "b":
            raise asyncio.CancelledError
        return element

    async def awork(element: StreamElement) -> StreamElement:
        await asyncio.sleep(0)
        return work(element)

    async def stream(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield work(element)

    stage: Stage = {
        "plain": MapStage("bad", work, on_error="skip"),
        "async": MapStage("bad", awork, on_error="emit"),
        "concurrent": MapStage("bad", awork, on_error="skip", concurrency=2),
        "flat": FlatMapStage("bad", lambda e: [work(e)], on_error="skip"),
        "stream": StageFunc("bad", StageType.TRANSFORM, stream),
    }[shape]
    elements, error = form(Pipeline.of(stage), list("abc"))
    assert isinstance(cause(error), asyncio.CancelledError)
    assert texts(elements) == ["a"]


@pytest.mark.parametrize(
    "form", [f for n, f in FORMS.items() if "operator" not in n], ids=[n for n in FORMS if "operator" not in n]
)
def test_08_unasked_cancelled_error_of_the_source(form: Form) -> None:
    """CASE 8: the same where the source raises it."""

    async def items() -> AsyncIterator[str]:
        yield "a"
        raise asyncio.CancelledError

    elements, error = form(Pipeline.of(PassthroughStage("p")), items())
    assert isinstance(error, ExecutionCancelled)
    assert texts(elements) == ["a"]


@virtual
async def test_08_a_stage_cancels_its_own_task() -> None:
    """CASE 8: a stage that cancels its own task ends the execution, it does not hang."""

    async def suicide(element: StreamElement) -> StreamElement:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1.0)
        return element

    async with assert_no_leaks():
        result = await Pipeline.of(MapStage("bad", suicide)).execute(["a"], raise_on_error=False)
    assert isinstance(result.error, (ExecutionCancelled, StageError))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("shape", ["plain", "async", "concurrent", "stream"])
def test_08_keyboard_interrupt_goes_through(shape: str, kind: type[BaseException]) -> None:
    """CASE 8: KeyboardInterrupt goes through `run`, and does not kill the library's own loop."""

    def work(element: StreamElement) -> StreamElement:
        raise kind

    async def awork(element: StreamElement) -> StreamElement:
        raise kind

    async def stream(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for _ in elements:
            raise kind
        yield StreamElement.of("")

    stage: Stage = {
        "plain": MapStage("bad", work, on_error="skip"),
        "async": MapStage("bad", awork, on_error="skip"),
        "concurrent": MapStage("bad", awork, on_error="skip", concurrency=2),
        "stream": StageFunc("bad", StageType.TRANSFORM, stream),
    }[shape]
    pipeline = Pipeline.of(stage)
    with assert_no_leaks(), pytest.raises(kind):
        pipeline.run(["a"])
    with assert_no_leaks():
        bad, good = Observer(), Observer()
        endless: Subject[str] = Subject()
        survivor = endless.pipe(Pipeline.of(MapStage("ok", upper, on=Text))).subscribe(good)
        endless.on_next("a")
        try:
            rx.of("x").pipe(pipeline).subscribe(bad)
        except kind:
            assert shape == "plain"  # inline, on the thread of whoever pushes
        else:
            assert bad.ended.wait(WAIT)
        endless.on_next("b")
        endless.on_completed()
        assert good.ended.wait(WAIT)
        survivor.dispose()
    assert good.outcome() == (good.elements, None)
    assert texts(good.elements) == ["A", "B"]


@shapes
@virtual
async def test_09_no_shared_state(shape: str) -> None:
    """CASE 9: one stage object in two pipelines, executed eight times at once: each sees its own elements."""
    stage = stages()[shape]
    first = Pipeline.of(PassthroughStage("a"), stage)
    second = Pipeline.of(stage, PassthroughStage("b"))
    async with assert_no_leaks():
        runs = [[f"{number}-{i}" for i in range(50)] for number in range(8)]
        results = await asyncio.gather(
            *((first if number % 2 else second).execute(items) for number, items in enumerate(runs))
        )
        again = await asyncio.gather(first.execute(["x"]), first.execute(["y"]))
    for items, result in zip(runs, results, strict=True):
        assert texts(result.elements) == [item.upper() for item in items]
        assert [element.sequence for element in result.elements] == list(range(1, 51))
    assert [result.text for result in again] == ["X", "Y"]


@virtual
async def test_09_state_of_a_loop_is_born_with_the_execution() -> None:
    """CASE 9: the local variables of a whole-stream function belong to one execution."""

    async def count(elements: AsyncIterator[StreamElement]) -> AsyncIterator[str]:
        number = 0
        async for _ in elements:
            number += 1
            yield str(number)

    pipeline = Pipeline.of(StageFunc("count", StageType.TRANSFORM, count))
    results = await asyncio.gather(*(pipeline.execute(aiterate("abc")) for _ in range(8)))
    assert [result.text for result in results] == ["123"] * 8


@pytest.mark.parametrize("on_a_loop", [False, True])
@pytest.mark.parametrize("shape", ["plain", "async"])
def test_10_a_raising_subscriber(shape: str, on_a_loop: bool) -> None:
    """CASE 10: subscriber A of the output raises: B still gets everything, and A hears its error."""
    pipeline = Pipeline.of(stages()[shape])
    good = Observer()
    errors: list[Exception] = []

    def bad(element: StreamElement) -> None:
        raise Broken("A")

    def subscribe() -> Any:
        source: Subject[str] = Subject()
        execution = pipeline.execute(source)
        execution.output.subscribe(bad, errors.append)
        execution.output.subscribe(good.on_next, good.on_error, good.on_completed)
        for text in "abc":
            source.on_next(text)
        source.on_completed()
        return execution

    async def main() -> None:
        async with assert_no_leaks():
            subscribe()
            await good.wait()

    if on_a_loop:
        run_virtual(main())
    else:
        with assert_no_leaks():
            subscribe()
            assert good.ended.wait(WAIT)
    assert good.outcome().error is None
    assert texts(good.elements) == ["A", "B", "C"]
    assert [type(error) for error in errors] == [Broken]


@virtual
async def test_10_a_raising_branch_with_a_policy() -> None:
    """CASE 10: branch A of a graph raises under `skip`: B still gets everything."""
    seen: list[str] = []
    pipeline = (
        PipelineBuilder()
        .add(PassthroughStage("in"))
        .branch("in", SinkStage("a", lambda e: 1 / 0, on_error="skip"), SinkStage("b", seen.append, on=Text))
        .build()
    )
    result = await pipeline.execute(["x", "y"])
    assert seen == ["x", "y"]
    assert result.metrics.stages["a"].errors == 2


CONTROLS: list[Callable[[], StreamElement]] = [
    lambda: StreamElement.of(ValueError("v")),
    StreamElement.end_of_turn,
    StreamElement.interrupt,
]


@forms
@pytest.mark.parametrize("control", CONTROLS, ids=["Failure", "EndOfTurn", "Interrupt"])
@pytest.mark.parametrize("shape", ["filter", "async filter", "only text", "sink", "async sink", "operator", "flat"])
def test_11_controls_pass(form: Form, shape: str, control: Callable[[], StreamElement]) -> None:
    """CASE 11: no filter, sink or operator that drops all content swallows a control."""

    async def never(element: StreamElement) -> bool:
        return False

    stage: Stage = {
        "filter": FilterStage("f", lambda e: False),
        "async filter": FilterStage("f", never),
        "only text": FilterStage("f", lambda t: False, on=Text),
        "sink": SinkStage("f", lambda e: None),
        "async sink": SinkStage("f", never),
        "operator": OperatorStage("f", ops.filter(lambda e: False)),
        "flat": FlatMapStage("f", lambda e: ()),
    }[shape]
    sent = control()
    pipeline = Pipeline.of(stage)
    if shape.endswith("sink"):
        pipeline = Pipeline.of(stage, PassthroughStage("end"))
    elements, error = form(pipeline, ["a", sent, "b"])
    assert error is None
    assert contents(elements) == [sent.content]


@virtual
async def test_11_whole_stream_functions_cannot_swallow_controls() -> None:
    """CASE 11: a control that a whole-stream function was handed goes on by itself, unless it was yielded."""

    async def deaf(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for element in elements:
            if element.text is not None:
                yield element

    turn = StreamElement.end_of_turn()
    result = await Pipeline.of(StageFunc("deaf", StageType.TRANSFORM, deaf)).execute(["a", turn, "b", turn])
    assert texts(result.elements) == ["a", "EndOfTurn", "b", "EndOfTurn"]


@shapes
def test_order(shape: str) -> None:
    """Every shape of stage keeps the order of 300 elements."""
    numbers = [str(number) for number in range(300)]
    assert LOOP_FORMS["await"](Pipeline.of(stages()[shape]), numbers).texts == numbers
