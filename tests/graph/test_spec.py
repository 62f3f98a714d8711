"""A graph as plain data and back."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import reactivex.operators as ops
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from rxstage.builder import PipelineBuilder
from rxstage.config import Fallback, PipelineConfig, Retry
from rxstage.content import Audio, Image, Text, ToolCall
from rxstage.element import StreamElement
from rxstage.errors import GraphError, MissingExtra, Problem, ProblemKind
from rxstage.graph import registry as registered
from rxstage.graph.model import Edge, Graph
from rxstage.graph.spec import (
    PipelineSpec,
    StageSpec,
    from_spec,
    register_function,
    register_stage,
    register_type,
    to_spec,
)
from rxstage.pipeline import Pipeline
from rxstage.stage import Series, Stage, StageType
from rxstage.stages.basic import (
    FilterStage,
    FlatMapStage,
    GenerateStage,
    MapStage,
    OperatorStage,
    PassthroughStage,
    SinkStage,
    StageFunc,
    stage,
)

HERE = (__name__,)
wrong: Any = 5
shell = os.system  # imported from elsewhere: no spec may get at it through this module
module = subprocess


class Order: ...


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Options(BaseModel):
    times: int = 1
    every: timedelta = timedelta(seconds=3)


class Painter(Stage):
    """A stage with options of all kinds."""

    colour: Colour = Colour.RED
    options: Options = Options()
    anything: Any = None
    words: tuple[str, ...] = ()
    key: SecretStr | None = None

    def apply(self, element: StreamElement) -> StreamElement:
        return element


class Threshold(Stage):
    """A stage with a constructor of its own."""

    doubled: float

    def __init__(self, name: str, threshold: float) -> None:
        super().__init__(name, doubled=threshold * 2)

    def apply(self, element: StreamElement) -> StreamElement:
        return element


def clean(text: str) -> str:
    return text.strip()


def is_urgent(element: StreamElement) -> bool:
    return True


def is_passing(error: BaseException) -> bool:
    return True


def ticks() -> Iterator[int]:
    return iter(range(3))


async def turns(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    async for element in elements:
        yield element


def wait(tries: int) -> float:
    return 0.1 * tries


def make_repeater(name: str, times: int = 2) -> Stage:
    return MapStage(name, lambda text: text * times, on=Text)


def make_nothing() -> int:
    return 3


@stage
def shout(text: str) -> str:
    """A stage that a decorator made."""
    return text.upper()


quiet = MapStage("quiet", clean, on=Text)


DECLARED: dict[str, Any] = {"accepts": (Text, Order)}  # a type checker knows only the fields of a stage


@pytest.fixture(autouse=True)
def _own_names() -> Iterator[None]:
    before = dict(registered.REGISTERED)
    yield
    registered.REGISTERED.clear()
    registered.REGISTERED.update(before)


def of(*stages: Stage) -> Graph:
    graph: Graph = Pipeline.of(*stages).graph
    return graph


def again(graph: Graph, **options: Any) -> Graph:
    """The graph by way of its spec in all of its forms, each of which must give an equal spec again."""
    spec = to_spec(graph)
    forms: list[Any] = [spec, spec.to_dict(), spec.to_json(), spec.to_yaml(), spec.model_dump_json(), spec.model_dump()]
    options.setdefault("allow_imports", HERE)
    graphs = [from_spec(form, **options) for form in forms]
    assert [to_spec(each) for each in graphs] == [spec] * len(forms)
    return graphs[-1]


def refused(spec: Any, **options: Any) -> list[Problem]:
    with pytest.raises(GraphError) as caught:
        from_spec(spec, **options)
    return list(caught.value.problems)


def one(what: str, **options: Any) -> dict[str, Any]:
    """The spec of a pipeline of one stage."""
    return {"stages": [{"name": "a", "stage": what, "options": options}]}


# ------------------------------------------------------------------------------------------ there and back


@pytest.mark.parametrize(
    "made",
    [
        MapStage("a", clean),
        MapStage("a", str.upper, on=Text),
        MapStage("a", clean, on=(Text, Order), emits=(Image, str)),
        MapStage("a", clean, accepts=Audio, concurrency=4, ordered=False, timeout=2.5),
        FilterStage("a", is_urgent, on_error="skip"),
        FlatMapStage("a", clean, interruptible=True, blocking=True),
        SinkStage("a", len),
        PassthroughStage("a"),
        GenerateStage("a", ticks),
        StageFunc("a", StageType.ACCUMULATE, turns, emits=Text),
        MapStage("a", clean, on_error=Retry()),
        MapStage("a", clean, on_error=Retry(5, wait=wait, jitter=0.5, retry_on=(OSError, ValueError), then="emit")),
        MapStage("a", clean, on_error=Retry(retry_on=is_passing, then=Fallback(MapStage("b", clean, on=Text)))),
        MapStage("a", clean, on_error=Fallback(Painter("b"))),
        Painter("a"),
        Painter("a", colour=Colour.BLUE, options=Options(times=3), words=("x", "y"), **DECLARED),
        Painter("a", anything={"$": 1, "n": [1, 2.5, None, True], "t": (1, "x"), "s": {1, 2}, "b": b"\x00"}),
        Painter("a", anything={1: Options(times=2), "f": float("inf"), "c": clean, "k": Audio, "z": frozenset("ab")}),
        Painter("a", anything=[Painter("b"), MapStage("c", clean) >> PassthroughStage("d"), Pipeline.of(Painter("e"))]),
        shout,
    ],
    ids=str,
)
def test_stage_comes_back(made: Stage) -> None:
    """A stage comes back with its class, options and declarations, by way of every form of the spec."""
    graph = again(of(made))
    (back,) = graph.stages.values()
    assert type(back) is type(made)
    assert (back.name, back.type, back.accepts, back.emits) == (made.name, made.type, made.accepts, made.emits)
    for name in type(made).model_fields:
        if name not in ("on_error", "anything"):
            assert getattr(back, name) == getattr(made, name)


def test_values_come_back() -> None:
    """Values that JSON has no form for come back as they were."""
    value = {
        "t": (1, (2, b"x")),
        3: float("-inf"),
        "$": {"s": frozenset({1})},
        "m": Options(times=7),
        "f": [clean, Order],
    }
    (back,) = again(of(Painter("a", anything=value))).stages.values()
    assert isinstance(back, Painter)
    assert back.anything == value


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.just("$") | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_VALUES)
def test_any_plain_value_comes_back(value: Any) -> None:
    """Numbers, texts, bytes, lists, tuples and dicts in any combination survive JSON and YAML."""
    spec = to_spec(of(Painter("a", anything=value)))
    for form in (spec.to_json(), spec.to_yaml()):
        (back,) = from_spec(form, allow_imports=HERE).stages.values()
        assert isinstance(back, Painter)
        assert back.anything == value


def test_policies_come_back() -> None:
    """A retry comes back with its function of the tries, its exceptions, and the stage that it falls back to."""
    policy = Retry(4, wait=wait, retry_on=(TimeoutError, KeyError), then=Fallback(MapStage("spare", clean)))
    (back,) = again(of(MapStage("a", clean, on_error=policy))).stages.values()
    got = back.on_error
    assert (got.attempts, got.wait, got.retry_on) == (4, wait, (TimeoutError, KeyError))
    assert got.then.stage.name == "spare"


def test_edges_come_back() -> None:
    """Rules, routes, buffers, names and configuration come back."""
    graph = (
        PipelineBuilder(PipelineConfig(buffer_size=4, overflow="latest"), name="mine")
        .route(PassthroughStage("a"), (ToolCall, Painter("b")), (is_urgent, Painter("c")), otherwise=Painter("d"))
        .connect("d", Painter("e"), when=(Text, Order), buffer_size=3, overflow="drop_newest")
        .build()
        .graph
    )
    back = again(graph)
    assert back.edges == (
        Edge("a", "b", when=(ToolCall,), route=0),
        Edge("a", "c", when=is_urgent, route=1),
        Edge("a", "d", otherwise=True),
        Edge("d", "e", when=(Text, Order), buffer_size=3, overflow="drop_newest"),
    )
    assert (back.name, back.config, back.nodes) == ("mine", graph.config, graph.nodes)


def test_nested_pipelines_come_back() -> None:
    """A nested pipeline comes back as a pipeline, with its own name and configuration."""
    inner = PipelineBuilder(PipelineConfig(metrics=True), name="inner").chain(Painter("x"), shout).build()
    back = again(of(Painter("a"), inner))
    nested = back.stages["inner"]
    assert isinstance(nested, Pipeline)
    assert nested.graph.nodes == ("x", "shout")
    assert nested.config.metrics


def test_pipeline_from_spec_runs() -> None:
    """A pipeline made of YAML does what its stages do."""
    text = """
        name: hand
        stages:
          - {name: upper, stage: MapStage, options: {fn: "builtins:str.upper", on: Text}}
          - series:
              - {name: strip, stage: MapStage, options: {fn: "builtins:str.strip", on: [Text]}}
              - {name: out, stage: PassthroughStage}
        edges:
          - {source: upper, target: strip, when: Text}
    """
    pipeline = Pipeline.from_spec(text)
    assert pipeline.execute_sync("  hello ").text == "HELLO"
    assert pipeline.to_spec() == Pipeline.from_spec(pipeline.to_spec()).to_spec()


def test_json_is_lean() -> None:
    """Only what is not the default is written."""
    assert json.loads(to_spec(of(MapStage("a", len), PassthroughStage("b"))).to_json()) == {
        "rxstage": 1,
        "stages": [
            {"name": "a", "stage": "MapStage", "options": {"fn": "builtins:len"}},
            {"name": "b", "stage": "PassthroughStage"},
        ],
        "edges": [{"source": "a", "target": "b"}],
    }


def test_method_and_class_of_a_module() -> None:
    """Functions in classes are found by their qualified name."""
    graph = again(of(MapStage("a", Tools.twice), MapStage("b", Tools.make, on=Text)))
    assert [each.fn for each in graph.stages.values()] == [Tools.twice, Tools.make]  # type: ignore[attr-defined]


class Tools:
    @staticmethod
    def twice(value: Any) -> Any:
        return value

    @classmethod
    def make(cls, text: str) -> str:
        return text


# ------------------------------------------------------------------------------------------ registered names


def test_registered_stage_is_the_same_object() -> None:
    """A registered stage object stands for itself, whatever it is made of."""
    settle = OperatorStage("settle", ops.debounce(0.3))
    assert register_stage("settle", settle) is settle
    spec = to_spec(of(settle))
    assert spec.stages == (StageSpec(name="settle", stage="settle"),)
    assert from_spec(spec).stages["settle"] is settle


def test_registered_stage_under_another_name() -> None:
    """A registered stage can be used several times, under names of its own."""
    register_stage("settle", OperatorStage("settle", ops.debounce(0.3)))
    spec = {"stages": [{"name": "one", "stage": "settle"}, {"name": "two", "stage": "settle"}]}
    graph = from_spec(spec)
    assert [each.name for each in graph.stages.values()] == ["one", "two"]
    assert to_spec(from_spec(to_spec(graph))) == to_spec(graph)


def test_registered_factory_gets_the_options() -> None:
    """A factory is called with name and options, and the spec remembers it."""
    register_stage("repeat", make_repeater)
    graph = from_spec(one("repeat", times=3))
    assert to_spec(graph).stages[0] == StageSpec(name="a", stage="repeat", options={"times": 3})
    assert to_spec(from_spec(to_spec(graph))) == to_spec(graph)
    assert Pipeline(graph).execute_sync("x").text == "xxx"


def test_registered_factory_without_a_name() -> None:
    """A factory that takes no name is renamed."""
    register_stage("plain", lambda: MapStage("whatever", str.upper, on=Text))
    graph = from_spec(one("plain"))
    assert graph.nodes == ("a",)
    assert to_spec(from_spec(to_spec(graph))) == to_spec(graph)


def test_registered_class_function_and_type() -> None:
    """Registered classes, functions and types go by their names, without any import."""

    class Local(Stage):
        times: int = 1

        def apply(self, element: StreamElement) -> StreamElement:
            return element

    class Thing: ...

    def local(element: Any) -> Any:
        return element

    register_stage("local-stage", Local)
    register_function("local", local)
    register_type("thing", Thing)
    bound = Tools()
    register_function("bound", bound.make)
    graph = (
        PipelineBuilder()
        .chain(Local("a", times=2), MapStage("b", local, on=Thing), MapStage("c", bound.make))
        .connect("a", "c", when=local)
        .build()
        .graph
    )
    spec = to_spec(graph)
    assert [each.stage for each in spec.stages] == ["local-stage", "MapStage", "MapStage"]
    assert spec.stages[1].options == {"fn": "local", "on": "thing"}
    assert spec.edges[-1].predicate == "local"
    assert to_spec(from_spec(spec)) == spec


def test_registry_of_one_call() -> None:
    """A registry that is passed goes before the registered names, and holds for that call only."""
    register_function("f", clean)
    names = {"f": lambda text: text}
    graph = from_spec(one("MapStage", fn="f"), registry=names)
    assert graph.stages["a"].fn is names["f"]  # type: ignore[attr-defined]
    assert to_spec(graph, registry=names).stages[0].options == {"fn": "f"}
    with pytest.raises(GraphError):
        to_spec(graph)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: register_stage("x", wrong), TypeError, "takes a stage or what makes one, got 5"),
        (lambda: register_function("x", wrong), TypeError, "takes a function, got 5"),
        (lambda: register_type("x", wrong), TypeError, "takes a class, got 5"),
        (lambda: register_function("", len), ValueError, "must not be empty"),
        (lambda: register_function("a:b", len), ValueError, "have no colon"),
        (lambda: register_function(wrong, len), TypeError, "must be a string, got 5"),
        (lambda: register_function("taken", clean), ValueError, "registered for .*len.* already"),
    ],
    ids=range(7),
)
def test_wrong_registrations(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    """What cannot be registered is refused, and a taken name is, unless it is replaced."""
    register_function("taken", len)
    with pytest.raises(error, match=message):
        call()
    register_function("taken", len)
    register_function("taken", clean, replace=True)
    assert registered.REGISTERED["taken"] is clean


# ------------------------------------------------------------------------------------------ what has no spec


def test_all_that_has_no_name_is_told_at_once() -> None:
    """Lambdas, local functions, partials and operators are told together, each with the remedy."""

    def local(element: Any) -> Any:
        return element

    graph = (
        PipelineBuilder()
        .chain(
            MapStage("a", lambda text: text),
            MapStage("b", local),
            MapStage("c", functools.partial(clean)),
            OperatorStage("d", ops.debounce(1.0)),
            Painter("e", anything=object()),
            Painter("f", key=SecretStr("x")),
        )
        .connect("a", "c", when=lambda element: True)
        .build()
        .graph
    )
    with pytest.raises(GraphError) as caught:
        to_spec(graph)
    told = [problem.message for problem in caught.value.problems]
    assert len(told) == 7
    assert told[0].startswith("stage 'a' has no spec: function '")
    assert (
        "is a lambda and cannot be imported; define it in a module, or give it a name with register_function" in told[0]
    )
    assert "is local to a function and cannot be imported" in told[1]
    assert "has no name that it could be imported by" in told[2]
    assert "register_stage" in told[4]
    assert told[6].startswith("edge 'a' -> 'c' has no spec: ")


def test_function_whose_name_is_taken() -> None:
    """A function that its import name does not lead to is refused."""

    def impostor(text: str) -> str:
        return text

    impostor.__qualname__ = "clean"
    with pytest.raises(GraphError, match="stands for something else"):
        to_spec(of(MapStage("a", impostor)))
    impostor.__qualname__ = "gone"
    with pytest.raises(GraphError, match="cannot be imported"):
        to_spec(of(MapStage("a", impostor)))


def test_nesting_has_an_end() -> None:
    """Pipelines that are nested too deep are refused in both directions, without a deep stack."""
    inner: Stage = PassthroughStage("a")
    for level in range(80):
        inner = Pipeline.of(inner, name=f"level-{level}")
    with pytest.raises(GraphError, match="nested more than 50 deep"):
        to_spec(of(inner))
    spec: dict[str, Any] = {"stages": [{"stage": "PassthroughStage", "name": "a"}]}
    for level in range(80):
        spec = {"name": f"level-{level}", "stages": [{"pipeline": spec}]}
    with pytest.raises((GraphError, ValidationError)):
        from_spec(spec)
    for _ in range(3000):
        spec = {"stages": [{"pipeline": spec}]}
    with pytest.raises((GraphError, ValidationError)):
        from_spec(spec)


# ------------------------------------------------------------------------------------------ wrong specs


def test_all_unknown_names_are_told_at_once() -> None:
    """Unknown stages, functions, types and ends of edges are told together, with the nearest names."""
    spec = {
        "stages": [
            {"name": "a", "stage": "MapStge"},
            {"name": "b", "stage": "MapStage", "options": {"fn": "nothing", "on": "Txt"}},
            {"name": "c", "stage": "MapStage", "options": {"fn": "builtins:len", "on": "Txt"}},
            {"name": "in", "pipeline": {"stages": [{"name": "d", "stage": "nope"}]}},
            {"name": "f", "stage": "PassthroughStage", "accepts": "Order"},
        ],
        "edges": [
            {"source": "a", "target": "bb", "when": ["Imge"]},
            {"source": "a", "target": "c", "predicate": "unknown"},
        ],
    }
    found = refused(spec)
    told = "\n".join(problem.message for problem in found)
    assert {problem.kind for problem in found} == {ProblemKind.UNKNOWN_NAME}
    for part in (
        "stage 'a' cannot be made: stage 'MapStge' is unknown, did you mean 'MapStage'?",
        "stage 'b' cannot be made: function 'nothing' is unknown",
        "stage 'c' cannot be made: type 'Txt' is unknown, did you mean 'Text'?",
        "in 'in': stage 'd' cannot be made: stage 'nope' is unknown, register it with register_stage",
        "stage 'f' cannot be made: type 'Order' is unknown",
        "edge 'a' -> 'bb' cannot be made: type 'Imge' is unknown, did you mean 'Image'?",
        "edge 'a' -> 'c' cannot be made: function 'unknown' is unknown",
        "edge target 'bb' is unknown",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (one("MapStage"), "ValueError: it needs 'fn' among its options"),
        ({"stages": [{"stage": "MapStage", "options": {"fn": "builtins:len"}}]}, "it needs 'name'"),
        (one("MapStage", fn="builtins:len", concurrency=0), "concurrency must be at least 1"),
        (one("MapStage", fn="builtins:len", concurrency="many"), "concurrency: Input should be a valid integer"),
        (one("MapStage", fn="builtins:len", colour="red"), "colour: there is no option 'colour'; there are fn, on, "),
        (one("MapStage", fn=5), "needs a function, got 5"),
        (one("MapStage", fn={"$": "nothing"}), "is no form of an option"),
        (one("MapStage", fn={"$": "function", "name": 5}), "is no form of an option"),
        (one("MapStage", fn={"$": "model", "type": "Text", "fields": {}}), "is no pydantic model"),
        (one("finished", times=3), "is a finished stage and takes no options"),
        (one("nothing"), "gave 3, and no stage"),
        (one("raises"), "RuntimeError: no such thing"),
        ({"stages": [{"name": "other", "stage": "nested"}]}, "a pipeline cannot be renamed"),
        ({"stages": [{"name": "a", "series": []}]}, "a series needs at least one stage"),
        ({"stages": [{"stage": "finished"}, {"stage": "finished"}]}, "2 stages have the name 'finished'"),
        ({"stages": []}, "has no stages"),
    ],
    ids=range(16),
)
def test_wrong_stages_are_told_with_the_reason(spec: Any, message: str) -> None:
    """A stage that cannot be made is told with what its class says."""

    def raises() -> Stage:
        raise RuntimeError("no such thing")

    names = {
        "finished": PassthroughStage("finished"),
        "nothing": make_nothing,
        "raises": raises,
        "nested": Pipeline.of(PassthroughStage("x"), name="nested"),
    }
    (problem, *_) = refused(spec, registry=names)
    assert message in problem.message


def test_name_of_the_wrong_thing() -> None:
    """A name that stands for something of another kind is told with what it stands for."""
    names = {"five": 5, "loop": PassthroughStage("loop")}
    for spec, message in (
        (one("five"), "'five' is 5, and no stage"),
        (one("MapStage", fn="five"), "'five' is 5, and no function"),
        (one("MapStage", fn="loop"), "'loop' is None, and no function"),
        (one("MapStage", fn="builtins:len", on="five"), "'five' is 5, and no class"),
    ):
        (problem,) = refused(spec, registry=names)
        assert message in problem.message


def test_other_constructions() -> None:
    """A single operator need not be in a list, and a pipeline can be renamed where it is nested."""
    register_function("settle", ops.debounce(0.3))
    graph = from_spec(one("OperatorStage", operators="settle"))
    assert to_spec(graph).stages[0].options == {"operators": ["settle"]}
    inner = {"name": "inner", "stages": [{"name": "x", "stage": "PassthroughStage"}]}
    assert from_spec({"stages": [{"name": "other", "pipeline": inner}]}).nodes == ("other",)


@pytest.mark.parametrize(
    "spec",
    [
        5,
        {"stages": 5},
        {"stages": [{"name": "a"}]},
        {"stages": [{"name": "a", "stage": "x", "series": []}]},
        {"stages": [{"name": "a", "series": [], "options": {"x": 1}}]},
        {"stage": []},
        {"rxstage": 2},
        {"name": ""},
        {"config": {"buffer_size": 0}},
        {"edges": [{"source": "a", "target": "b", "when": ["Text"], "predicate": "x"}]},
        {"edges": [{"source": "a", "target": "b", "otherwise": True, "route": 1}]},
        {"edges": [{"source": "a", "target": "b", "route": 1}, {"source": "a", "target": "c", "route": 1}]},
        {
            "edges": [
                {"source": "a", "target": "b", "otherwise": True},
                {"source": "a", "target": "c", "otherwise": True},
            ]
        },
        {"edges": [{"source": "a", "target": "b", "buffer_size": 0}]},
        {"edges": [{"source": "a", "target": "b", "overflow": "x"}]},
        "{",
        '{"stages": ' + "[" * 5000,
    ],
    ids=range(17),
)
def test_what_is_no_spec_is_a_validation_error(spec: Any) -> None:
    """What has not the form of a spec is refused by pydantic, which tells where."""
    with pytest.raises(ValidationError):
        from_spec(spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just text", r"Path\(...\).read_text\(\)"),
        ("[1, 2]", "a spec is an object"),
        ("a: [", "neither JSON nor YAML"),
        ("name: &x y\nother: *x", "no aliases"),
        ("!!python/object/apply:os.system ['true']", "neither JSON nor YAML"),
        ("[" * 5000, "neither JSON nor YAML"),
    ],
    ids=range(6),
)
def test_text_that_is_no_spec(text: str, message: str) -> None:
    """Text that is no JSON or YAML object is refused, and so is YAML that could do harm."""
    with pytest.raises(ValueError, match=message):
        from_spec(text)


def test_bytes_are_text() -> None:
    """A spec can be read as bytes."""
    assert from_spec(to_spec(of(PassthroughStage("ä"))).to_json().encode()).nodes == ("ä",)


def test_yaml_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyYAML the message says what to install, and JSON goes on working."""
    spec = to_spec(of(PassthroughStage("a")))
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtra, match=r"rxstage\[yaml\]"):
        spec.to_yaml()
    with pytest.raises(MissingExtra, match=r"rxstage\[yaml\]"):
        from_spec("name: x")
    assert from_spec(spec.to_json()).nodes == ("a",)


