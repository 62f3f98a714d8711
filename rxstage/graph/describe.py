"""From stages and graphs to specs."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping
from typing import Any, Final

from rxstage.errors import Problem, ProblemKind
from rxstage.graph.model import Edge, Graph
from rxstage.graph.names import Names
from rxstage.graph.specmodel import EdgeSpec, PipelineSpec, StageSpec
from rxstage.graph.values import ValueWriter
from rxstage.stage import Series, Shape, Stage
from rxstage.stages.basic import FilterStage, FlatMapStage, GenerateStage, MapStage, OperatorStage, SinkStage, StageFunc

__all__ = ["DEEPEST", "ORIGINS", "SHORT", "Describer", "parameters"]

DEEPEST: Final = 50
"""Pipelines, series and stages in options that may be nested in each other."""

ORIGINS: Final[weakref.WeakKeyDictionary[Stage, StageSpec]] = weakref.WeakKeyDictionary()
"""The specs of stages that a factory made: nothing in the stage itself tells of it."""

SHORT: Final = (MapStage, FilterStage, FlatMapStage, SinkStage, GenerateStage, StageFunc, OperatorStage)
"""Stages whose functions and types are written by their bare names."""


class Describer:
    """Writes specs; collects what cannot be written.

    Attributes:
        problems: what could not be.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.problems: list[Problem] = []
        self._values = ValueWriter(names, self._inner)
        self._depth = 0

    def graph(self, graph: Graph) -> PipelineSpec:
        """The spec of a graph."""
        return PipelineSpec(
            name=graph.name,
            config=graph.config,
            stages=tuple(self.stage(stage) for stage in graph.stages.values()),
            edges=tuple(map(self._edge, graph.edges)),
        )

    def stage(self, stage: Stage) -> StageSpec:
        """The spec of a stage; what stands for it where there is none, and a problem then."""
        name = stage.name
        if self._depth >= DEEPEST:
            return self._refused(name, f"it is nested more than {DEEPEST} deep")
        self._depth += 1
        try:
            return self._described(stage)
        except LookupError as error:
            return self._refused(name, str(error.args[0]), ProblemKind.UNKNOWN_NAME)
        except (TypeError, ValueError) as error:
            return self._refused(name, str(error))
        finally:
            self._depth -= 1

    def _refused(self, name: str, why: str, kind: ProblemKind = ProblemKind.POLICY) -> StageSpec:
        self.problems.append(Problem(kind, f"stage {name!r} has no spec: {why}", (name,)))
        return StageSpec(name=name, stage="?")

    def _inner(self, stage: Any) -> dict[str, Any]:
        return self.stage(stage).model_dump(mode="json", exclude_defaults=True)

    def _described(self, stage: Stage) -> StageSpec:
        registered = self.names.registered(stage)
        if registered is not None:
            return StageSpec(name=stage.name, stage=registered)
        if stage in ORIGINS:
            return ORIGINS[stage]
        if isinstance(stage, Series):
            return StageSpec(series=tuple(map(self.stage, stage.stages)))
        if stage.shape is Shape.GRAPH:
            return StageSpec(name=stage.name, pipeline=self.graph(stage.graph))  # type: ignore[attr-defined]
        decorated = self.names.module_stage(stage)
        if decorated is not None:
            return StageSpec(name=stage.name, stage=decorated)
        return StageSpec(
            name=stage.name,
            stage=self.names.of(type(stage), "stage"),
            options=self._options(stage),
            **self._declared(stage),
        )

    def _options(self, stage: Stage) -> dict[str, Any]:
        taken = parameters(type(stage))
        options: dict[str, Any] = {}
        for name, field in type(stage).model_fields.items():
            value = getattr(stage, name)
            if name == "name" or not _takes(taken, name) or _is_default(value, field):
                continue
            if isinstance(stage, SHORT) and name in ("fn", "on", "operators"):
                options[name] = self._short(name, value)
            else:
                options[name] = self._values.option(value, field)
        return options

    def _short(self, name: str, value: Any) -> str | list[str]:
        what = "type" if name == "on" else "function"
        several = isinstance(value, (tuple, list))
        return [self.names.of(each, what) for each in value] if several else self.names.of(value, what)

    def _declared(self, stage: Stage) -> dict[str, Any]:
        """What was declared of this one stage, other than by its class and its `on`."""
        own, taken = vars(stage), parameters(type(stage))
        on = getattr(stage, "on", None)
        implied = {"accepts": on if isinstance(on, tuple) else () if on is None else (on,)}
        result: dict[str, Any] = {}
        if "type" in own and _takes(taken, "type"):
            result["type"] = stage.type
        for name in ("accepts", "emits"):
            if name in own and own[name] != implied.get(name) and _takes(taken, name):
                result[name] = tuple(self.names.of(each, "type") for each in own[name])
        return result

    def _edge(self, edge: Edge) -> EdgeSpec:
        rule: dict[str, Any] = {}
        when = edge.when
        try:
            if isinstance(when, (type, tuple)):
                types = when if isinstance(when, tuple) else (when,)
                rule["when"] = tuple(self.names.of(each, "type") for each in types)
            elif when is not None:
                rule["predicate"] = self.names.of(when, "function")
        except LookupError as error:
            text = f"edge {edge.source!r} -> {edge.target!r} has no spec: {error.args[0]}"
            self.problems.append(Problem(ProblemKind.UNKNOWN_NAME, text, (edge.source, edge.target)))
        return EdgeSpec(
            source=edge.source,
            target=edge.target,
            route=edge.route,
            otherwise=edge.otherwise,
            buffer_size=edge.buffer_size,
            overflow=edge.overflow,
            **rule,
        )


def parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    """What is to be given to a class or function."""
    if not isinstance(target, type):
        return inspect.signature(target).parameters
    found = dict(inspect.signature(target.__init__).parameters)  # type: ignore[misc]
    found.pop(next(iter(found)))
    return found


def _takes(taken: Mapping[str, inspect.Parameter], name: str) -> bool:
    return name in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values())


def _is_default(value: Any, field: Any) -> bool:
    try:
        default = field.get_default(call_default_factory=True)
        return value is default or (type(value) is type(default) and bool(value == default))
    except Exception:  # a comparison or a factory that cannot: write it
        return False
