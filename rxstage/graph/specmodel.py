"""The form of a graph as plain data: JSON, YAML, or pydantic models in memory."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rxstage.config import Overflow, PipelineConfig
from rxstage.errors import require
from rxstage.stage import StageType

__all__ = ["EdgeSpec", "PipelineSpec", "StageSpec"]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageSpec(_Spec):
    """One stage. Exactly one of `stage`, `series` and `pipeline` says what it is.

    Args:
        name: in the graph; by default the stage's own.
        stage: registered name, name of one of the basic stages (`"MapStage"`), or import name (`"myapp.text:clean"`) of
            a stage, a stage class, or a function that makes a stage.
        options: what it is made with; see `rxstage.graph.values` for what JSON has no form for. `fn` and `operators`
            of the basic stages are names of functions, `on` names of types.
        type: what it does to the number of elements, where that is no matter of its class.
        accepts: names of the content types it sees, where that is no matter of its class or its `on`.
        emits: names of the content types it makes, where that is no matter of its class.
        series: stages in series, instead of one.
        pipeline: a nested pipeline, instead of a stage.
    """

    name: str | None = None
    stage: str | None = None
    options: dict[str, Any] = {}
    type: StageType | None = None
    accepts: tuple[str, ...] | None = None
    emits: tuple[str, ...] | None = None
    series: tuple[StageSpec, ...] | None = None
    pipeline: PipelineSpec | None = None

    _one = field_validator("accepts", "emits", mode="before")(staticmethod(lambda value: _several(value)))

    @model_validator(mode="after")
    def _is_one_thing(self) -> StageSpec:
        if sum(each is not None for each in (self.stage, self.series, self.pipeline)) != 1:
            raise ValueError("a stage has exactly one of 'stage', 'series' and 'pipeline'")
        if self.stage is None and (self.options or self.type or self.accepts or self.emits):
            raise ValueError("only what has 'stage' can have options, type, accepts or emits")
        return self


class EdgeSpec(_Spec):
    """One edge.

    Args:
        source: name of the stage it leaves.
        target: name of the stage it enters.
        when: names of the content types it lets through; one need not be in a list.
        predicate: name of a function of the element that says what it lets through, instead of `when`.
        route: position in the source's routing table, where it is part of one.
        otherwise: takes what no route of its source matched.
        buffer_size: elements that a buffer on this edge holds.
        overflow: what that buffer does when it is full.
    """

    source: str
    target: str
    when: tuple[str, ...] | None = None
    predicate: str | None = None
    route: int | None = Field(default=None, ge=0)
    otherwise: bool = False
    buffer_size: int | None = Field(default=None, ge=1)
    overflow: Overflow | None = None

    @field_validator("when", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return _several(value)

    @model_validator(mode="after")
    def _is_one_rule(self) -> EdgeSpec:
        if self.when is not None and self.predicate is not None:
            raise ValueError("an edge has 'when' or 'predicate', not both")
        if self.otherwise and (self.route is not None or self.when is not None or self.predicate is not None):
            raise ValueError("an 'otherwise' edge takes what is left: it has no 'route', 'when' or 'predicate'")
        return self


class PipelineSpec(_Spec):
    """A pipeline as plain data.

    Args:
        rxstage: version of this form.
        name: of the pipeline.
        config: its configuration.
        stages: its stages.
        edges: between them, by name.
    """

    rxstage: Literal[1] = 1
    name: str = Field(default="pipeline", min_length=1)
    config: PipelineConfig = Field(default_factory=PipelineConfig)
    stages: tuple[StageSpec, ...] = ()
    edges: tuple[EdgeSpec, ...] = ()

    @model_validator(mode="after")
    def _tables_are_tables(self) -> PipelineSpec:
        places = set()
        for edge in self.edges:
            if edge.otherwise or edge.route is not None:
                place = edge.source, None if edge.otherwise else edge.route
                if place in places:
                    which = "an 'otherwise'" if edge.otherwise else f"a route {edge.route}"
                    raise ValueError(f"{edge.source!r} has {which} twice; give each its own place in the table")
                places.add(place)
        return self

    def to_dict(self) -> dict[str, Any]:
        """What JSON and YAML hold: only what is not the default."""
        return {"rxstage": 1, **self.model_dump(mode="json", exclude_defaults=True)}

    def to_json(self, *, indent: int | None = 2) -> str:
        """The spec as JSON."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def to_yaml(self) -> str:
        """The spec as YAML.

        Raises:
            MissingExtra: PyYAML is not installed (extra `yaml`).
        """
        text: str = require("yaml", "yaml").safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        return text


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value