def test_constructor_of_its_own_needs_a_factory() -> None:
    """A class whose constructor takes other things than its fields is told what is missing."""
    (problem,) = refused(one(f"{__name__}:Threshold"), allow_imports=HERE)
    assert "missing 1 required positional argument: 'threshold'" in problem.message
    graph = from_spec(one(f"{__name__}:Threshold", threshold=2.0), allow_imports=HERE)
    assert graph.stages["a"].doubled == 4.0  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------ imports


def test_nothing_is_imported_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming a module does not import it, unless that was allowed."""
    (tmp_path / "trap_of_a_spec.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("trap_of_a_spec")
    name = "trap_of_a_spec:x"
    for spec in (
        one(name),
        one("MapStage", fn=name),
        one("MapStage", fn="builtins:len", on=name),
        one("MapStage", fn="builtins:len", on_error={"$": "retry", "retry_on": name}),
        one("MapStage", fn="builtins:len", on_error={"$": "retry", "wait": {"$": "function", "name": name}}),
        one("MapStage", fn="builtins:len", on_error={"$": "model", "type": name, "fields": {}}),
        {"stages": [{"name": "a", "stage": "PassthroughStage", "accepts": [name]}]},
        {
            "stages": [{"name": "a", "stage": "PassthroughStage"}],
            "edges": [{"source": "a", "target": "a", "when": name}],
        },
    ):
        for allowed in (False, (), HERE, ("trap_of", "trap")):
            assert any("must not be imported" in each.message for each in refused(spec, allow_imports=allowed))
    assert "trap_of_a_spec" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        f"{__name__}:shell",
        f"{__name__}:os.system",
        f"{__name__}:module.run",
        f"{__name__}:clean.__globals__",
        f"{__name__}:clean.__class__",
        f"{__name__}:Painter.__init__",
        f"{__name__}:Painter.model_validate",
        f"{__name__}:Path.unlink",
        f"{__name__}:stage",
        "os:system",
        "builtins:eval",
        "builtins:exec",
        "builtins:open",
        "builtins:getattr",
        "builtins:__import__",
        "builtins:str.__subclasses__",
        "builtins:str.format",
        "rxstage.errors:require",
        "rxstage.stages.basic:inspect.getsource",
        "rxstage.stages.basic:MapStage",
        ":x",
        "x:",
        "..x:y",
        "x y:z",
    ],
)
def test_allowed_package_opens_no_other(name: str) -> None:
    """A function must have been made in an allowed package; what that imports, and its insides, stay closed."""
    assert len(refused(one("MapStage", fn=name), allow_imports=HERE)) == 1


@pytest.mark.parametrize(
    "name",
    ["rxstage.cli:main", "rxstage.stages.basic:stage", "rxstage.stages.basic:Callable", "rxstage.pipeline:Pipeline"],
)
def test_only_stage_classes_of_the_library_are_open(name: str) -> None:
    """Of the library itself a spec gets at stage classes in `rxstage.stages`, and nothing else."""
    assert len(refused(one(name))) == 1


def test_own_stages_always_work() -> None:
    """Stages of the library are found by short and by import name, without any permission."""
    for name in ("PassthroughStage", "rxstage.stages.basic:PassthroughStage"):
        assert isinstance(from_spec(one(name)).stages["a"], PassthroughStage)


def test_everything_can_be_allowed() -> None:
    """With True any name may be imported, from wherever."""
    graph = from_spec(one("MapStage", fn="operator:neg", on="int"), allow_imports=True)
    assert Pipeline(graph).execute_sync(3).elements[0].content.value == -3
    assert from_spec(one(f"{__name__}:quiet"), allow_imports=True).stages["a"].fn is clean  # type: ignore[attr-defined]


def test_module_that_raises_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that cannot be imported is told with the reason."""
    (tmp_path / "broken_of_a_spec.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for fn in ("broken_of_a_spec:x", "missing_of_a_spec:x"):
        (problem,) = refused(one("MapStage", fn=fn), allow_imports=True)
        assert "cannot be imported: " in problem.message


def test_single_package_must_not_be_a_string() -> None:
    """A single string would be read letter by letter, so it is refused."""
    with pytest.raises(TypeError, match=r"allow_imports=\('mine',\)"):
        from_spec({"stages": []}, allow_imports="mine")


def test_series_in_a_spec_are_flattened() -> None:
    """A series of a spec stands for its stages, connected."""
    spec = PipelineSpec(
        stages=(
            StageSpec(series=tuple(StageSpec(name=name, stage="PassthroughStage") for name in "abc")),
            StageSpec(series=(StageSpec(name="d", stage="PassthroughStage"),)),
        )
    )
    graph = from_spec(spec)
    assert [(edge.source, edge.target) for edge in graph.edges] == [("a", "b"), ("b", "c")]
    assert graph.nodes == tuple("abcd")
    assert not any(isinstance(each, Series) for each in graph.stages.values())
