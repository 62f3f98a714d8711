"""Fused runs, against an interpreter that does one step after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wiring import Out, callback, make_scope

from rxstage import (
    Audio,
    Data,
    EndOfTurn,
    Failure,
    Fallback,
    FilterStage,
    FlatMapStage,
    MapStage,
    Message,
    PassthroughStage,
    Pipeline,
    PipelineConfig,
    Retry,
    Stage,
    StageError,
    StreamElement,
    Text,
)
from rxstage.content import content_of, payload_of
from rxstage.element import ControlElement
from rxstage.flow.callback import Kind, Select, kinds_of
from rxstage.flow.fuse import FusedRun

# ------------------------------------------------------------------------------------------ the naive interpreter

FORMS: dict[str, Select] = {
    "any": Select(),
    "element of Text": Select(frozenset((Text,))),
    "payload of Text": Select(frozenset((Text,)), (), "payload"),
    "content of Text": Select(frozenset((Text,)), (), "content"),
    "payload of Data": Select(frozenset((Data,)), (), "payload"),
    "content of Message": Select(frozenset((Message,)), (), "content"),
    "payload of Message": Select(frozenset((Message,)), (), "payload"),
    "element of Text or Data": Select(frozenset((Text, Data))),
    "payload of Text or Data": Select(frozenset((Text, Data)), (), "payload"),
    "payload of int": Select(frozenset(), (int,), "payload"),
    "element of int or Text": Select(frozenset((Text,)), (int,)),
    "payload of all": Select(frozenset(), (), "payload"),
    "content of all": Select(frozenset(), (), "content"),
}
RESULTS = (
    "same",
    "text",
    "number",
    "content",
    "message",
    "element",
    "turn",
    "exception",
    "failure",
    "none",
    "raise",
    "sometimes",
)
POLICIES: dict[str, Any] = {
    "fail": "fail",
    "emit": "emit",
    "skip": "skip",
    "retry": Retry(attempts=3),
    "retry then emit": Retry(attempts=2, then="emit"),
    "retry others": Retry(attempts=3, retry_on=KeyError, then="skip"),
    "fallback": Fallback(MapStage("spare", lambda e: "spare")),
    "fallback that fails": Fallback(MapStage("spare", lambda e: 1 / 0)),
}


class Boom(Exception):
    pass


class Step:
    """One step of a run: what it does, and how often it was called."""

    def __init__(self, kind: Kind, form: str, result: str, policy: str) -> None:
        self.kind, self.form, self.result, self.policy = kind, form, result, policy
        if kind is Kind.PASS:
            self.form = "any"  # a passthrough has no payload to ask for
        self.calls = 0

    def __repr__(self) -> str:
        return f"<{self.kind.value} {self.form!r} {self.result} {self.policy}>"

    def function(self, argument: Any) -> Any:
        if self.kind is Kind.PASS:
            return argument
        self.calls += 1
        if self.result == "raise" or (self.result == "sometimes" and self.calls % 2):
            raise Boom(self.calls)
        if self.kind is Kind.FILTER:
            return self.calls % 3
        if self.kind is Kind.FLAT:
            return iter([self.one(argument, n) for n in range(self.calls % 4)])
        if self.kind is Kind.SINK:
            return argument
        return self.one(argument, 0)

    def one(self, argument: Any, number: int) -> Any:
        return {
            "same": argument,
            "text": f"t{number}",
            "number": number,
            "content": Data("c"),
            "message": Message.user("m"),
            "element": StreamElement.of("e", metadata={"made": number}, sequence=5),
            "turn": StreamElement(EndOfTurn(), sequence=3),
            "exception": ValueError("as a value"),
            "failure": Failure(ValueError("f"), "elsewhere"),
            "none": None,
            "sometimes": "ok",
        }[self.result]


class Naive:
    """Runs the steps one by one, as the contract says it."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.out: list[Any] = []
        self.received = [0] * len(steps)
        self.emitted = [0] * len(steps)

    def push(self, element: StreamElement, index: int = 0) -> None:
        if index == len(self.steps):
            self.out.append(element)
            return
        step = self.steps[index]
        self.received[index] += 1
        if step.kind is Kind.PASS:
            results: Any = [element]
        elif not FORMS[step.form].takes(element):
            results = [] if step.kind is Kind.SINK else [element]
        else:
            results = self.policed(step, index, element)
        for each in results:
            if each.__class__ is StreamElement:
                self.emitted[index] += 1
                self.push(each, index + 1)
            else:
                self.out.append(each)

    def policed(self, step: Step, index: int, element: StreamElement) -> Iterator[Any] | list[Any]:
        policy = POLICIES[step.policy]
        if policy == "fail":
            return self.failing(step, index, element)
        tries = 0
        while True:
            tries += 1
            try:
                return list(self.once(step, index, element))
            except Exception as error:
                if isinstance(policy, Retry):
                    if tries < policy.attempts and policy.applies(error):
                        continue
                    policy = policy.then
                if policy == "skip":
                    return []
                if policy == "emit":
                    return [self.settled(Failure(error, f"s{index}"), index, element)]
                if isinstance(policy, Fallback):
                    try:
                        return [self.settled(policy.stage.fn(element), index, element)]
                    except Exception as second:
                        error = second
                raise StageError(f"s{index}", None, element, error) from error

    def failing(self, step: Step, index: int, element: StreamElement) -> Iterator[Any]:
        items = self.once(step, index, element)
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as error:
                raise StageError(f"s{index}", None, element, error) from error
            yield item

    def once(self, step: Step, index: int, element: StreamElement) -> Iterator[Any]:
        select = FORMS[step.form]
        argument: Any = element
        if select.form != "element":
            argument = element.content if select.form == "content" else payload_of(element.content)
        result = step.function(argument)
        if step.kind is Kind.FILTER:
            if result:
                yield element
        elif step.kind is Kind.FLAT:
            for item in result:
                yield self.settled(item, index, element)
        elif step.kind is Kind.MAP:
            yield self.settled(result, index, element)

    def settled(self, result: Any, index: int, element: StreamElement) -> Any:
        if isinstance(result, StreamElement) and not result.is_control:
            return result
        if result is None:
            raise TypeError(f"the function of stage 's{index}' returned None")
        if isinstance(result, StreamElement):
            return result
        content = content_of(result)
        if isinstance(content, Failure) and not content.stage:
            content = Failure(content.error, f"s{index}")
        return element.replace(content=content, source=f"s{index}")


