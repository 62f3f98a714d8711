"""A graph as plain data and back: pydantic models, JSON, YAML.

name: shout
stages:
  - {name: upper, stage: MapStage, options: {fn: "builtins:str.upper", on: Text}}
  - {name: mark, stage: "myapp.text:mark"}
edges:
  - {source: upper, target: mark, buffer_size: 64}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rxstage.errors import GraphError, require
from rxstage.graph.describe import Describer
from rxstage.graph.model import Graph
from rxstage.graph.names import Names
from rxstage.graph.realise import Realiser
from rxstage.graph.registry import register_function, register_stage, register_type
from rxstage.graph.specmodel import EdgeSpec, PipelineSpec, StageSpec

__all__ = [
    "EdgeSpec",
    "PipelineSpec",
    "StageSpec",
    "from_spec",
    "register_function",
    "register_stage",
    "register_type",
    "to_spec",
]


def to_spec(graph: Graph, *, registry: Mapping[str, Any] | None = None) -> PipelineSpec:
    """The graph as plain data; `from_spec` makes an equal graph of it.

    Stages are written by the name that they are registered under, or by their class and its options; functions,
    predicates and types by registered or import name.

    Args:
        graph: what to write.
        registry: further names, which go before the registered ones.

    Raises:
        GraphError: everything in it that has no name, such as a lambda; `register_function` gives it one.
    """
    describer = Describer(Names(registry))
    spec = describer.graph(graph)
    if describer.problems:
        raise GraphError(describer.problems)
    return spec


def from_spec(
    spec: PipelineSpec | Mapping[str, Any] | str | bytes,
    *,
    registry: Mapping[str, Any] | None = None,
    allow_imports: bool | Iterable[str] = False,
) -> Graph:
    """The graph that a spec describes.

    **Security.** An import name runs the code of a module and then whatever it names. So by default nothing is
    imported but the library's own stages: a spec gets at them, at what was registered (`register_stage`,
    `register_function`, `register_type`) and at harmless builtins (`builtins:str.upper`). `allow_imports` opens
    packages; what these import from elsewhere stays closed. Give True only for a spec that you trust as you trust
    code. A stage does what its options say, whoever wrote them: to run the spec of a stranger, look at its stages.
    YAML is read with a safe loader, without aliases.

    Args:
        spec: a `PipelineSpec`, such a thing as a dict, JSON, or YAML (extra `yaml`).
        registry: further names, which go before the registered ones.
        allow_imports: packages whose `module:qualname` may be imported; True for any.

    Raises:
        GraphError: everything that is wrong with it, unknown names too.
        ValueError: it is no spec at all (`pydantic.ValidationError`), or neither JSON nor YAML.
        MissingExtra: it is YAML, and PyYAML is not installed.
    """
    names = Names(registry, allow_imports)
    if isinstance(spec, (str, bytes)):
        spec = _parsed(spec)
    if not isinstance(spec, PipelineSpec):
        spec = PipelineSpec.model_validate(spec)
    return Realiser(names).graph(spec)


def _parsed(text: str | bytes) -> PipelineSpec:
    if isinstance(text, bytes):
        text = text.decode()
    if text.lstrip().startswith("{"):
        return PipelineSpec.model_validate_json(text)
    tree = _yaml(text)
    if not isinstance(tree, dict):
        raise ValueError(
            f"a spec is an object with stages and edges, got {text[:60]!r}; to read a file, give its text: "
            f"Path(...).read_text()"
        )
    return PipelineSpec.model_validate(tree)


def _yaml(text: str) -> Any:
    yaml = require("yaml", "yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[misc,name-defined]
        """YAML 1.2's booleans only (`on` is an option of stages), and no aliases, which can be made to explode."""

        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("a spec has no aliases (*name); write it out")
            return super().compose_node(parent, index)

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
    )
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"the spec is neither JSON nor YAML: {error}") from error
