"""The mutable part of building: collects stages and edges, and makes a checked graph of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from msgspec.structs import replace

from rxstage.config import PipelineConfig
from rxstage.errors import GraphError, Problem
from rxstage.graph.arguments import called, expect, expect_buffer, rule_of, taken_apart
from rxstage.graph.check import check
from rxstage.graph.model import Edge, Graph
from rxstage.stage import Shape, Stage

__all__ = ["Assembly", "checked_graph", "graph_of", "nested_form", "use_nested_form"]

_nested_form: Callable[[Graph], Stage] | None = None


def use_nested_form(form: Callable[[Graph], Stage]) -> None:
    """Set what makes a stage of a graph; the builder's module sets it once, to `Pipeline`."""
    global _nested_form
    _nested_form = form


def nested_form() -> Callable[[Graph], Stage]:
    """What makes a stage of a graph."""
    assert _nested_form is not None, "import rxstage first"
    return _nested_form


def checked_graph(
    name: str,
    stages: Sequence[Stage],
    edges: Sequence[Edge],
    config: PipelineConfig | None = None,
    mentions: Iterable[tuple[str, str]] = (),
    problems: Iterable[Problem] = (),
) -> Graph:
    """A graph, if nothing is wrong with it.

    Args:
        name: of the pipeline.
        stages: all stages; series among them must have been taken apart.
        edges: between them, by name.
        config: of the pipeline.
        mentions: `(role, name)` where a stage was given by its name.
        problems: found before.

    Raises:
        GraphError: everything that is wrong with it, what was found before first.
    """
    found = [*problems, *check(name, stages, edges, mentions)]
    if found:
        raise GraphError(found)
    graph = Graph(name, {stage.name: stage for stage in stages}, edges, config)
    if any(stage.audio_in() is not None for stage in stages):
        sound = importlib.import_module("rxstage.graph.sound")  # only here: most graphs have none
        if graph.config.auto_resample:
            return sound.resampled(graph)  # type: ignore[no-any-return]
        if problems := sound.sound_problems(graph):
            raise GraphError(problems)
    return graph


def graph_of(*stages: Stage | str, config: PipelineConfig | None = None, name: str = "pipeline") -> Graph:
    """The graph of stages in a chain.

    Raises:
        TypeError: something is no stage.
        GraphError: everything that is wrong with it.
    """
    assembly = Assembly(name, config)
    assembly.chain(stages)
    return assembly.graph()