def comparable(element: StreamElement) -> Any:
    content: Any = element.content
    if isinstance(content, Failure):
        content = ("Failure", type(content.error), str(content.error)[:30], content.stage)
    # timestamp and origin are stamped by the engine on controls that a stage made
    return content, dict(element.metadata), element.priority, element.sequence, element.source


def run_both(steps: list[tuple[Kind, str, str, str]], elements: list[StreamElement], metered: bool) -> None:
    fused, naive_steps = [Step(*step) for step in steps], [Step(*step) for step in steps]
    scope = make_scope(metrics=metered)
    out = Out()
    run = FusedRun(
        [
            callback(
                f"s{n}", step.function, step.kind, select=FORMS[step.form], policy=POLICIES[step.policy], node=n + 1
            )
            for n, step in enumerate(fused)
        ],
        metered,
    )
    port = run.open(scope, out.port())
    naive = Naive(naive_steps)
    for element in elements:
        errors: list[StageError | None] = [None, None]
        for which, push in enumerate((port.push, naive.push)):
            try:
                push(element)
            except StageError as error:
                errors[which] = error
        mine, theirs = errors
        assert [comparable(e) for e in out.elements] == [comparable(e) for e in naive.out]
        assert (mine is None) == (theirs is None), (mine, theirs)
        if mine is not None and theirs is not None:
            assert mine.stage == theirs.stage
            assert comparable(mine.element) == comparable(theirs.element)
            assert type(mine.__cause__) is type(theirs.__cause__)
            break
        assert [step.calls for step in fused] == [step.calls for step in naive_steps]
    else:
        meters = scope.refresh()
        assert [meters[f"s{n}"].received for n in range(len(steps))] == naive.received
        assert [meters[f"s{n}"].emitted for n in range(len(steps))] == naive.emitted
    for element in out.elements:
        if isinstance(element, ControlElement) and not isinstance(element.content, Failure):
            assert 1 <= element.origin <= len(steps)
    port.done()
    assert out.dones == 1


kinds = st.sampled_from([Kind.MAP, Kind.FILTER, Kind.FLAT, Kind.SINK, Kind.PASS])
step = st.tuples(kinds, st.sampled_from(sorted(FORMS)), st.sampled_from(RESULTS), st.sampled_from(sorted(POLICIES)))
harmless = st.tuples(
    st.sampled_from([Kind.MAP, Kind.FLAT, Kind.PASS]),
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(["same", "text", "number", "content", "message", "element", "sometimes"]),
    st.sampled_from(sorted(POLICIES)),
)
element = st.builds(
    lambda value, n: StreamElement.of(value, metadata={"n": n}, sequence=n, timestamp=float(n)),
    st.sampled_from(["a", "", 7, 0, None, Message.user("x"), Audio(b"", 8000), True, b""]),
    st.integers(1, 1000),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(step, min_size=1, max_size=6), st.lists(element, min_size=1, max_size=8), st.booleans())
