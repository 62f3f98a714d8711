"""From specs to stages and graphs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from rxstage.errors import GraphError, Problem, ProblemKind
from rxstage.graph.arguments import taken_apart
from rxstage.graph.assemble import checked_graph, nested_form
from rxstage.graph.describe import DEEPEST, ORIGINS, SHORT, parameters
from rxstage.graph.model import Edge, Graph
from rxstage.graph.names import Names
from rxstage.graph.specmodel import EdgeSpec, PipelineSpec, StageSpec
from rxstage.graph.values import ValueReader
from rxstage.stage import Series, Shape, Stage
from rxstage.stages.basic import MapStage

__all__ = ["Realiser"]


class Realiser:
    """Makes graphs of specs.

    Args:
        names: where stages, functions and types come from.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.problems: list[Problem] = []
        self._values = ValueReader(names, self._inner)
        self._depth = 0

    def graph(self, spec: PipelineSpec) -> Graph:
        """The graph of a spec.

        Raises:
            GraphError: everything that is wrong with it.
        """
        outer, self.problems = self.problems, []
        try:
            stages: list[Stage] = []
            edges: list[Edge] = []
            for stage_spec in spec.stages:
                flat = taken_apart(self.stage(stage_spec))
                stages += flat
                edges += (Edge(one.name, other.name) for one, other in pairwise(flat))
            edges += map(self._edge, spec.edges)
            return checked_graph(spec.name, stages, edges, spec.config, problems=self.problems)
        finally:
            self.problems = outer

    def stage(self, spec: StageSpec) -> Stage:
        """The stage of a spec; one that does nothing where it cannot be made, and a problem then."""
        if self._depth >= DEEPEST:
            return self._refused(spec, f"it is nested more than {DEEPEST} deep")
        self._depth += 1
        try:
            return self._made(spec)
        except GraphError as error:
            name = spec.name or "pipeline"
            self.problems += (
                Problem(each.kind, f"in {name!r}: {each.message}", tuple(f"{name}/{inner}" for inner in each.stages))
                for each in error.problems
            )
            return _stand_in(spec)
        except LookupError as error:
            return self._refused(spec, str(error.args[0]), ProblemKind.UNKNOWN_NAME)
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            return self._refused(spec, "; ".join(wrong))
        except Exception as error:  # whatever a factory raises is to be reported with the rest
            return self._refused(spec, f"{type(error).__name__}: {error}")
        finally:
            self._depth -= 1

    def _refused(self, spec: StageSpec, why: str, kind: ProblemKind = ProblemKind.POLICY) -> Stage:
        name = spec.name or spec.stage or "?"
        self.problems.append(Problem(kind, f"stage {name!r} cannot be made: {why}", (name,)))
        return _stand_in(spec)

    def _inner(self, plain: Any) -> Stage:
        return self.stage(StageSpec.model_validate(plain))

    def _made(self, spec: StageSpec) -> Stage:
        if spec.series is not None:
            if not spec.series:
                raise ValueError("a series needs at least one stage")
            return Series.of(*map(self.stage, spec.series))
        if spec.pipeline is not None:
            inner = spec.pipeline if spec.name is None else spec.pipeline.model_copy(update={"name": spec.name})
            return nested_form()(self.graph(inner))
        assert spec.stage is not None
        target = self.names.stage(spec.stage)
        declared = {
            name: tuple(map(self.names.type, types))
            for name, types in (("accepts", spec.accepts), ("emits", spec.emits))
            if types is not None
        }
        options = {name: self._option(target, name, plain) for name, plain in spec.options.items()} | declared
        if spec.type is not None:
            options["type"] = spec.type
        if not isinstance(target, Stage):
            stage: Any = _call(target, spec.name, options)
        elif options:
            raise ValueError(f"{spec.stage!r} is a finished stage and takes no options; register a class or a factory")
        else:
            stage = target
        if not isinstance(stage, Stage):
            raise TypeError(f"{spec.stage!r} gave {stage!r}, and no stage")
        if spec.name is not None and stage.name != spec.name:
            stage = _renamed(stage, spec.name)
        if stage is not target and not (isinstance(target, type) and type(stage) is target):
            ORIGINS[stage] = spec.model_copy(update={"name": stage.name})
        made: Stage = stage
        return made

    def _option(self, target: Any, name: str, plain: Any) -> Any:
        if isinstance(target, type) and issubclass(target, SHORT) and name in ("fn", "on", "operators"):
            find = self.names.type if name == "on" else self.names.function
            if isinstance(plain, str):
                found = find(plain)
                return (found,) if name == "operators" else found
            if isinstance(plain, list):
                return tuple(map(find, plain))
        return self._values.value(plain)

    def _edge(self, spec: EdgeSpec) -> Edge:
        when: Any = None
        try:
            if spec.when is not None:
                when = tuple(map(self.names.type, spec.when))
            elif spec.predicate is not None:
                when = self.names.function(spec.predicate)
        except LookupError as error:
            text = f"edge {spec.source!r} -> {spec.target!r} cannot be made: {error.args[0]}"
            self.problems.append(Problem(ProblemKind.UNKNOWN_NAME, text, (spec.source, spec.target)))
        return Edge(spec.source, spec.target, when, spec.route, spec.otherwise, spec.buffer_size, spec.overflow)


def _call(target: Any, name: str | None, options: dict[str, Any]) -> Any:
    """Call a stage class or factory: options by name, but for what it takes by position only."""
    taken = parameters(target)
    given = options if name is None else {"name": name, **options}
    if "name" not in taken and not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        given = options
    left, positional = dict(given), []
    for parameter in taken.values():
        if parameter.kind is not parameter.POSITIONAL_ONLY:
            break
        if parameter.name in left:
            positional.append(left.pop(parameter.name))
        elif parameter.default is parameter.empty:
            raise ValueError(
                f"it needs {parameter.name!r}" + (" among its options" if parameter.name != "name" else "")
            )
        else:
            break
    return target(*positional, **left)


def _renamed(stage: Stage, name: str) -> Stage:
    if stage.shape in (Shape.GRAPH, Shape.SERIES):
        raise ValueError(f"a pipeline cannot be renamed: use the name {stage.name!r} in the spec")
    return stage.model_copy(update={"name": name})


def _stand_in(spec: StageSpec) -> Stage:
    """Stands where a stage could not be made, so that the rest of the graph can be checked."""
    make: Any = MapStage
    stand_in: Stage = make(spec.name or spec.stage or "?", _same)
    return stand_in


def _same(element: Any) -> Any:
    return element