class Assembly:
    """Stages and edges, as they are added. Wrong arguments fail at the call and leave it as it was.

    Args:
        name: of the pipeline.
        config: of the pipeline.

    Raises:
        TypeError: `config` is no `PipelineConfig`, or `name` no string.
        ValueError: `name` is empty.
    """

    def __init__(self, name: str, config: PipelineConfig | None = None) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a pipeline's name must be a string, got {name!r}")
        if not name:
            raise ValueError("a pipeline needs a name, got ''; leave it out for 'pipeline'")
        if config is not None and not isinstance(config, PipelineConfig):
            raise TypeError(
                f"config must be a PipelineConfig, got {config!r}; write PipelineConfig(buffer_size=32, ...)"
            )
        self.name = name
        self.config = config
        self.stages: list[Stage] = []
        self.edges: list[Edge] = []
        self.mentions: dict[tuple[str, str], None] = {}  # (role, name): what was given by name, and as what
        self._ids: set[int] = set()  # of `stages`: their hash is a call in Python
        self._branches: list[int] = []  # edges that let through what their target accepts, known at the end
        self._series: set[tuple[int, int]] = set()  # steps of series that have their edge
        self._routes: dict[str, int] = {}  # how many routes leave a source
        self._otherwise: dict[str, str] = {}  # its `otherwise`

    def copy(self) -> Assembly:
        """One of its own, with the same stages and edges so far."""
        other = Assembly(self.name, self.config)
        other.stages, other.edges, other.mentions = self.stages.copy(), self.edges.copy(), self.mentions.copy()
        other._ids, other._branches, other._series = self._ids.copy(), self._branches.copy(), self._series.copy()
        other._routes, other._otherwise = self._routes.copy(), self._otherwise.copy()
        return other

    def graph(self) -> Graph:
        """The graph of what was added so far.

        Raises:
            GraphError: everything that is wrong with it.
        """
        edges = self.edges.copy()
        if self._branches:
            accepts = {stage.name: stage.accepts for stage in self.stages}
            for position in self._branches:
                edge = edges[position]
                edges[position] = replace(edge, when=accepts.get(edge.target) or None)
        return checked_graph(self.name, self.stages, edges, self.config, self.mentions)

    # ------------------------------------------------------------------ what a builder offers

    def add(self, stages: Sequence[Any]) -> None:
        """Add stages without edges."""
        for stage in stages:
            if isinstance(stage, str):
                raise TypeError(
                    f"add takes stage objects, got the name {stage!r}; a name does for stages that are there"
                )
            expect(stage)
        for stage in stages:
            self._ends(stage, "")

    def chain(self, stages: Sequence[Any]) -> None:
        """Add stages, each behind the one before."""
        for stage in stages:
            expect(stage)
        last = ""
        for stage in stages:
            first, end = self._ends(stage, "chain stage")
            if last:
                self.edges.append(Edge(last, first))
            last = end

    def connect(self, source: Any, target: Any, when: Any, buffer_size: Any, overflow: Any) -> None:
        """Add one edge with options."""
        expect(source)
        expect(target)
        rule = None if when is None else rule_of(when)
        expect_buffer(buffer_size, overflow)
        self.edges.append(
            Edge(
                self._ends(source, "connect source")[1],
                self._ends(target, "connect target")[0],
                when=rule,
                buffer_size=buffer_size,
                overflow=overflow,
            )
        )

    def branch(self, source: Any, targets: Sequence[Any]) -> None:
        """Add an edge to each target, which lets through what the target accepts."""
        if not targets:
            raise ValueError(f"branch from {called(source)} needs at least one target")
        for each in (source, *targets):
            expect(each)
        start = self._ends(source, "branch source")[1]
        for target in targets:
            end = self._ends(target, "branch target")[0]  # may add the edges of a series
            self._branches.append(len(self.edges))
            self.edges.append(Edge(start, end))

    def route(self, source: Any, rules: Sequence[Any], otherwise: Any) -> None:
        """Add rules to the routing table of a source."""
        expect(source)
        if not rules and otherwise is None:
            raise ValueError(f"route from {called(source)} needs at least one pair (rule, target), or otherwise=")
        pairs = []
        for pair in rules:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(
                    f"route from {called(source)} takes pairs (rule, target) such as (ToolCall, tools), got {pair!r}"
                )
            if isinstance(pair[0], (Stage, str)):
                raise TypeError(f"in a pair the rule comes first: (rule, target), got {pair!r}")
            expect(pair[1])
            pairs.append((rule_of(pair[0]), pair[1]))
        name = source if isinstance(source, str) else taken_apart(source)[-1].name
        if otherwise is not None:
            expect(otherwise)
            if name in self._otherwise:
                raise ValueError(
                    f"route from {name!r} has otherwise={self._otherwise[name]!r} already; one stage takes what no "
                    f"rule matched, and can branch further"
                )
        start = self._ends(source, "route source")[1]
        for rule, target in pairs:
            position = self._routes[name] = self._routes.get(name, -1) + 1
            self.edges.append(Edge(start, self._ends(target, "route target")[0], when=rule, route=position))
        if otherwise is not None:
            end = self._otherwise[name] = self._ends(otherwise, "route target")[0]
            self.edges.append(Edge(start, end, otherwise=True))

    def merge(self, sources: Sequence[Any], into: Any) -> None:
        """Add an edge from each source to one target."""
        if not sources:
            raise ValueError(f"merge into {called(into)} needs at least one source")
        for each in (*sources, into):
            expect(each)
        starts = [self._ends(source, "merge source")[1] for source in sources]
        target = self._ends(into, "merge target")[0]
        self.edges.extend(Edge(start, target) for start in starts)

    # ------------------------------------------------------------------ stages

    def _ends(self, what: Any, role: str) -> tuple[str, str]:
        """Names of its first and last stage; it is added if it is new."""
        if isinstance(what, str):
            self.mentions[role, what] = None
            return what, what
        if what.shape is not Shape.SERIES:
            name: str = what.name
            if id(what) not in self._ids:
                self._ids.add(id(what))
                self.stages.append(what)
            return name, name
        flat = taken_apart(what)
        for stage in flat:
            self._ends(stage, role)
        for before, after in pairwise(flat):
            step = id(before), id(after)
            if step not in self._series:  # mentioned twice, a series is still the same
                self._series.add(step)
                self.edges.append(Edge(before.name, after.name))
        return flat[0].name, flat[-1].name
