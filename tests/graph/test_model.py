"""The graph as data."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxstage.config import PipelineConfig
from rxstage.content import Text
from rxstage.graph.model import Edge, Graph
from rxstage.stages.basic import PassthroughStage


def graph(edges: list[tuple[str, str]], names: str = "") -> Graph:
    """A graph of stages with one-letter names."""
    every = dict.fromkeys([*names, *(name for edge in edges for name in edge)])
    return Graph("g", {name: PassthroughStage(name) for name in every}, [Edge(*edge) for edge in edges])


def test_edge_is_a_value() -> None:
    """Two edges with the same fields are the same, and can be keys."""
    assert Edge("a", "b", when=Text) == Edge("a", "b", when=Text) != Edge("a", "b")
    assert len({Edge("a", "b"), Edge("a", "b"), Edge("a", "c")}) == 2


def test_edge_is_frozen() -> None:
    """An edge cannot be changed."""
    edge = Edge("a", "b")
    with pytest.raises(AttributeError):
        edge.source = "c"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("edge", "is_route", "has_options"),
    [
        (Edge("a", "b"), False, False),
        (Edge("a", "b", route=0), True, False),
        (Edge("a", "b", otherwise=True), True, False),
        (Edge("a", "b", buffer_size=1), False, True),
        (Edge("a", "b", overflow="fail"), False, True),
    ],
)
def test_edge_tells_what_it_is(edge: Edge, is_route: bool, has_options: bool) -> None:
    """Routes and edges with a buffer of their own can be told from others."""
    assert (edge.is_route, edge.has_options) == (is_route, has_options)


def test_roots_and_leaves() -> None:
    """Stages without an edge coming in are roots, those without one going out leaves, in the order of declaration."""
    diamond = graph([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], names="xabcd")
    assert diamond.nodes == ("x", "a", "b", "c", "d")
    assert diamond.roots == ("x", "a")
    assert diamond.leaves == ("x", "d")


def test_edges_by_stage() -> None:
    """Each stage knows its edges, in the order of declaration."""
    diamond = graph([("a", "c"), ("a", "b"), ("b", "d"), ("c", "d")])
    assert [edge.target for edge in diamond.outgoing("a")] == ["c", "b"]
    assert [edge.source for edge in diamond.incoming("d")] == ["b", "c"]
    assert diamond.incoming("a") == diamond.outgoing("d") == ()


def test_unknown_stage_is_named() -> None:
    """Asking for a stage that is not there names it and the pipeline."""
    for ask in (graph([], "a").incoming, graph([], "a").outgoing):
        with pytest.raises(KeyError, match="pipeline 'g' has no stage 'b'"):
            ask("b")


def test_order_keeps_declaration_where_it_is_free() -> None:
    """Stages that do not depend on each other stay in the order of declaration."""
    assert graph([("a", "d"), ("b", "d"), ("c", "d")], names="bca").order() == ("b", "c", "a", "d")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30, unique=True))
def test_order_is_topological(pairs: list[tuple[int, int]]) -> None:
    """Every edge of an acyclic graph goes forward in its order, which has each stage once."""
    acyclic = graph(
        [(str(min(pair)), str(max(pair))) for pair in {tuple(sorted(p)) for p in pairs} if pair[0] != pair[1]]
    )
    order = acyclic.order()
    assert sorted(order) == sorted(acyclic.nodes)
    assert all(order.index(edge.source) < order.index(edge.target) for edge in acyclic.edges)


def test_graph_is_not_changed_from_outside() -> None:
    """A graph keeps its own stages and edges, and gives them out to be read only."""
    stages, edges = {"a": PassthroughStage("a")}, [Edge("a", "a")]
    kept = Graph("g", stages, edges)
    stages["b"] = PassthroughStage("b")
    edges.clear()
    assert kept.nodes == ("a",)
    assert len(kept.edges) == 1
    with pytest.raises(TypeError):
        kept.stages["c"] = PassthroughStage("c")  # type: ignore[index]


def test_graph_pickles() -> None:
    """A graph comes back from a pickle with the same names, edges and configuration."""
    before = Graph("g", {"a": PassthroughStage("a")}, [Edge("a", "a", when=Text)], PipelineConfig(buffer_size=3))
    after = pickle.loads(pickle.dumps(before))
    assert (after.name, after.nodes, after.edges, after.config) == ("g", ("a",), before.edges, before.config)


def test_repr_is_short() -> None:
    """A graph shows its name and size."""
    assert repr(graph([("a", "b")])) == "Graph('g', 2 stages, 1 edges)"
