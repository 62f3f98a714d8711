"""The mutable part of building: collects stages and edges, and makes a checked graph of them."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Final, get_args

from msgspec.structs import replace

from rxstage.config import Overflow, PipelineConfig
from rxstage.errors import GraphError, Problem
from rxstage.graph.check import check
from rxstage.graph.model import Edge, Graph, Rule
from rxstage.stage import Series, Shape, Stage, function_flags

__all__ = ["Assembly", "checked_graph", "graph_of"]

_OVERFLOWS: Final = get_args(Overflow)


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
    return Graph(name, {stage.name: stage for stage in stages}, edges, config)


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
            _expect(stage)
        for stage in stages:
            self._ends(stage, "")

    def chain(self, stages: Sequence[Any]) -> None:
        """Add stages, each behind the one before."""
        for stage in stages:
            _expect(stage)
        last = ""
        for stage in stages:
            first, end = self._ends(stage, "chain stage")
            if last:
                self.edges.append(Edge(last, first))
            last = end

    def connect(self, source: Any, target: Any, when: Any, buffer_size: Any, overflow: Any) -> None:
        """Add one edge with options."""
        _expect(source)
        _expect(target)
        rule = None if when is None else _rule(when)
        if buffer_size is not None:
            if not isinstance(buffer_size, int) or isinstance(buffer_size, bool):
                raise TypeError(f"buffer_size must be a whole number of elements, got {buffer_size!r}")
            if buffer_size < 1:
                raise ValueError(f"buffer_size must be at least 1 element, got {buffer_size!r}")
        if overflow is not None and overflow not in _OVERFLOWS:
            raise ValueError(f"overflow must be one of {', '.join(map(repr, _OVERFLOWS))}, got {overflow!r}")
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
            raise ValueError(f"branch from {_called(source)} needs at least one target")
        for each in (source, *targets):
            _expect(each)
        start = self._ends(source, "branch source")[1]
        for target in targets:
            self._branches.append(len(self.edges))
            self.edges.append(Edge(start, self._ends(target, "branch target")[0]))

    def route(self, source: Any, rules: Sequence[Any], otherwise: Any) -> None:
        """Add rules to the routing table of a source."""
        _expect(source)
        if not rules and otherwise is None:
            raise ValueError(f"route from {_called(source)} needs at least one pair (rule, target), or otherwise=")
        pairs = []
        for pair in rules:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(
                    f"route from {_called(source)} takes pairs (rule, target) such as (ToolCall, tools), got {pair!r}"
                )
            if isinstance(pair[0], (Stage, str)):
                raise TypeError(f"in a pair the rule comes first: (rule, target), got {pair!r}")
            _expect(pair[1])
            pairs.append((_rule(pair[0]), pair[1]))
        name = source if isinstance(source, str) else _flat(source)[-1].name
        if otherwise is not None:
            _expect(otherwise)
            if name in self._otherwise:
                raise ValueError(
                    f"route from {name!r} has otherwise={self._otherwise[name]!r} already; one stage takes what no rule "
                    f"matched, and can branch further"
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
            raise ValueError(f"merge into {_called(into)} needs at least one source")
        for each in (*sources, into):
            _expect(each)
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
        flat = _flat(what)
        for stage in flat:
            self._ends(stage, role)
        for before, after in zip(flat, flat[1:], strict=False):
            step = id(before), id(after)
            if step not in self._series:  # mentioned twice, a series is still the same
                self._series.add(step)
                self.edges.append(Edge(before.name, after.name))
        return flat[0].name, flat[-1].name


def _flat(stage: Stage) -> tuple[Stage, ...]:
    """The stages that one stands for: those of a series, in order."""
    if not isinstance(stage, Series):
        return (stage,)
    result: list[Stage] = []
    left: list[Stage] = [stage]
    while left:
        each = left.pop()
        if isinstance(each, Series):
            left.extend(reversed(each.stages))
        else:
            result.append(each)
    return tuple(result)


def _expect(what: Any) -> None:
    """See to it that something is a stage or a name."""
    if isinstance(what, Stage):
        if what.shape is None:
            raise TypeError(
                f"stage {what.name!r} does nothing: {type(what).__name__} must override apply, process or build"
            )
        if what.shape is Shape.SERIES and not _flat(what):
            raise ValueError(f"series {what.name!r} holds no stages; make one with a >> b")
    elif isinstance(what, str):
        if not what:
            raise ValueError("a stage's name must not be empty, got ''")
    else:
        raise TypeError(f"a stage or the name of one is needed, got {what!r}; {_remedy(what)}")


def _remedy(what: Any) -> str:
    if isinstance(what, (list, tuple, set, dict)) or hasattr(what, "__next__"):
        return "pass several one by one, with a star: chain(*stages)"
    if isinstance(what, type) and issubclass(what, Stage):
        return f"pass an instance: {what.__name__}(...)"
    if hasattr(what, "build") and hasattr(what, "chain"):
        return "build it first: a pipeline is a stage, its builder is not"
    if callable(what):
        return "wrap a function in MapStage or decorate it with @stage, and an Rx operator in OperatorStage"
    return "see rxstage.Stage"


def _rule(rule: Any) -> Rule:
    """A rule as an edge has it.

    Raises:
        TypeError: it is none.
    """
    if typing.get_origin(rule) in (typing.Union, types.UnionType):
        rule = typing.get_args(rule)
    if isinstance(rule, (list, set, frozenset)):
        rule = tuple(rule)
    if isinstance(rule, type):
        return rule
    if isinstance(rule, tuple) and rule and all(isinstance(each, type) for each in rule):
        return rule
    if callable(rule) and not isinstance(rule, Stage):
        if function_flags(rule)[1]:
            raise TypeError(
                f"a rule's predicate must be a plain function, got the async {rule!r}; decide in a stage before"
            )
        return rule  # type: ignore[no-any-return]
    raise TypeError(
        f"a rule must be a content type (Text), several ((Text, Audio)) or a predicate of the element, got {rule!r}"
    )


def _called(what: Any) -> str:
    return repr(what.name if isinstance(what, Stage) else what)
