"""Everything that is wrong with a graph, at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import pytest
import reactivex.operators as ops
from counting import calls
from hypothesis import given
from hypothesis import strategies as st

from rxstage.builder import PipelineBuilder
from rxstage.config import Fallback, Retry
from rxstage.content import Audio, Data, EndOfTurn, Failure, Image, Interrupt, Message, Text, ToolCall
from rxstage.element import StreamElement
from rxstage.errors import GraphError, Problem, ProblemKind
from rxstage.graph.check import check
from rxstage.graph.cycles import components, cycles
from rxstage.graph.model import Edge
from rxstage.graph.supply import ANYTHING, NOTHING, Supply, in_words, made_of, passing, taken, union
from rxstage.pipeline import Pipeline
from rxstage.stage import Stage, StageType
from rxstage.stages.basic import (
    FilterStage,
    FlatMapStage,
    GenerateStage,
    MapStage,
    OperatorStage,
    PassthroughStage,
    SinkStage,
    StageFunc,
)


class Order: ...


class BigOrder(Order): ...


class Invoice: ...


def same(value: Any) -> Any:
    return value


def mapping(name: str, **options: Any) -> Stage:
    return MapStage(name, same, **options)


def whole(name: str, **options: Any) -> Stage:
    return StageFunc(name, StageType.TRANSFORM, same, **options)


def operator(name: str, **options: Any) -> Stage:
    return OperatorStage(name, ops.debounce(1.0), **options)


def producer(name: str, **options: Any) -> Stage:
    return GenerateStage(name, list, **options)


def problems(stages: Sequence[Stage], *edges: Edge | tuple[str, str]) -> list[Problem]:
    return check("p", stages, [edge if isinstance(edge, Edge) else Edge(*edge) for edge in edges])


def chained(*stages: Stage) -> list[Problem]:
    return problems(stages, *((one.name, other.name) for one, other in pairwise(stages)))


def kinds(found: Sequence[Problem]) -> list[ProblemKind]:
    return [problem.kind for problem in found]


# ------------------------------------------------------------------------------------------ names and edges


def test_no_stages() -> None:
    """A graph without stages is one problem, and names that were mentioned are told of too."""
    assert kinds(check("p", [], [])) == [ProblemKind.NO_STAGES]
    found = check("p", [], [Edge("a", "b")], [("chain stage", "a")])
    assert kinds(found) == [ProblemKind.NO_STAGES, ProblemKind.UNKNOWN_NAME, ProblemKind.UNKNOWN_NAME]


def test_duplicate_name_names_the_kinds() -> None:
    """Several stages of one name are one problem that tells what they are."""
    (problem,) = problems([mapping("a"), PassthroughStage("a"), mapping("a")])
    assert problem.kind is ProblemKind.DUPLICATE_NAME
    assert problem.stages == ("a",)
    assert "3 stages have the name 'a' (MapStage, PassthroughStage, MapStage)" in problem.message


def test_duplicate_pipelines_are_told_how_to_get_a_name() -> None:
    """Two nested pipelines that kept the default name are told where to give one."""
    (problem,) = problems([Pipeline.of(mapping("x")), Pipeline.of(mapping("y"))])
    assert "PipelineBuilder(name=...)" in problem.message


def test_stage_with_the_qualified_name_of_a_nested_one() -> None:
    """A name that a stage in a nested pipeline has in full is a duplicate."""
    inner = Pipeline.of(Pipeline.of(mapping("z"), name="y"), name="x")
    assert kinds(problems([inner, mapping("x/y"), mapping("x/y/z"), mapping("x/q"), mapping("q/y")])) == [
        ProblemKind.DUPLICATE_NAME,
        ProblemKind.DUPLICATE_NAME,
    ]


def test_unknown_name_suggests_the_nearest() -> None:
    """A misspelt name is told with its role and the nearest name."""
    found = check("p", [mapping("process")], [Edge("proces", "x")], [("branch source", "proces")])
    assert found[0].message == "branch source 'proces' is unknown, did you mean 'process'?"
    assert (
        found[1].message == "edge target 'x' is unknown; add that stage, or use the name of one that is there: process"
    )
    assert kinds(found) == [ProblemKind.UNKNOWN_NAME] * 2


def test_unknown_name_is_found_among_many() -> None:
    """Among many stages the nearest name is still found, ignoring case."""
    stages = [mapping(f"stage-{number}") for number in range(5000)]
    found = check("p", [*stages, mapping("Transcribe")], [Edge("transcribe", "stage-1")])
    assert "did you mean 'Transcribe'?" in found[0].message


def test_duplicate_edge() -> None:
    """An edge between the same two stages twice is a problem, whatever its options."""
    two = [mapping("a"), mapping("b")]
    assert "declared 3 times; declare it once" in problems(two, ("a", "b"), ("a", "b"), ("a", "b"))[0].message
    (problem,) = problems(two, Edge("a", "b", when=Text), Edge("a", "b", when=Audio))
    assert problem.kind is ProblemKind.DUPLICATE_EDGE
    assert problem.stages == ("a", "b")
    assert "join their rules" in problem.message
    assert ProblemKind.DUPLICATE_EDGE in kinds(problems(two, ("a", "x"), ("a", "x")))


def test_everything_is_reported_at_once() -> None:
    """Problems of every kind come together, in one error."""
    with pytest.raises(GraphError) as caught:
        (
            PipelineBuilder()
            .chain(mapping("a"), mapping("b"), "a")
            .add(mapping("a"), whole("w", on_error="skip"))
            .branch("typo", "b")
            .chain(mapping("say", emits=Text), mapping("hear", on=Audio))
            .route("say", (Image, mapping("see")))
            .connect("a", "b")
            .build()
        )
    # What is known of sound follows the edges, so that it is looked at once those are right.
    assert set(kinds(caught.value.problems)) == set(ProblemKind) - {ProblemKind.NO_STAGES, ProblemKind.AUDIO_FORMAT}


# ------------------------------------------------------------------------------------------ cycles


def test_cycle_is_told_with_its_path() -> None:
    """A cycle is told as a path from its first stage back to it."""
    (problem,) = problems([mapping(name) for name in "xabc"], ("x", "b"), ("b", "c"), ("c", "a"), ("a", "b"))
    assert problem.kind is ProblemKind.CYCLE
    assert problem.stages == ("a", "b", "c")
    assert problem.message.startswith("cycle 'a' -> 'b' -> 'c' -> 'a': a pipeline has none; remove one of its edges")


@pytest.mark.parametrize(
    ("edges", "paths"),
    [
        ("aa", ["a"]),
        ("ab ba bc cb", ["ab", "bc"]),
        ("ab ba cd dc bc", ["ab", "cd"]),
        ("ab bd ac cd da", ["abd", "acd"]),
        ("ab bc ca ba", ["abc", "ab"]),
    ],
)
def test_each_cycle_is_told(edges: str, paths: list[str]) -> None:
    """Cycles that share stages or edges, and loops of one stage, are told one by one."""
    names = sorted(set(edges) - {" "})
    found = problems([mapping(name) for name in names], *(Edge(*edge) for edge in edges.split()))
    assert {frozenset(problem.stages) for problem in found} == {frozenset(path) for path in paths}
    assert set(kinds(found)) == {ProblemKind.CYCLE}


def test_what_follows_a_cycle_is_checked_too() -> None:
    """Behind a cycle the other checks go on, and suppose that anything comes out of it."""
    stages = [mapping("a", emits=Text), mapping("b"), mapping("c", on=Audio, emits=Text), mapping("d", on=Image)]
    found = problems(stages, ("a", "b"), ("b", "a"), ("b", "c"), ("c", "d"))
    assert kinds(found) == [ProblemKind.CYCLE]
    stages[2] = whole("c", emits=Text)
    assert kinds(problems(stages, ("a", "b"), ("b", "a"), ("b", "c"), ("c", "d")))[1:] == [
        ProblemKind.IMPOSSIBLE_CONTENT
    ]


def test_long_cycle_is_shortened_in_the_message_only() -> None:
    """The message of a long cycle stays readable, and the problem has all of its stages."""
    stages = [mapping(f"s{number}") for number in range(1000)]
    (problem,) = problems(stages, *((f"s{number}", f"s{(number + 1) % 1000}") for number in range(1000)))
    assert len(problem.stages) == 1000
    assert problem.message.startswith("cycle 's0' -> 's1' -> ")
    assert " more) -> 's999' -> 's0': " in problem.message
    assert len(problem.message) < 400


_DIGRAPHS = st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("abcdefg")), max_size=25, unique=True)


@given(_DIGRAPHS)
def test_cycles_are_real_and_cover_all_that_is_cyclic(edges: list[tuple[str, str]]) -> None:
    """Each path told is a cycle, and every edge that lies on some cycle is on one that is told."""
    after: dict[str, list[str]] = {}
    for source, target in edges:
        after.setdefault(source, []).append(target)

    def reaches(start: str, goal: str) -> bool:
        seen, left = {start}, [start]
        while left:
            for following in after.get(left.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    left.append(following)
        return goal in seen

    told: set[tuple[str, str]] = set()
    for component in components("abcdefg", after):
        for path in cycles(component, after):
            steps = list(zip(path, (*path[1:], path[0]), strict=True))
            assert len(set(path)) == len(path)
            assert set(steps) <= set(edges)
            told.update(steps)
    assert told == {(source, target) for source, target in edges if reaches(target, source)}


@given(_DIGRAPHS)
def test_components_are_in_topological_order(edges: list[tuple[str, str]]) -> None:
    """Each node is in one component, and no edge goes back to an earlier component."""
    after: dict[str, list[str]] = {}
    for source, target in edges:
        after.setdefault(source, []).append(target)
    found = components("abcdefg", after)
    place = {node: number for number, component in enumerate(found) for node in component}
    assert sorted(node for component in found for node in component) == list("abcdefg")
    assert all(place[source] <= place[target] for source, target in edges)


# ------------------------------------------------------------------------------------------ content


def test_input_may_be_anything() -> None:
    """A first stage can accept whatever it likes, since the input supplies it."""
    assert not chained(mapping("a", on=Audio), mapping("b", on=Image), mapping("c", on=Order))


@pytest.mark.parametrize(
    "before",
    [
        mapping("a", emits=Text),
        whole("a", emits=Text),
        operator("a", emits=(Text, Message)),
        FlatMapStage("a", same, emits=str),
        SinkStage("a", same),
    ],
)
def test_content_that_nothing_supplies(before: Stage) -> None:
    """A stage is refused if what comes out of the stage before is none of what it accepts."""
    (problem,) = chained(before, mapping("b", on=Audio))
    assert problem.kind is ProblemKind.IMPOSSIBLE_CONTENT
    assert problem.stages == ("b",)
    assert "stage 'b' accepts Audio, but nothing can supply that" in problem.message


@pytest.mark.parametrize(
    "before",
    [
        mapping("a"),
        mapping("a", on=Audio, emits=(Text, Audio)),
        mapping("a", on=Text, emits=Text),
        mapping("a", on=Audio),
        whole("a"),
        whole("a", accepts=Text, emits=Text),
        operator("a"),
        producer("a", emits=Text),
        FilterStage("a", same, on=Audio, emits=Text),
        PassthroughStage("a"),
        mapping("a", emits=Text, on_error=Fallback(mapping("f", emits=Audio))),
        mapping("a", emits=Text, on_error=Retry(then=Fallback(mapping("f")))),
    ],
)
def test_content_that_may_come(before: Stage) -> None:
    """Other content passes a stage by, and what is declared about nothing may be anything."""
    assert not chained(before, mapping("b", on=Audio))


def test_declared_content_is_used_up() -> None:
    """What a stage accepts and makes something else of is gone behind it."""
    assert kinds(chained(mapping("a", on=Audio, emits=Text), mapping("b", on=Audio))) == [
        ProblemKind.IMPOSSIBLE_CONTENT
    ]


def test_one_problem_does_not_draw_others() -> None:
    """What follows from a stage that nothing reaches is not told as well."""
    found = chained(mapping("a", emits=Text), mapping("b", on=Audio, emits=Image), mapping("c", on=Image))
    assert [problem.stages for problem in found] == [("b",)]


def test_stage_that_accepts_everything_is_never_refused() -> None:
    """Behind a sink only controls come, and a stage may be there for those."""
    assert not chained(SinkStage("a", same), PassthroughStage("b"))


def test_values_count_as_data_of_their_class() -> None:
    """Classes that are no content kind are told apart, and subclasses belong to their base."""
    assert not chained(mapping("a", emits=BigOrder), mapping("b", on=Order))
    assert not chained(mapping("a", emits=Order), mapping("b", on=BigOrder))
    assert not chained(mapping("a", emits=Order), mapping("b", on=Data))
    assert not chained(mapping("a", emits=Data), mapping("b", on=Order))
    assert not chained(mapping("a", emits=object), mapping("b", on=str))
    assert not chained(mapping("a", emits=StreamElement), mapping("b", on=Audio))
    assert kinds(chained(mapping("a", emits=Order), mapping("b", on=Invoice))) == [ProblemKind.IMPOSSIBLE_CONTENT]
    assert kinds(chained(mapping("a", on=Order, emits=Invoice), mapping("b", on=BigOrder))) == [
        ProblemKind.IMPOSSIBLE_CONTENT
    ]


def test_controls_are_not_for_functions_of_one_element() -> None:
    """A function of one element that accepts only controls is never called; one of the whole stream sees them."""
    (problem,) = chained(mapping("a", on=EndOfTurn))
    assert "use a StageFunc" in problem.message
    assert not chained(mapping("a", emits=Text), whole("b", accepts=(EndOfTurn, Interrupt)), mapping("c", on=Text))
    assert not chained(SinkStage("a", same), mapping("b", on=(Failure, Text)))


def test_edges_and_fan_ins_are_followed() -> None:
    """What an edge lets through restricts what comes, and several edges add up."""
    stages = [mapping("a", emits=(Text, Audio)), PassthroughStage("b"), mapping("c", on=Text)]
    assert not problems(stages, Edge("a", "b", when=same), ("b", "c"))
    assert kinds(problems(stages, Edge("a", "b", when=Audio), ("b", "c"))) == [ProblemKind.IMPOSSIBLE_CONTENT]
    assert not problems(stages, Edge("a", "b", when=Audio), ("b", "c"), Edge("a", "c", when=(Text,)))


def test_nested_pipelines_are_followed() -> None:
    """What comes out of a nested pipeline is found out inside it, for what goes in."""
    recognise = Pipeline.of(mapping("stt", on=Audio, emits=Text), name="recognise")
    assert not chained(mapping("a", emits=(Audio, Image)), recognise, mapping("b", on=Image))
    assert kinds(chained(mapping("a", emits=Audio), recognise, mapping("b", on=Image))) == [
        ProblemKind.IMPOSSIBLE_CONTENT
    ]
    (problem,) = chained(mapping("a", emits=Image), recognise)
    assert problem.stages == ("recognise",)


def test_deep_nesting_needs_no_deep_stack() -> None:
    """Pipelines nested in pipelines are followed at any depth."""
    inner: Stage = mapping("a", on=Audio, emits=Text)
    for level in range(300):
        inner = Pipeline.of(inner, name=f"level-{level}")
    assert kinds(chained(mapping("in", emits=Audio), inner, mapping("out", on=Audio))) == [
        ProblemKind.IMPOSSIBLE_CONTENT
    ]


# ------------------------------------------------------------------------------------------ routes


def routed(source: Stage, *rules: Any, otherwise: bool = False) -> list[Problem]:
    names = [f"t{number}" for number in range(len(rules))]
    edges = [
        Edge(source.name, name, when=rule, route=n) for n, (name, rule) in enumerate(zip(names, rules, strict=True))
    ]
    if otherwise:
        edges.append(Edge(source.name, "rest", otherwise=True))
    return problems([source, *map(mapping, names), *([mapping("rest")] if otherwise else [])], *edges)


def test_route_of_a_type_that_never_comes() -> None:
    """A route of a type that its source never supplies is refused, with what comes instead."""
    (problem,) = routed(mapping("a", emits=(Text, Audio)), Text, Image)
    assert problem.kind is ProblemKind.IMPOSSIBLE_ROUTE
    assert problem.stages == ("a", "t1")
    assert "what leaves 'a' is Audio or Text" in problem.message


@pytest.mark.parametrize(
    "rules", [(Text, Text), ((Text, Audio), Audio), (Order, BigOrder), (Data, Order), (Text, (str,))]
)
def test_route_behind_one_that_takes_it_all(rules: Sequence[Any]) -> None:
    """A route is refused if rules before it in the table match all that it could."""
    (problem,) = routed(PassthroughStage("a"), *rules)
    assert problem.kind is ProblemKind.IMPOSSIBLE_ROUTE
    assert "earlier rules of the same table" in problem.message


@pytest.mark.parametrize(
    "rules", [(same, Text), (Text, same, Audio), (BigOrder, Order), (Order, Data), ((Text, Audio), (Audio, Image))]
)
def test_routes_that_can_match(rules: Sequence[Any]) -> None:
    """Predicates leave everything to later rules, and a wider rule may follow a narrower one."""
    assert not routed(PassthroughStage("a"), *rules, otherwise=True)


def test_predicate_behind_rules_that_leave_nothing() -> None:
    """A predicate behind types that are all there is can match nothing; an `otherwise` there does no harm."""
    assert kinds(routed(mapping("a", emits=Text), Text, same)) == [ProblemKind.IMPOSSIBLE_ROUTE]
    assert not routed(mapping("a", emits=Text), Text, otherwise=True)


def test_route_of_a_control() -> None:
    """Controls go along every edge, so a route for them is refused and says so."""
    (problem,) = routed(PassthroughStage("a"), Interrupt)
    assert "controls go along every edge" in problem.message


def test_routes_restrict_what_their_targets_get() -> None:
    """Behind a route comes what it matched and no earlier rule did."""
    source, target = PassthroughStage("a"), mapping("hear", on=Audio)
    assert not problems([source, target], Edge("a", "hear", when=(Text, Audio), route=0))
    stages = [source, mapping("all"), target]
    found = problems(stages, Edge("a", "all", when=Audio, route=0), Edge("a", "hear", otherwise=True))
    assert kinds(found) == [ProblemKind.IMPOSSIBLE_CONTENT]


def test_edge_that_lets_nothing_through() -> None:
    """An edge for a type that never comes is refused, unless a branch made it of what its target accepts."""
    stages = [mapping("a", emits=Text), mapping("b")]
    assert kinds(problems(stages, Edge("a", "b", when=Audio))) == [ProblemKind.IMPOSSIBLE_ROUTE]
    merged = [mapping("a", emits=Text), mapping("b", emits=ToolCall), mapping("c", on=Text)]
    assert not problems(merged, Edge("a", "c", when=(Text,)), Edge("b", "c", when=(Text,)))


# ------------------------------------------------------------------------------------------ supply


CLASSES: list[type] = [Order, BigOrder, Invoice]
KINDS: list[type] = [Text, Audio, Data]
DECLARED = st.lists(st.sampled_from([*KINDS, *CLASSES]), max_size=3).map(tuple)


def declared_of(thing: type, types: tuple[type, ...]) -> bool:
    """Whether content of one concrete class (a kind, or that of a `Data` value) is of the declared types."""
    if not types:
        return True
    if thing in CLASSES:
        return Data in types or any(issubclass(thing, each) for each in types)
    return thing in types


def holds(supply: Supply, thing: type) -> bool:
    if thing not in CLASSES:
        return thing in supply.kinds
    inside = any(issubclass(thing, each) or issubclass(each, thing) for each in supply.values)
    return not any(issubclass(thing, each) for each in supply.values) if supply.open else inside


@given(st.lists(st.tuples(st.sampled_from(["made", "taken", "passing", "union"]), DECLARED), max_size=6))
def test_supply_never_forgets_what_can_come(steps: list[tuple[str, tuple[type, ...]]]) -> None:
    """Whatever is done to a supply, what can really come is in it."""
    everything = [Text, Audio, Order, BigOrder, Invoice]
    supply, real = ANYTHING, set(everything)
    for step, types in steps:
        matching = {thing for thing in everything if declared_of(thing, types)}
        if step == "made":
            supply, real = made_of(types), matching
        elif step == "taken":
            supply, real = taken(supply, types), real & matching
        elif step == "passing":
            supply, real = passing(supply, types), real - matching
        else:
            supply, real = union(supply, made_of(types)), real | matching
        assert all(holds(supply, thing) for thing in real)
        assert bool(supply) or not real


def test_supply_of_very_many_types_is_taken_for_any() -> None:
    """A supply stays small, whatever is declared."""
    many = tuple(type(f"T{number}", (), {}) for number in range(100))
    assert made_of(many).open
    assert taken(made_of(many), (Invoice,))
    assert passing(ANYTHING, many) == ANYTHING


def test_supply_of_protocols_is_open() -> None:
    """A protocol with attributes cannot be compared with a class, so both may be the same."""

    @runtime_checkable
    class Priced(Protocol):
        price: float

    assert taken(made_of((Order,)), (Priced,))
    assert passing(made_of((Order,)), (Priced,))


@pytest.mark.parametrize(
    ("supply", "words"),
    [
        (ANYTHING, "anything"),
        (NOTHING, "no content at all"),
        (made_of((Text,)), "Text"),
        (made_of((Text, Audio, Order)), "Audio, Text or Data of Order"),
        (taken(passing(ANYTHING, (Order,)), (Text, Data)), "Text or Data (but Order)"),
    ],
)
def test_supply_in_words(supply: Supply, words: str) -> None:
    """A message says in words what can come."""
    assert in_words(supply) == words


# ------------------------------------------------------------------------------------------ policies


FALLBACK = Fallback(mapping("spare"))


@pytest.mark.parametrize("make", [whole, operator, producer])
@pytest.mark.parametrize(
    "policy", ["skip", "emit", FALLBACK, Retry(then="skip"), Retry(then="emit"), Retry(then=FALLBACK)]
)
def test_policies_for_elements_are_refused_for_streams(make: Callable[..., Stage], policy: Any) -> None:
    """What has no single elements cannot replace or skip one that failed."""
    (problem,) = chained(make("a", on_error=policy))
    assert problem.kind is ProblemKind.POLICY
    assert problem.stages == ("a",)
    assert "on_error=" in problem.message
    assert "use" in problem.message


def test_retry_starts_streams_again_but_no_operator() -> None:
    """Functions of the whole stream and producers can be started again, an operator cannot."""
    assert not chained(whole("a", on_error=Retry(3)), producer("b", on_error=Retry(3)))
    (problem,) = chained(operator("c", on_error=Retry(3)))
    assert "cannot be restarted; put ops.retry inside it" in problem.message


@pytest.mark.parametrize("make", [whole, operator, producer])
@pytest.mark.parametrize("option", ["concurrency", "timeout", "interruptible", "executor", "blocking"])
def test_options_without_effect_are_refused(make: Callable[..., Stage], option: str) -> None:
    """Options for single elements are refused where there are none, but for a producer that blocks."""
    with ThreadPoolExecutor(1) as pool:
        value = {"concurrency": 4, "timeout": 2.5, "interruptible": True, "executor": pool, "blocking": True}[option]
        found = chained(make("a", **{option: value}))
    if make is producer and option == "blocking":
        assert not found
    else:
        assert f"{option}=" in found[0].message
        assert "has no effect: " in found[0].message
        assert kinds(found) == [ProblemKind.POLICY]


def test_functions_of_one_element_can_have_it_all() -> None:
    """Nothing is refused for functions of one element."""
    assert not chained(mapping("a", on_error=Retry(then=FALLBACK), concurrency=4, timeout=1.0, interruptible=True))


def test_option_that_a_class_declares_anew_is_its_own() -> None:
    """A subclass that declares an option itself gives it a meaning, and may have it."""

    class Session(Stage):
        timeout: float | None = 30.0
        on_error: Any = "emit"

        def process(self, elements: Any) -> Any:
            return elements

    assert not chained(Session("a", timeout=5.0))
    assert kinds(chained(Session("a", concurrency=2))) == [ProblemKind.POLICY]


# ------------------------------------------------------------------------------------------ size


def test_hundred_thousand_stages() -> None:
    """A chain of 100,000 stages is checked without a deep stack, and so is a ring of them."""
    stages = [mapping(f"s{number}", on=Text, emits=Text) for number in range(100_000)]
    edges = [Edge(one.name, other.name) for one, other in pairwise(stages)]
    assert not check("p", stages, edges)
    (problem,) = check("p", stages, [*edges, Edge(stages[-1].name, stages[0].name)])
    assert len(problem.stages) == 100_000


def test_checking_is_linear() -> None:
    """Eight times the stages and edges take eight times the steps, dense cycles and hubs included."""

    def work(size: int) -> None:
        stages = [mapping(f"s{number}") for number in range(size)]
        edges = [Edge("s0", f"s{number}") for number in range(1, size)]
        edges += [Edge(f"s{number}", f"s{number % 50}") for number in range(1, size)]
        assert check("p", stages, edges)

    assert calls(lambda: work(8_000)) < 8.2 * calls(lambda: work(1_000))
