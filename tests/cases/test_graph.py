"""CASES 25-32: graphs, and the behaviour that section 4 of the design promises of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from counting import calls
from forms import FORMS, LOOP_FORMS, Form, cause, contents, texts
from reactivex import operators as ops

from rxstage import (
    Audio,
    Failure,
    FilterStage,
    FlatMapStage,
    GenerateStage,
    GraphError,
    Interrupt,
    MapStage,
    Message,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineConfig,
    Priority,
    ProblemKind,
    SinkStage,
    Stage,
    StageError,
    StageFunc,
    StageType,
    StallError,
    StreamElement,
    Text,
)
from rxstage.testing import assert_no_leaks, virtual

forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
NUMBERS = [str(number) for number in range(40)]


async def slow(element: StreamElement) -> StreamElement:
    await asyncio.sleep(0.001)
    return element


def slow_as(name: str, **options: Any) -> MapStage:
    return MapStage(name, slow, **options)


def mark(name: str, asynchronous: bool = False) -> Stage:
    """Appends its name to the text."""

    async def amark(text: str) -> str:
        await asyncio.sleep(0.001)
        return f"{text}.{name}"

    return MapStage(name, amark if asynchronous else lambda text: f"{text}.{name}", on=Text)


def diamond(left: Stage, right: Stage, config: PipelineConfig | None = None) -> Pipeline:
    return (
        PipelineBuilder(config)
        .add(PassthroughStage("in"))
        .branch("in", left, right)
        .merge(left.name, right.name, into=PassthroughStage("out"))
        .build()
    )


def test_25_every_problem_at_once() -> None:
    """CASE 25: cycle, missing and duplicate name and impossible content are in one error, with paths and names."""
    builder = (
        PipelineBuilder()
        .chain(PassthroughStage("a"), PassthroughStage("b"), PassthroughStage("c"))
        .connect("c", "a")
        .connect("c", "proces")
        .add(PassthroughStage("process"))
        .add(PassthroughStage("twin"), MapStage("twin", str.upper, on=Text))
        .connect("a", "b")
        .add(PassthroughStage("r"))
        .route("r", (Audio, MapStage("impossible", str.upper, on=Text)))
    )
    with pytest.raises(GraphError) as caught:
        builder.build()
    problems = caught.value.problems
    kinds = {problem.kind for problem in problems}
    assert kinds == {
        ProblemKind.CYCLE,
        ProblemKind.UNKNOWN_NAME,
        ProblemKind.DUPLICATE_NAME,
        ProblemKind.DUPLICATE_EDGE,
        ProblemKind.IMPOSSIBLE_CONTENT,
    }
    message = str(caught.value)
    for problem in problems:
        assert problem.message in message
    assert "'a' -> 'b' -> 'c' -> 'a'" in message
    assert "did you mean 'process'?" in message
    assert "'twin'" in message
    assert "'impossible' accepts Text" in message


@forms
@pytest.mark.parametrize("fast", ["plain", "async"])
@pytest.mark.parametrize("capacity", [1, 4])
def test_26_diamond(form: Form, fast: str, capacity: int) -> None:
    """CASE 26: a slow and a fast branch and a merge: all elements, no deadlock, each branch in order."""
    pipeline = diamond(mark("slow", True), mark("fast", fast == "async"), PipelineConfig(buffer_size=capacity))
    items: list[Any] = list(NUMBERS)
    items[10:10] = [StreamElement.end_of_turn()]
    elements, error = form(pipeline, items)
    assert error is None
    out = texts(elements)
    assert out.count("EndOfTurn") == 1
    for branch in ("slow", "fast"):
        assert [t for t in out if t.endswith(branch)] == [f"{number}.{branch}" for number in NUMBERS]
    turn = out.index("EndOfTurn")
    assert {t.split(".")[0] for t in out[:turn]} == set(NUMBERS[:10])


@virtual
async def test_26_diamond_is_bounded() -> None:
    """CASE 26: one branch never moves: the source stops, and what is held is bounded."""
    pulled = 0

    def source() -> Any:
        nonlocal pulled
        while True:
            pulled += 1
            yield "x"

    async def never(element: StreamElement) -> StreamElement:
        await asyncio.Event().wait()
        return element

    pipeline = diamond(MapStage("stuck", never), slow_as("free"), PipelineConfig(buffer_size=4))
    async with assert_no_leaks(), pipeline.execute(source()) as execution:
        seen = 0

        async def consume() -> None:
            nonlocal seen
            async for _ in execution:
                seen += 1

        consumer = asyncio.ensure_future(consume())
        await asyncio.sleep(100.0)
        assert pulled <= 6
        assert seen <= pulled
        consumer.cancel()
        await asyncio.wait([consumer])


@virtual
async def test_26_zip_with_loss_names_the_stall() -> None:
    """CASE 26: a diamond that loses its end of turn in one branch ends with an error that names who waits for it."""
    swallow = OperatorStage("swallow", ops.filter(lambda e: not e.is_control), sees_controls=True)
    pipeline = diamond(swallow, slow_as("other"), PipelineConfig(buffer_size=4))

    def source() -> Any:
        yield StreamElement.end_of_turn()
        while True:
            yield "x"

    async with assert_no_leaks():
        with pytest.raises(StallError) as caught:
            async for _ in pipeline.execute(source()):
                pass
    assert "fan-in before 'out'" in str(caught.value)
    assert "EndOfTurn" in str(caught.value)
    assert "swallow" in str(caught.value)


@forms
@pytest.mark.parametrize("kinds", ["plain", "async", "mixed"])
def test_27_broadcast(form: Form, kinds: str) -> None:
    """CASE 27: every branch sees the same order from the first element on, and nothing of the other branches."""
    seen: dict[str, list[str | None]] = {name: [] for name in "abc"}

    def branch(name: str, asynchronous: bool) -> Stage:
        def note(text: str) -> None:
            seen[name].append(text)

        async def anote(text: str) -> None:
            await asyncio.sleep(0.001)
            seen[name].append(text)

        own = mark(f"m{name}")
        return own >> SinkStage(name, anote if asynchronous else note, on=Text)

    pipeline = (
        PipelineBuilder(PipelineConfig(buffer_size=2))
        .add(PassthroughStage("in"))
        .branch("in", *(branch(name, kinds == "async" or (kinds == "mixed" and name == "b")) for name in "abc"))
        .build()
    )
    assert form(pipeline, NUMBERS) == ([], None)
    assert seen == {name: [f"{number}.m{name}" for number in NUMBERS] for name in "abc"}


@virtual
async def test_28_a_stalled_branch() -> None:
    """CASE 28: a stalled branch follows its own policy: it drops, and its neighbour gets everything."""
    gate = asyncio.Event()

    async def held(element: StreamElement) -> StreamElement:
        await gate.wait()
        return element

    seen: list[str] = []
    pipeline = (
        PipelineBuilder()
        .add(PassthroughStage("in"), SinkStage("stuck", held), SinkStage("free", seen.append, on=Text))
        .connect("in", "stuck", buffer_size=2, overflow="drop_oldest")
        .connect("in", "free")
        .build()
    )
    execution = pipeline.execute(NUMBERS)
    asyncio.get_running_loop().call_later(5.0, gate.set)
    await execution
    assert seen == NUMBERS
    edge = execution.statistics().edges["in", "stuck"]
    assert edge.peak <= 3
    assert execution.metrics().stages["stuck"].received + edge.dropped == len(NUMBERS)
    assert edge.dropped >= len(NUMBERS) - 4


@virtual
async def test_28_a_stalled_branch_that_waits() -> None:
    """CASE 28: with the policy `wait` it slows its neighbour instead, by what its buffer holds at most."""
    gate = asyncio.Event()

    async def held(element: StreamElement) -> StreamElement:
        await gate.wait()
        return element

    seen: list[str] = []
    pipeline = (
        PipelineBuilder(PipelineConfig(buffer_size=2))
        .add(PassthroughStage("in"))
        .branch("in", SinkStage("stuck", held), SinkStage("free", seen.append, on=Text))
        .build()
    )
    async with pipeline.execute(NUMBERS) as execution:
        await asyncio.sleep(5.0)
        assert 1 <= len(seen) <= 3
        gate.set()
        await execution
    assert seen == NUMBERS


@forms
def test_29_merge(form: Form) -> None:
    """CASE 29: a merge completes after its last input and keeps the order within each."""

    def numbers(name: str, count: int) -> GenerateStage:
        async def produce() -> AsyncIterator[str]:
            for number in range(count):
                await asyncio.sleep(0.001 * count)
                yield f"{number}.{name}"

        return GenerateStage(name, produce)

    counts = {"a": 3, "b": 10, "c": 1, "d": 0}
    pipeline = (
        PipelineBuilder()
        .merge(*(numbers(name, count) for name, count in counts.items()), into=PassthroughStage("out"))
        .build()
    )
    elements, error = form(pipeline, [])
    assert error is None
    for name, count in counts.items():
        assert [t for t in texts(elements) if t.endswith(name)] == [f"{n}.{name}" for n in range(count)]


def test_29_indices_are_stable_over_rebuilds() -> None:
    """CASE 29: two builds of the same builder are the same graph and give the same elements in the same order."""
    builder = (
        PipelineBuilder()
        .add(PassthroughStage("in"))
        .branch("in", mark("a"), mark("b"), mark("c"))
        .merge("b", "c", "a", into=PassthroughStage("out"))
    )
    first, second = builder.build(), builder.build()
    assert first.graph.edges == second.graph.edges
    assert first.graph.order() == second.graph.order()
    assert first.run(["x", "y"]).text == second.run(["x", "y"]).text
    assert [n.index for n in first.plan.nodes] == [n.index for n in second.plan.nodes]


def routed(asynchronous: bool = False) -> Pipeline:
    return (
        PipelineBuilder()
        .add(PassthroughStage("in"))
        .route(
            "in",
            (Message, PassthroughStage("message")),
            (lambda e: e.priority > Priority.NORMAL, mark("urgent", asynchronous)),
            (lambda e: (e.text or "").isdigit(), mark("digit")),
            otherwise=mark("rest", asynchronous),
        )
        .merge("message", "urgent", "digit", "rest", into=PassthroughStage("out"))
        .build()
    )


@forms
@pytest.mark.parametrize("asynchronous", [True, False])
def test_30_first_match_wins(form: Form, asynchronous: bool) -> None:
    """CASE 30: the first rule that matches takes the element, `otherwise` the rest; a control leaves once."""
    items = [
        "1",
        "x",
        StreamElement.of("2", priority=Priority.HIGH),
        StreamElement.end_of_turn(),
        Message.user("hello"),
        StreamElement.of(ValueError("v")),
    ]
    elements, error = form(routed(asynchronous), items)
    assert error is None
    out = texts(elements)
    turn = out.index("EndOfTurn")
    assert sorted(out[:turn]) == ["1.digit", "2.urgent", "x.rest"]
    assert sorted(out[turn + 1 :]) == ["Failure", "Message"]


@forms
def test_30_no_match_is_counted(form: Form) -> None:
    """CASE 30: without `otherwise`, what matches nothing is dropped, counted, and announced by an event."""
    pipeline = PipelineBuilder().add(PassthroughStage("in")).route("in", (Audio, PassthroughStage("audio"))).build()
    events: list[Any] = []
    pipeline.events.subscribe(events.append)
    elements, error = form(pipeline, ["a", StreamElement.end_of_turn(), "b"])
    assert error is None
    assert texts(elements) == ["EndOfTurn"]
    drops = [(event.stage, event.dropped) for event in events if event.type == "edge.dropped"]
    assert drops == [("in", 1), ("in", 2)]


def test_30_unrouted_in_the_metrics() -> None:
    """CASE 30: the metrics have the number of elements that matched no route."""
    pipeline = PipelineBuilder().add(PassthroughStage("in")).route("in", (Audio, PassthroughStage("audio"))).build()
    assert pipeline.run(["a", "b"]).metrics.stages["in"].unrouted == 2


@forms
def test_30_a_raising_predicate(form: Form) -> None:
    """CASE 30: a predicate that raises is a `StageError` of the stage it stands behind."""
    pipeline = (
        PipelineBuilder()
        .add(PassthroughStage("in"))
        .route("in", (lambda e: 1 / 0, mark("a")), otherwise=mark("b"))
        .build()
    )
    elements, error = form(pipeline, ["x"])
    assert elements == []
    assert isinstance(error, StageError)
    assert error.stage == "in"
    assert isinstance(cause(error), ZeroDivisionError)


@forms
@pytest.mark.parametrize(
    "control",
    [StreamElement.end_of_turn(), StreamElement.interrupt("i"), StreamElement.of(ValueError())],
    ids=["EndOfTurn", "Interrupt", "Failure"],
)
@pytest.mark.parametrize("kinds", ["plain", "async"])
def test_30_controls_leave_a_merge_once(form: Form, kinds: str, control: StreamElement) -> None:
    """CASE 30: a control reaches every branch, also past an edge that selects content, and leaves the merge once."""
    seen: dict[str, list[str]] = {"a": [], "b": []}

    def branch(name: str) -> Stage:
        async def spy(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
            async for element in elements:
                seen[name].append(texts([element])[0])
                yield element

        if kinds == "async":
            return StageFunc(name, StageType.TRANSFORM, spy)
        return OperatorStage(name, ops.do_action(lambda e: seen[name].append(texts([e])[0])), sees_controls=True)

    pipeline = (
        PipelineBuilder()
        .add(PassthroughStage("in"), branch("a"), branch("b"), PassthroughStage("out"))
        .connect("in", "a", when=Audio)
        .connect("in", "b", when=lambda e: False)
        .merge("a", "b", into="out")
        .build()
    )
    elements, error = form(pipeline, ["x", control, "y"])
    assert error is None
    assert contents(elements) == [control.content]
    assert seen == {"a": texts([control]), "b": texts([control])}


@forms
def test_30_diamonds_in_series_do_not_multiply_controls(form: Form) -> None:
    """CASE 30: through five diamonds in series a control is still one."""
    builder = PipelineBuilder().add(PassthroughStage("j0"))
    for number in range(5):
        builder.branch(f"j{number}", FilterStage(f"a{number}", lambda e: False), PassthroughStage(f"b{number}"))
        builder.merge(f"a{number}", f"b{number}", into=PassthroughStage(f"j{number + 1}"))
    items = ["x", StreamElement.end_of_turn(), "y", StreamElement.interrupt(), StreamElement.of(KeyError()), "z"]
    elements, error = form(builder.build(), items)
    assert error is None
    assert texts(elements)[-3:] == ["Interrupt", "Failure", "z"] or texts(elements) == [
        "x",
        "EndOfTurn",
        "y",
        "Interrupt",
        "Failure",
        "z",
    ]


@forms
def test_30_failures_of_a_branch(form: Form) -> None:
    """A `Failure` that one branch makes goes on from it alone, once."""

    def fail(text: str) -> str:
        if text == "b":
            raise ValueError(text)
        return text

    pipeline = diamond(MapStage("bad", fail, on=Text, on_error="emit"), FilterStage("none", lambda e: False))
    elements, error = form(pipeline, list("abc"))
    assert error is None
    assert texts(elements) == ["a", "Failure", "c"]
    failure = elements[1].content
    assert isinstance(failure, Failure)
    assert failure.stage == "bad"


@pytest.mark.parametrize("on_a_loop", [True, False])
def test_31_a_hundred_thousand_stages(on_a_loop: bool) -> None:
    """CASE 31: a chain of 100,000 stages builds and runs, in steps linear in its length, without a recursion error."""

    def run(length: int) -> None:
        pipeline = Pipeline.of(*(MapStage(f"s{number}", lambda e: e) for number in range(length)))
        if on_a_loop:
            assert LOOP_FORMS["await"](pipeline, ["x", StreamElement.end_of_turn()]).texts == ["x", "EndOfTurn"]
        else:
            assert pipeline.run(["x"]).text == "x"

    run(100_000)
    assert calls(lambda: run(8_000)) < 8.2 * calls(lambda: run(1_000))


@forms
@pytest.mark.parametrize("kind", ["operator", "diamond", "async", "flat"])
def test_31_many_in_series(form: Form, kind: str) -> None:
    """CASE 31: hundreds of operators, diamonds, asynchronous and 1:N stages in series do not overflow the stack."""
    count = 300
    builder = PipelineBuilder().add(PassthroughStage("j0"))
    for number in range(count):
        if kind == "diamond":
            builder.branch(f"j{number}", FilterStage(f"a{number}", lambda e: False), PassthroughStage(f"b{number}"))
            builder.merge(f"a{number}", f"b{number}", into=PassthroughStage(f"j{number + 1}"))
        else:
            name = f"j{number + 1}"
            stages: dict[str, Stage] = {
                "operator": OperatorStage(name, ops.map(lambda e: e)),
                "async": slow_as(name),
                "flat": FlatMapStage(name, lambda e: (e,)),
            }
            builder.chain(f"j{number}", stages[kind])
    elements, error = form(builder.build(), ["x", StreamElement.end_of_turn(), "y"])
    assert error is None
    assert texts(elements) == ["x", "EndOfTurn", "y"]


def inner(asynchronous: bool) -> Pipeline:
    return (
        PipelineBuilder(name="inner")
        .add(PassthroughStage("in"))
        .branch("in", mark("a", asynchronous), mark("b"))
        .merge("a", "b", into=PassthroughStage("out"))
        .build()
    )


@forms
@pytest.mark.parametrize("asynchronous", [True, False])
def test_32_nested(form: Form, asynchronous: bool) -> None:
    """CASE 32: a pipeline used as a stage behaves as it does alone; its stages have qualified names."""
    nested = inner(asynchronous)
    outer = Pipeline.of(PassthroughStage("first"), nested, PassthroughStage("last"), name="outer")
    items = ["x", StreamElement.end_of_turn(), "y"]
    alone, error = form(nested, items)
    assert error is None
    events: list[Any] = []
    outer.events.subscribe(events.append)
    elements, error = form(outer, items)
    assert error is None
    assert texts(elements) == texts(alone)
    assert [e.sequence for e in elements] == [e.sequence for e in alone]
    started = [event.stage for event in events if event.type == "stage.started"]
    assert sorted(started) == ["first", "inner/a", "inner/b", "inner/in", "inner/out", "last"]
    assert {event.pipeline for event in events} == {"outer"}


@forms
@pytest.mark.parametrize("asynchronous", [True, False])
def test_32_an_error_inside(form: Form, asynchronous: bool) -> None:
    """CASE 32: an error in a nested pipeline names its stage by its qualified name, however deep."""

    async def afail(element: StreamElement) -> StreamElement:
        raise ValueError

    def fail(element: StreamElement) -> StreamElement:
        raise ValueError

    deepest = Pipeline.of(MapStage("bad", afail if asynchronous else fail), name="deepest")
    outer = Pipeline.of(Pipeline.of(deepest, name="middle"), name="outer")
    _, error = form(outer, ["x"])
    assert isinstance(error, StageError)
    assert error.stage == "middle/deepest/bad"


@virtual
async def test_32_two_copies_of_a_nested_pipeline() -> None:
    """CASE 32: a nested pipeline's executions belong to the outer execution."""
    nested = inner(True)
    outer = Pipeline.of(nested, name="outer")
    async with outer.execute(["x"]) as execution:
        assert nested.executions == ()
        assert outer.executions == (execution,)
        await execution
    assert nested.executions == ()


