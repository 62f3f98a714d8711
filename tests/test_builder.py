"""The fluent way to a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from counting import calls
from hypothesis import given
from hypothesis import strategies as st

from rxstage.builder import PipelineBuilder
from rxstage.config import PipelineConfig
from rxstage.content import Audio, Image, Text, ToolCall
from rxstage.element import StreamElement
from rxstage.errors import GraphError, ProblemKind
from rxstage.graph.assemble import graph_of
from rxstage.graph.model import Edge, Graph
from rxstage.pipeline import Pipeline
from rxstage.stage import Series, Stage
from rxstage.stages.basic import MapStage, PassthroughStage, SinkStage


def same(value: Any) -> Any:
    return value


def mapping(name: str, **options: Any) -> Stage:
    return MapStage(name, same, **options)


def pairs(pipeline: Pipeline) -> list[tuple[str, str]]:
    graph: Graph = pipeline.graph
    return [(edge.source, edge.target) for edge in graph.edges]


def kinds(builder: PipelineBuilder) -> list[ProblemKind]:
    with pytest.raises(GraphError) as caught:
        builder.build()
    return [problem.kind for problem in caught.value.problems]


# ------------------------------------------------------------------------------------------ the calls


def test_chain_connects_in_order() -> None:
    """A chain has an edge from each stage to the next, and adds the stages that are new."""
    a, b, c = mapping("a"), mapping("b"), mapping("c")
    pipeline = PipelineBuilder().chain(a, b).chain(b, c).build()
    assert pairs(pipeline) == [("a", "b"), ("b", "c")]
    assert list(pipeline.graph.stages.values()) == [a, b, c]


def test_chains_of_one_and_none_only_add() -> None:
    """A chain of one stage adds it without an edge, and one of none does nothing."""
    assert pairs(PipelineBuilder().chain().chain(mapping("a")).add(mapping("b")).add().build()) == []


def test_names_are_looked_up_at_build() -> None:
    """A name may stand for a stage that is added later."""
    builder = PipelineBuilder().chain("a", "b").branch("b", "c").merge("a", into="c").connect("c", "d")
    builder.route("d", (Text, "e"), otherwise="f")
    builder.add(*map(mapping, "abcdef"))
    assert pairs(builder.build()) == [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("d", "e"), ("d", "f")]


def test_connect_has_options() -> None:
    """One edge carries its rule and the options of its buffer."""
    builder = PipelineBuilder().connect(mapping("a"), mapping("b"), when=Audio, buffer_size=64, overflow="drop_oldest")
    assert builder.build().graph.edges == (Edge("a", "b", when=Audio, buffer_size=64, overflow="drop_oldest"),)


@pytest.mark.parametrize("rule", [Text | Audio, [Text, Audio], (Text, Audio)])
def test_rules_of_several_types(rule: Any) -> None:
    """Several types are a tuple, a list or a union."""
    assert PipelineBuilder().connect(mapping("a"), mapping("b"), when=rule).build().graph.edges[0].when == (Text, Audio)


def test_branch_lets_through_what_the_target_accepts() -> None:
    """Each branch gets what its target accepts, and everything where that is nothing in particular."""
    nested = Pipeline.of(mapping("x", on=Image), name="nested")
    open_ = PipelineBuilder(name="open").add(mapping("x", on=Image), mapping("y")).build()
    two = PipelineBuilder(name="two").add(mapping("x", on=Image), mapping("y", on=str)).build()
    series = mapping("first", on=Audio) >> mapping("second")
    builder = PipelineBuilder().branch(
        "in", mapping("a", on=(Text, Audio)), mapping("b"), nested, open_, two, series, "late"
    )
    builder.add(PassthroughStage("in"), mapping("late", on=ToolCall))
    rules = {edge.target: edge.when for edge in builder.build().graph.edges if edge.source == "in"}
    assert rules == {
        "a": (Text, Audio),
        "b": None,
        "nested": (Image,),
        "open": None,
        "two": (Image, str),
        "first": (Audio,),
        "late": (ToolCall,),
    }


def test_route_numbers_its_rules() -> None:
    """The rules of a table are numbered in order, over several calls too."""
    builder = PipelineBuilder().route(mapping("in"), (Text, mapping("a")), (same, mapping("b")))
    builder.route("in", ((Audio, Image), mapping("c")), otherwise=mapping("d"))
    assert builder.build().graph.edges == (
        Edge("in", "a", when=Text, route=0),
        Edge("in", "b", when=same, route=1),
        Edge("in", "c", when=(Audio, Image), route=2),
        Edge("in", "d", otherwise=True),
    )


def test_merge_connects_each_source() -> None:
    """A merge has an edge from each source to its target."""
    builder = PipelineBuilder().merge(mapping("a"), mapping("b") >> mapping("c"), into=mapping("d"))
    assert pairs(builder.build()) == [("b", "c"), ("a", "d"), ("c", "d")]


def test_series_stands_for_its_stages() -> None:
    """Edges enter the first stage of a series and leave the last, and its own edges are there once."""
    series = mapping("b") >> mapping("c") >> mapping("d")
    builder = PipelineBuilder().chain(mapping("a"), series, mapping("e")).branch(series, mapping("f"))
    assert pairs(builder.build()) == [("b", "c"), ("c", "d"), ("a", "b"), ("d", "e"), ("d", "f")]


def test_series_of_series_is_flat() -> None:
    """Series in series are taken apart at any depth."""
    series: Stage = mapping("s0")
    for number in range(1, 2000):
        series = Series("nested", stages=(series, mapping(f"s{number}")))
    assert len(PipelineBuilder().add(series).build().graph.edges) == 1999


def test_pipeline_is_one_stage() -> None:
    """A pipeline nests as one stage under its name."""
    inner = PipelineBuilder(name="inner").chain(mapping("a"), mapping("b")).build()
    outer = PipelineBuilder().chain(mapping("a"), inner, mapping("b")).build()
    assert pairs(outer) == [("a", "inner"), ("inner", "b")]
    assert outer.graph.stages["inner"] is inner


def test_name_and_config_are_the_pipelines() -> None:
    """The pipeline has the name and configuration of its builder."""
    config = PipelineConfig(buffer_size=3)
    pipeline = PipelineBuilder(config, name="mine").add(mapping("a")).build()
    assert (pipeline.name, pipeline.graph.name, pipeline.config) == ("mine", "mine", config)
    assert PipelineBuilder().add(mapping("a")).build().config == PipelineConfig()


# ------------------------------------------------------------------------------------------ identity


def test_same_object_is_the_same_node() -> None:
    """A stage that is mentioned several times is there once."""
    a = mapping("a")
    assert PipelineBuilder().add(a, a).chain(a, mapping("b")).build().graph.nodes == ("a", "b")


def test_other_object_of_the_same_name_is_a_problem() -> None:
    """Two stages of one name are refused at build."""
    assert kinds(PipelineBuilder().add(mapping("a"), mapping("a"))) == [ProblemKind.DUPLICATE_NAME]


def test_problems_tell_in_what_role_a_name_was_given() -> None:
    """An unknown name is told with the call that it was given in."""
    builder = PipelineBuilder().add(mapping("process")).branch("proces", "process").route("x", (Text, "y")).chain("z")
    with pytest.raises(GraphError) as caught:
        builder.connect("c", "process").merge("m", into="process").build()
    told = [problem.message for problem in caught.value.problems if problem.kind is ProblemKind.UNKNOWN_NAME]
    assert told[0] == "branch source 'proces' is unknown, did you mean 'process'?"
    assert [text.partition(" is unknown")[0] for text in told[1:]] == [
        "route source 'x'",
        "route target 'y'",
        "chain stage 'z'",
        "connect source 'c'",
        "merge source 'm'",
    ]


# ------------------------------------------------------------------------------------------ using it again


def test_builder_can_go_on_after_build() -> None:
    """What is added after a build is in the next pipeline, and not in the one before."""
    builder = PipelineBuilder().chain(mapping("a"), mapping("b"))
    first = builder.build()
    second = builder.chain("b", mapping("c")).build()
    assert pairs(first) == [("a", "b")]
    assert pairs(second) == [("a", "b"), ("b", "c")]


def test_copy_goes_its_own_way() -> None:
    """A copy and its original share what was there and nothing that comes later."""
    original = PipelineBuilder(PipelineConfig(buffer_size=2), name="mine").route(mapping("a"), (Text, mapping("b")))
    original.branch("a", mapping("s") >> mapping("t"))
    copy = original.copy().route("a", (Audio, mapping("c")), otherwise=mapping("d")).branch("a", mapping("e", on=Image))
    original.route("a", (Image, mapping("x")), otherwise=mapping("y"))
    assert original.build().graph.nodes == ("a", "b", "s", "t", "x", "y")
    assert copy.build().graph.nodes == ("a", "b", "s", "t", "c", "d", "e")
    assert copy.build().graph.edges[-1] == Edge("a", "e", when=(Image,))
    assert copy.build().graph.edges[-3] == Edge("a", "c", when=Audio, route=1)
    assert (copy.build().name, copy.build().config.buffer_size) == ("mine", 2)


def test_failed_build_leaves_the_builder_usable() -> None:
    """After a refusal the missing stage can be added, and the build works."""
    builder = PipelineBuilder().chain(mapping("a"), "b")
    assert kinds(builder) == [ProblemKind.UNKNOWN_NAME]
    assert pairs(builder.add(mapping("b")).build()) == [("a", "b")]


def test_repr_is_short() -> None:
    """A builder shows its name and size."""
    assert repr(PipelineBuilder(name="x").chain(mapping("a"), "b")) == "PipelineBuilder('x', 1 stages, 1 edges)"


# ------------------------------------------------------------------------------------------ wrong arguments


class Nothing(Stage):
    """Overrides nothing."""


async def decide(element: StreamElement) -> bool:
    return True


WRONG: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda b: b.chain(mapping("x"), same), TypeError, "wrap a function in MapStage"),
    (lambda b: b.chain(mapping("x"), 5), TypeError, "a stage or the name of one is needed, got 5"),
    (lambda b: b.chain([mapping("x")]), TypeError, "with a star"),
    (lambda b: b.chain(mapping(str(n)) for n in range(3)), TypeError, "with a star"),
    (lambda b: b.chain(mapping("x"), MapStage), TypeError, r"pass an instance: MapStage\(...\)"),
    (lambda b: b.chain(mapping("x"), PipelineBuilder()), TypeError, "build it first"),
    (lambda b: b.chain(mapping("x"), None), TypeError, "got None"),
    (lambda b: b.chain(mapping("x"), ""), ValueError, "must not be empty"),
    (lambda b: b.add(mapping("x"), "a"), TypeError, "add takes stage objects, got the name 'a'"),
    (lambda b: b.add(mapping("x"), Nothing("n")), TypeError, "stage 'n' does nothing: Nothing must override apply"),
    (lambda b: b.add(mapping("x"), Series("s", stages=())), ValueError, "series 's' holds no stages"),
    (lambda b: b.branch(mapping("x")), ValueError, "branch from 'x' needs at least one target"),
    (lambda b: b.branch("a", mapping("x"), 5), TypeError, "got 5"),
    (lambda b: b.merge(into=mapping("x")), ValueError, "merge into 'x' needs at least one source"),
    (lambda b: b.merge(mapping("x"), into=7), TypeError, "got 7"),
    (lambda b: b.connect(mapping("x"), "b", overflow="drop"), ValueError, "one of 'wait', 'drop_oldest'.* got 'drop'"),
    (lambda b: b.connect(mapping("x"), "b", buffer_size=0), ValueError, "at least 1 element, got 0"),
    (lambda b: b.connect(mapping("x"), "b", buffer_size=2.0), TypeError, "whole number of elements, got 2.0"),
    (lambda b: b.connect(mapping("x"), "b", buffer_size=True), TypeError, "got True"),
    (lambda b: b.connect(mapping("x"), "b", when="Text"), TypeError, "a rule must be a content type"),
    (lambda b: b.connect(mapping("x"), "b", when=()), TypeError, "a rule must be a content type"),
    (lambda b: b.connect(mapping("x"), "b", when=(Text, 5)), TypeError, "a rule must be a content type"),
    (lambda b: b.connect(mapping("x"), "b", when=mapping("y")), TypeError, "a rule must be a content type"),
    (lambda b: b.connect(mapping("x"), "b", when=decide), TypeError, "must be a plain function"),
    (lambda b: b.route(mapping("x")), ValueError, "needs at least one pair"),
    (lambda b: b.route(mapping("x"), Text, "b"), TypeError, r"takes pairs \(rule, target\)"),
    (lambda b: b.route(mapping("x"), (Text, "b", "c")), TypeError, "takes pairs"),
    (lambda b: b.route(mapping("x"), (mapping("y"), Text)), TypeError, "the rule comes first"),
    (lambda b: b.route(mapping("x"), (Text, same)), TypeError, "wrap a function"),
    (lambda b: b.route("a", (Audio, mapping("x")), otherwise=mapping("y")), ValueError, "has otherwise='b' already"),
    (lambda b: b.route(mapping("x"), (Text, "a"), otherwise=3), TypeError, "got 3"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=map(str, range(len(WRONG))))
def test_wrong_argument_fails_at_the_call(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    """A wrong argument is refused where it is passed, names itself and the remedy, and changes nothing."""
    builder = PipelineBuilder().route(mapping("a"), (Text, mapping("c")), otherwise=mapping("b"))
    before = builder.build().graph
    with pytest.raises(error, match=message):
        call(builder)
    after = builder.build().graph
    assert (after.nodes, after.edges) == (before.nodes, before.edges)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"config": {"buffer_size": 3}}, TypeError, r"write PipelineConfig\(buffer_size=32, ...\)"),
        ({"name": ""}, ValueError, "a pipeline needs a name"),
        ({"name": 3}, TypeError, "must be a string, got 3"),
    ],
)
def test_wrong_options_of_a_builder(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """A builder refuses a configuration or name that is none."""
    with pytest.raises(error, match=message):
        PipelineBuilder(**options)


# ------------------------------------------------------------------------------------------ the whole


def test_graph_of_a_chain() -> None:
    """`graph_of` gives the checked graph of stages in a chain."""
    graph = graph_of(mapping("a"), mapping("b") >> mapping("c"), config=PipelineConfig(buffer_size=2), name="mine")
    assert [(edge.source, edge.target) for edge in graph.edges] == [("b", "c"), ("a", "b")]
    assert (graph.name, graph.config.buffer_size) == ("mine", 2)
    with pytest.raises(GraphError):
        graph_of()


def test_built_pipeline_runs() -> None:
    """A pipeline with a fan-out, a route and a fan-in gives what its stages make."""
    seen: list[str] = []
    pipeline = (
        PipelineBuilder()
        .branch(PassthroughStage("in"), MapStage("upper", str.upper, on=Text), SinkStage("see", seen.append, on=Text))
        .route(
            "upper",
            (lambda element: element.text == "A", MapStage("first", lambda text: text + "1", on=Text)),
            otherwise=MapStage("rest", lambda text: text + "2", on=Text),
        )
        .merge("first", "rest", into=PassthroughStage("out"))
        .build()
    )
    assert pipeline.execute_sync("a", "b").text == "A1B2"
    assert seen == ["a", "b"]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_build_keeps_exactly_what_was_declared(edges: list[tuple[int, int]]) -> None:
    """A graph with each edge once, and each forward, has those edges in order."""
    forward = list(dict.fromkeys((min(edge), max(edge)) for edge in edges if edge[0] != edge[1]))
    builder = PipelineBuilder().add(*(mapping(str(number)) for number in range(8)))
    for source, target in forward:
        builder.connect(str(source), str(target))
    assert pairs(builder.build()) == [(str(source), str(target)) for source, target in forward]


def test_building_is_linear() -> None:
    """Eight times the stages take eight times the steps to build."""

    def work(size: int) -> None:
        stages = [mapping(f"s{number}", on=Text, emits=Text) for number in range(size)]
        assert len(PipelineBuilder().chain(*stages).build().graph.edges) == size - 1

    assert calls(lambda: work(8_000)) < 8.2 * calls(lambda: work(1_000))


def test_building_a_hundred_thousand_stages_works() -> None:
    """A graph of 100,000 stages, connected one by one, is built without a deep stack."""
    stages = [mapping(f"s{number}") for number in range(100_000)]
    builder = PipelineBuilder()
    for one, other in pairwise(stages):
        builder.connect(one, other)
    assert len(builder.build().graph.nodes) == 100_000
