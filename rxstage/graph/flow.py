"""What kinds of content flow along a graph, and which stages and routes they never reach."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from rxstage.config import Fallback, Retry
from rxstage.content import CONTROL_KINDS
from rxstage.element import StreamElement
from rxstage.errors import Problem, ProblemKind
from rxstage.flow.callback import Kind
from rxstage.graph.model import Edge, Graph
from rxstage.graph.supply import ANYTHING, NOTHING, Supply, in_words, made_of, only_controls, passing, taken, union
from rxstage.stage import Shape, Stage, StageType
from rxstage.stages.basic import PassthroughStage

__all__ = ["content_problems", "hands_on", "type_names"]

Report: TypeAlias = Callable[[Problem], object]
Inner: TypeAlias = Generator[tuple[Graph, Supply], Supply, Supply]


def content_problems(
    stages: Mapping[str, Stage],
    order: Sequence[str],
    outgoing: Mapping[str, Sequence[Edge]],
    unknown: Collection[str] = (),
) -> list[Problem]:
    """Stages whose `accepts` nothing can supply, and edges that can let nothing through.

    Args:
        stages: by name.
        order: their names in topological order; those of a cycle next to each other.
        outgoing: the edges that leave a stage, where there are some.
        unknown: stages about which nothing can be said: they are part of a cycle.
    """
    problems: list[Problem] = []
    _run(_flow(stages, order, outgoing, ANYTHING, problems.append, unknown))
    return problems


def _run(flow: Inner) -> Supply:
    """Run a flow, and those of the pipelines nested in it, at no depth of the call stack."""
    known: dict[tuple[int, Supply], Supply] = {}
    stack: list[tuple[tuple[int, Supply] | None, Inner]] = [(None, flow)]
    answer: Any = None
    while True:
        key, running = stack[-1]
        try:
            graph, supply = running.send(answer)
        except StopIteration as end:
            answer = end.value
            stack.pop()
            if key is None:
                return answer  # type: ignore[no-any-return]
            known[key] = answer
            continue
        asked = (id(graph), supply)
        answer = known.get(asked)
        if answer is None:
            outgoing = {name: graph.outgoing(name) for name in graph.nodes}
            stack.append((asked, _flow(graph.stages, graph.order(), outgoing, supply)))


def _flow(
    stages: Mapping[str, Stage],
    order: Iterable[str],
    outgoing: Mapping[str, Sequence[Edge]],
    entering: Supply,
    report: Report | None = None,
    unknown: Collection[str] = (),
) -> Inner:
    """What leaves a graph that is given `entering`. Asks for what leaves a nested one; reports where it is told to."""
    before: dict[str, Supply] = {}  # what comes in, of the stages that have an edge coming in
    leaving = NOTHING
    for name in order:
        stage = stages[name]
        supply = before.pop(name, entering)
        accepts = stage.accepts
        if name in unknown:
            supply = ANYTHING
        elif accepts and report is not None:
            problem = _starved(stage, supply)
            if problem is not None:
                report(problem)
                supply = union(supply, made_of(accepts))  # so that what follows from it is not reported as well
        if stage.shape is Shape.GRAPH:
            after = yield stage.graph, supply  # type: ignore[attr-defined]
        else:
            after = _after(stage, supply)
        edges = outgoing.get(name)
        if not edges:
            leaving = union(leaving, after)
            continue
        plain = len(edges) == 1 and edges[0].when is None
        for edge, part in ((edges[0], after),) if plain else _split(edges, after, stages, report):
            target = edge.target
            before[target] = union(before[target], part) if target in before else part
    return leaving


def _starved(stage: Stage, supply: Supply) -> Problem | None:
    accepts = stage.accepts
    if stage.shape is Shape.ELEMENT and only_controls(accepts):
        text = (
            f"stage {stage.name!r} accepts only {type_names(accepts)}, and controls pass a function of one element by; "
            f"use a StageFunc, which sees them"
        )
    elif taken(supply, accepts) or not CONTROL_KINDS.isdisjoint(accepts):
        return None
    else:
        text = (
            f"stage {stage.name!r} accepts {type_names(accepts)}, but nothing can supply that: what comes to it is "
            f"{in_words(supply)}; put a stage before it that emits {type_names(accepts)}, or change what it accepts or "
            f"what the stages and edges before it let through"
        )
    return Problem(ProblemKind.IMPOSSIBLE_CONTENT, text, (stage.name,))


def _after(stage: Stage, before: Supply) -> Supply:
    """What leaves a stage that is no pipeline."""
    if stage.type is StageType.SINK:
        return NOTHING
    if hands_on(type(stage)):
        return before
    made = made_of(stage.emits)
    if stage.shape is Shape.PRODUCER:
        return union(before, made)
    policy = stage.on_error.then if isinstance(stage.on_error, Retry) else stage.on_error
    if isinstance(policy, Fallback):
        made = union(made, _after(policy.stage, taken(before, stage.accepts)))
    # Of the whole-stream functions too: one that names what it accepts may well hand on the rest.
    return union(passing(before, stage.accepts), made)


@lru_cache(maxsize=1024)
def hands_on(kind: type[Stage]) -> bool:
    """Whether what leaves such a stage is what came: a passthrough, a filter."""
    return issubclass(kind, PassthroughStage) or getattr(kind, "kind", None) is Kind.FILTER


def _split(
    edges: Sequence[Edge], after: Supply, stages: Mapping[str, Stage], report: Report | None
) -> list[tuple[Edge, Supply]]:
    """What goes along each of the edges that leave a stage."""
    parts = [(edge, _part(edge, after, stages, report)) for edge in edges if not edge.is_route]
    rest = after
    table = sorted((edge for edge in edges if edge.route is not None), key=_position)
    for edge in table:
        types = _types(edge.when)
        part = rest if types is None else taken(rest, types)
        if not part and report is not None:
            if not (after if types is None else taken(after, types)):
                why = _unsupplied(edge, after)
            else:
                why = "earlier rules of the same table match all of it; move it up, or drop it"
            report(_impossible(f"route {_arrow(edge)} ({_rule(edge)}) can match nothing: {why}", edge))
            part = ANYTHING if types is None else made_of(types)
        parts.append((edge, part))
        if types is not None:
            rest = passing(rest, types)
    parts.extend((edge, rest) for edge in edges if edge.otherwise)
    return parts


def _part(edge: Edge, after: Supply, stages: Mapping[str, Stage], report: Report | None) -> Supply:
    types = _types(edge.when)
    part = after if types is None else taken(after, types)
    if not part and types is not None and report is not None and types != stages[edge.target].accepts:
        # Where it lets through just what its target accepts, that stage tells, unless another edge supplies it.
        report(
            _impossible(
                f"edge {_arrow(edge)} ({_rule(edge)}) can let nothing through: {_unsupplied(edge, after)}", edge
            )
        )
        part = made_of(types)
    return part


def _unsupplied(edge: Edge, after: Supply) -> str:
    if only_controls(_types(edge.when) or ()):
        return "controls go along every edge by themselves; drop the rule, or name content types in it"
    return f"what leaves {edge.source!r} is {in_words(after)}; correct the rule, or the `emits` of the stages before it"


def _impossible(text: str, edge: Edge) -> Problem:
    return Problem(ProblemKind.IMPOSSIBLE_ROUTE, text, (edge.source, edge.target))


def _arrow(edge: Edge) -> str:
    return f"{edge.source!r} -> {edge.target!r}"


def _rule(edge: Edge) -> str:
    types = _types(edge.when)
    return "predicate" if types is None else type_names(types)


def _position(edge: Edge) -> int:
    return edge.route or 0


def _types(when: Any) -> tuple[type, ...] | None:
    """The types of a rule; None where it may let everything through."""
    if when is None or not isinstance(when, (type, tuple)):
        return None
    types = when if isinstance(when, tuple) else (when,)
    return None if StreamElement in types or not types else types


def type_names(types: Iterable[type]) -> str:
    """For a message: `Audio, Text or Order`."""
    names = [each.__name__ for each in types]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