@forms
def test_order_of_leaves(form: Form) -> None:
    """All leaves but sinks feed the output, all stages without an incoming edge read the input."""
    stored: list[str] = []
    pipeline = PipelineBuilder().add(mark("a"), mark("b"), SinkStage("s", stored.append, on=Text)).build()
    elements, error = form(pipeline, ["x", StreamElement.end_of_turn()])
    assert error is None
    assert texts(elements) == ["x.a", "x.b", "EndOfTurn"]
    assert stored == ["x"]


@forms
def test_each_target_gets_what_it_accepts(form: Form) -> None:
    """Each target of a fan-out gets every element that it accepts, and no other."""
    message = Message.user("m")
    pipeline = diamond(MapStage("up", str.upper, on=Text), FilterStage("messages", lambda e: e.message is not None))
    elements, error = form(pipeline, ["a", message])
    assert error is None
    assert texts(elements) == ["A", "Message"]


@forms
@pytest.mark.parametrize("kinds", ["plain", "async"])
def test_interrupt_leaves_a_fan_in_first(form: Form, kinds: str) -> None:
    """An `Interrupt` leaves a fan-in with its first copy, once, and the next turn works."""
    pipeline = diamond(mark("a", kinds == "async"), mark("b", kinds == "async"))
    elements, error = form(pipeline, ["x", StreamElement.interrupt(), "y", StreamElement.end_of_turn()])
    assert error is None
    out = texts(elements)
    assert out.count("Interrupt") == 1
    assert sorted(out[out.index("Interrupt") + 1 : -1]) == ["y.a", "y.b"]
    assert out[-1] == "EndOfTurn"
    assert any(isinstance(content, Interrupt) for content in contents(elements))


@forms
def test_an_ended_branch_counts_as_having_delivered(form: Form) -> None:
    """A branch that has ended does not keep the others' end of turn back."""

    async def first_only(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield element
            return

    pipeline = diamond(StageFunc("short", StageType.TRANSFORM, first_only), mark("long"))
    elements, error = form(pipeline, ["x", StreamElement.end_of_turn(), "y", StreamElement.end_of_turn(), "z"])
    assert error is None
    out = texts(elements)
    assert sorted(out[:2]) == ["x", "x.long"]
    assert out[2:] == ["EndOfTurn", "y.long", "EndOfTurn", "z.long"]
