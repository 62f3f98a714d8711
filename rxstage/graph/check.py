"""Everything that is wrong with a graph, at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from rxstage.errors import Problem, ProblemKind
from rxstage.graph.cycles import components, cycles
from rxstage.graph.flow import content_problems
from rxstage.graph.model import Edge
from rxstage.graph.policy import policy_problems
from rxstage.stage import Shape, Stage

__all__ = ["check"]

_SHOWN: Final = 12  # names of a path or a list in a message; `Problem.stages` has them all
_COMPARED: Final = 500  # names that an unknown one is compared with, where there are many


def check(
    name: str, stages: Sequence[Stage], edges: Sequence[Edge], mentions: Iterable[tuple[str, str]] = ()
) -> list[Problem]:
    """Find everything that is wrong with a graph, in time linear in stages and edges.

    Args:
        name: of the pipeline, for the messages.
        stages: all stages, in the order in which they were added, those with a name of another one too.
        edges: between them, by name.
        mentions: `(role, name)` where a stage was given by its name: `("branch source", "process")`.

    Returns:
        The problems, none for a good graph: names first, then edges, cycles, policies, content and routes.
    """
    if not stages:
        remedy = "add some with .chain(...) or .add(...), as stage objects"
        return [
            Problem(ProblemKind.NO_STAGES, f"pipeline {name!r} has no stages; {remedy}"),
            *_unknown_names({}, edges, mentions),
        ]
    known: dict[str, Stage] = {}
    for stage in stages:
        known.setdefault(stage.name, stage)
    problems = list(_duplicate_names(known, stages))
    outgoing: dict[str, list[Edge]] = {}
    loose: list[Edge] = []  # they have an end that is unknown
    waiting = dict.fromkeys(known, 0)
    for edge in edges:
        if edge.source in known and edge.target in known:
            outgoing.setdefault(edge.source, []).append(edge)
            waiting[edge.target] += 1
        else:
            loose.append(edge)
    problems += _unknown_names(known, loose, mentions)
    for several in (loose, *outgoing.values()):
        if len(several) > 1:
            problems += _duplicate_edges(several)
    order = [stage for stage, count in waiting.items() if not count]
    for stage_name in order:
        for edge in outgoing.get(stage_name, ()):
            waiting[edge.target] -= 1
            if not waiting[edge.target]:
                order.append(edge.target)
    looped: set[str] = set()
    if len(order) < len(known):
        problems += _cycles(waiting, outgoing, order, looped)
    for stage in stages:
        if stage.shape is not Shape.ELEMENT:
            problems += policy_problems(stage)
    return problems + content_problems(known, order, outgoing, looped)


# ------------------------------------------------------------------------------------------ names


def _duplicate_names(known: Mapping[str, Stage], stages: Sequence[Stage]) -> Iterator[Problem]:
    if len(known) < len(stages):
        same: dict[str, list[Stage]] = {}
        for stage in stages:
            same.setdefault(stage.name, []).append(stage)
        for name, several in same.items():
            if len(several) > 1:
                kinds = _listed([type(stage).__name__ for stage in several])
                remedy = (
                    "give each pipeline a name (PipelineBuilder(name=...), Pipeline.of(..., name=...))"
                    if any(stage.shape is Shape.GRAPH for stage in several)
                    else "give each its own, or pass the same stage object where one is meant"
                )
                text = f"{len(several)} stages have the name {name!r} ({kinds}); {remedy}"
                yield Problem(ProblemKind.DUPLICATE_NAME, text, (name,))
    for name in known:
        if "/" in name and _inside(known, name):
            text = (
                f"stage {name!r} has the qualified name of a stage in the nested pipeline "
                f"{name.partition('/')[0]!r}; rename it"
            )
            yield Problem(ProblemKind.DUPLICATE_NAME, text, (name,))


def _inside(known: Mapping[str, Stage], name: str) -> bool:
    """Whether `outer/inner` is a stage of the nested pipeline `outer`."""
    head, _, rest = name.partition("/")
    while rest:
        stage = known.get(head)
        if stage is None or stage.shape is not Shape.GRAPH:
            return False
        known = stage.graph.stages  # type: ignore[attr-defined]
        if rest in known:
            return True
        head, _, rest = rest.partition("/")
    return False


def _unknown_names(
    known: Mapping[str, Stage], edges: Sequence[Edge], mentions: Iterable[tuple[str, str]]
) -> Iterator[Problem]:
    unknown = {(role, name): None for role, name in mentions if name not in known}
    told = {name for _, name in unknown}
    for edge in edges:
        for role, name in (("edge source", edge.source), ("edge target", edge.target)):
            if name not in known and name not in told:
                unknown[role, name] = None
    nearest: dict[str, str | None] = {}
    for role, name in unknown:
        if name not in nearest:
            nearest[name] = _nearest(name, known) if len(nearest) < _SHOWN else None
        near = nearest[name]
        if near is not None:
            remedy = f", did you mean {near!r}?"
        elif known:
            remedy = f"; add that stage, or use the name of one that is there: {_listed(known)}"
        else:
            remedy = "; add that stage"
        yield Problem(ProblemKind.UNKNOWN_NAME, f"{role} {name!r} is unknown{remedy}", (name,))


def _nearest(name: str, known: Iterable[str]) -> str | None:
    candidates = list(known)
    if len(candidates) > _COMPARED:  # the comparison is slow: only names that look alike
        alike = [each for each in candidates if abs(len(each) - len(name)) < 3]
        alike.sort(key=lambda each: -(each[:3] == name[:3]) - (each[-3:] == name[-3:]))
        candidates = alike[:_COMPARED]
    folded = {each.casefold(): each for each in candidates}
    import difflib  # needed for a mistake only

    return next((folded[each] for each in difflib.get_close_matches(name.casefold(), folded, n=1)), None)


# ------------------------------------------------------------------------------------------ edges


def _duplicate_edges(edges: Sequence[Edge]) -> Iterator[Problem]:
    pairs: dict[tuple[str, str], list[Edge]] = {}
    for edge in edges:
        pairs.setdefault((edge.source, edge.target), []).append(edge)
    for pair, several in pairs.items():
        if len(several) > 1:
            yield _duplicate(pair, several)


def _duplicate(pair: tuple[str, str], several: Sequence[Edge]) -> Problem:
    remedy = (
        "join their rules into one: a tuple of types, or one predicate"
        if any(edge.when is not None or edge.is_route for edge in several)
        else "declare it once"
    )
    text = f"edge {pair[0]!r} -> {pair[1]!r} is declared {len(several)} times; {remedy}"
    return Problem(ProblemKind.DUPLICATE_EDGE, text, pair)


def _cycles(
    waiting: Mapping[str, int], outgoing: Mapping[str, Sequence[Edge]], order: list[str], looped: set[str]
) -> Iterator[Problem]:
    """Tell of the cycles; what was not in order because of them is put there, and those on one into `looped`."""
    left = [name for name, count in waiting.items() if count]
    after = {name: [edge.target for edge in outgoing.get(name, ())] for name in left}
    for component in components(left, after):
        order += component
        paths = cycles(component, after)
        if paths:
            looped.update(component)
        for path in paths:
            shown = [repr(name) for name in (*path, path[0])]
            if len(shown) > _SHOWN:
                shown[_SHOWN - 3 : -2] = [f"({len(shown) - _SHOWN + 1} more)"]
            text = (
                f"cycle {' -> '.join(shown)}: a pipeline has none; remove one of its edges, keep the loop inside one "
                f"stage, or send the answer out through the sink of a bidirectional stage"
            )
            yield Problem(ProblemKind.CYCLE, text, tuple(path))


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