def test_any_run(steps: list[Any], elements: list[StreamElement], metered: bool) -> None:
    """Any run of steps gives, counts and fails as the interpreter does."""
    run_both(steps, elements, metered)


@settings(max_examples=150, deadline=None)
@given(st.lists(harmless, min_size=1, max_size=12), st.lists(element, min_size=1, max_size=8), st.booleans())
def test_long_ways(steps: list[Any], elements: list[StreamElement], metered: bool) -> None:
    """Runs whose steps mostly hand on, so that the later ones are reached."""
    run_both(steps, elements, metered)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("kind", [Kind.MAP, Kind.FILTER, Kind.FLAT, Kind.SINK])
def test_each_form_and_result(form: str, result: str, kind: Kind) -> None:
    """Every selection with every result under every policy, between two passing steps."""
    values = ["a", 7, Message.user("x"), "b", 8, None, "c", True]
    elements = [StreamElement.of(value, sequence=n + 1) for n, value in enumerate(values)]
    for policy in POLICIES:
        around: tuple[Kind, str, str, str] = (Kind.MAP, "any", "same", "fail")
        run_both([around, (kind, form, result, policy), around], elements, metered=False)


# ------------------------------------------------------------------------------------------ lengths


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 127, 128, 129, 200])
@pytest.mark.parametrize("flat_at", [None, 0, 63, 64])
@pytest.mark.parametrize("metered", [False, True])
def test_lengths(length: int, flat_at: int | None, metered: bool) -> None:
    """Runs round the length of a segment, with and without a 1:N step in them: every step sees everything in order."""
    steps: list[tuple[Kind, str, str, str]] = []
    for n in range(length):
        kind = Kind.FLAT if n == flat_at else (Kind.MAP, Kind.PASS, Kind.FILTER)[n % 3] if n < 3 else Kind.MAP
        steps.append((kind, ("any", "payload of Text", "element of Text")[n % 3], "same", "fail"))
    run_both(steps, [StreamElement.of(f"x{n}", sequence=n) for n in range(1, 9)], metered)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_error_at_each_end(length: int) -> None:
    """In runs of any length the first, middle and last step is named, with the element that it was given."""
    for bad in {0, length // 2, length - 1}:
        scope, out = make_scope(), Out()

        def count(element: StreamElement) -> StreamElement:
            return element.replace(content=(element.data or 0) + 1)

        def fails(element: StreamElement, bad: int = bad) -> StreamElement:
            raise Boom(f"at {bad}")

        run = FusedRun([callback(f"s{n}", fails if n == bad else count) for n in range(length)], False)
        with pytest.raises(StageError) as caught:
            run.open(scope, out.port()).push(StreamElement.of(0))
        assert caught.value.stage == f"s{bad}"
        assert caught.value.element.data == bad
        assert isinstance(caught.value.__cause__, Boom)
        assert scope.refresh()[f"s{bad}"].errors == 1
        assert not out.elements


def test_long_pipelines_do_not_recurse() -> None:
    """CASE 31: thousands of plain stages, and dozens of 1:N ones, need no deep call stack."""
    plain = Pipeline.of(*(MapStage(f"m{n}", lambda e: e) for n in range(5000)))
    assert plain.run(["a"]).text == "a"
    flats = Pipeline.of(*(FlatMapStage(f"f{n}", lambda e: [e]) for n in range(500)))
    assert flats.run(["a"]).text == "a"


# ------------------------------------------------------------------------------------------ whose error it is


def failing_out(error: BaseException) -> Out:
    class Raising(Out):
        def port(self) -> Any:
            port = super().port()
            port.push = port.control = self._raise
            return port

        def _raise(self, element: StreamElement) -> None:
            raise error

    return Raising()


@pytest.mark.parametrize("result", ["same", "turn"])
@pytest.mark.parametrize("kind", [Kind.MAP, Kind.FLAT])
def test_errors_from_behind(kind: Kind, result: str) -> None:
    """STYLE 4: what the next node raises is never blamed on a step of the run, content or control."""
    error = RuntimeError("behind")
    made = Step(kind, "any", result, "fail")
    made.calls = 2  # of a 1:N step the third call gives several
    run = FusedRun([callback("s0", made.function, kind)], False)
    port = run.open(make_scope(), failing_out(error).port())
    with pytest.raises(RuntimeError, match="behind") as caught:
        port.push(StreamElement.of("a"))
    assert caught.value is error


@pytest.mark.parametrize("policy", ["fail", "emit", "skip"])
@pytest.mark.parametrize("kind", [Kind.MAP, Kind.FILTER, Kind.FLAT, Kind.SINK])
def test_cancelled_is_no_element_error(kind: Kind, policy: str) -> None:
    """CASE 8: CancelledError fails the stage whatever its policy; KeyboardInterrupt goes through as it is."""

    def raising(error: BaseException) -> Callable[[Any], Any]:
        def function(_: Any) -> Any:
            raise error

        return function

    run = FusedRun([callback("s0", raising(asyncio.CancelledError()), kind, policy=policy)], False)
    with pytest.raises(StageError) as caught:
        run.open(make_scope(), Out().port()).push(StreamElement.of("a"))
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    run = FusedRun([callback("s0", raising(KeyboardInterrupt()), kind, policy=policy)], False)
    with pytest.raises(KeyboardInterrupt):
        run.open(make_scope(), Out().port()).push(StreamElement.of("a"))


@pytest.mark.parametrize("on", [None, Text, (Text, Data)])
def test_stage_error_of_a_nested_run(on: Any) -> None:
    """A function that runs a pipeline of its own and lets its StageError through fails under its own name."""
    inner = Pipeline.of(MapStage("inner", lambda e: 1 / 0))
    outer = Pipeline.of(MapStage("outer", lambda e: inner.run(["x"]).text, on=on), config=PipelineConfig())
    with pytest.raises(StageError) as caught:
        outer.run(["a"])
    assert caught.value.stage == "outer"
    assert isinstance(caught.value.__cause__, StageError)
    assert caught.value.__cause__.stage == "inner"


def test_recursion() -> None:
    """A run that is entered again from inside a function of its own keeps apart what belongs to which call."""
    port: Any = None

    def again(element: StreamElement) -> StreamElement:
        if element.data:
            port.push(element.replace(content=element.data - 1))
        return element

    def fails_at_one(element: StreamElement) -> StreamElement:
        if element.data == 1:
            raise Boom
        return element

    out = Out()
    port = FusedRun([callback("s0", again), callback("s1", fails_at_one)], False).open(make_scope(), out.port())
    with pytest.raises(StageError) as caught:
        port.push(StreamElement.of(3))
    assert caught.value.stage in ("s0", "s1")
    assert out.names == [0]


def test_awaitable_of_a_plain_function() -> None:
    """A plain function that returns a coroutine is told to become async, instead of passing the coroutine on."""

    async def work(text: str) -> str:
        return text

    made: list[Any] = []

    def plain(text: str) -> Any:
        made.append(work(text))
        return made[-1]

    with pytest.raises(StageError, match="async def"):
        Pipeline.of(MapStage("plain", plain, on=Text)).run(["a"])
    made[0].close()


def test_none_says_what_to_do() -> None:
    """None is an error that says to use a filter; from any kind of stage that gives elements."""
    stages: list[Stage] = [MapStage("bad", lambda e: None), FlatMapStage("bad", lambda e: [None])]
    for stage in stages:
        with pytest.raises(StageError, match="FilterStage") as caught:
            Pipeline.of(stage).run(["a"])
        assert caught.value.stage == "bad"


def test_selected_kinds() -> None:
    """Declared types are split into kinds of content and types of values; `str` is Text, an element is everything."""
    assert kinds_of((str, Audio, int)) == (frozenset((Text, Audio)), (int,))
    assert kinds_of((StreamElement,)) == (frozenset(), ())
    assert Select().everything
    assert not Select(frozenset((Text,))).everything


def test_metrics_of_a_run() -> None:
    """With metrics every stage of a run has times, sampled past the first; results are the same."""
    pipeline = Pipeline.of(
        MapStage("a", str.upper, on=Text),
        FilterStage("b", lambda text: text != "X7", on=Text),
        FlatMapStage("c", lambda text: [text, text], on=Text),
        PassthroughStage("d"),
        config=PipelineConfig(metrics=True),
    )
    result = pipeline.run([f"x{n}" for n in range(500)])
    assert len(result.elements) == 998
    stages = result.metrics.stages
    assert (stages["a"].received, stages["b"].emitted, stages["c"].emitted) == (500, 499, 998)
    for name in "abc":
        p50 = stages[name].p50
        assert p50 is not None
        assert p50 >= 0
