"""What a picture of a graph says about a stage or an edge."""

from __future__ import annotations

import re
from typing import Any, Final

from rxstage.graph.model import Edge
from rxstage.stage import Shape, Stage

__all__ = ["clean", "edge_caption", "stage_caption", "stage_tooltip"]

_SECRET: Final = re.compile(r"secret|token|password|passwd|credential|api_?key", re.IGNORECASE)
_NO_XML: Final = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def stage_caption(stage: Stage) -> str:
    """The small line in a box: what it does, and from what to what."""
    kind = "pipeline" if stage.shape is Shape.GRAPH else stage.type.value
    if not stage.accepts and not stage.emits:
        return kind
    return f"{kind} · {_types(stage.accepts)} → {_types(stage.emits)}"


def stage_tooltip(stage: Stage, qualified: str) -> str:
    """All that is declared about a stage, one thing a line. What looks like a secret is not shown."""
    lines = [
        qualified,
        f"{stage.type.name} ({type(stage).__name__})",
        f"accepts: {_types(stage.accepts)}",
        f"emits: {_types(stage.emits)}",
    ]
    for name, field in type(stage).model_fields.items():
        value = getattr(stage, name, None)
        if name in ("name", "graph") or not field.repr or _same(value, field.default):
            continue
        lines.append(f"{name}: {'…' if _SECRET.search(name) else _value(value)}")
    return "\n".join(lines)


def edge_caption(edge: Edge) -> str:
    """What stands at an edge: its rule and its buffer; empty for a plain one."""
    parts = []
    if edge.otherwise:
        parts.append("otherwise")
    elif edge.when is not None:
        rule = _rule(edge.when)
        parts.append(f"{edge.route + 1}: {rule}" if edge.route is not None else rule)
    elif edge.route is not None:
        parts.append(f"{edge.route + 1}: any")
    if edge.has_options:
        size = "buffer" if edge.buffer_size is None else f"buffer {edge.buffer_size}"
        parts.append(size if edge.overflow is None else f"{size} {edge.overflow}")
    return " · ".join(parts)


def clean(text: str, limit: int | None = None) -> str:
    """Text that can stand in a picture: no characters that XML forbids; one line of at most `limit`, if given."""
    text = _NO_XML.sub("\ufffd", text)
    if limit is None:
        return text
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _types(types: tuple[type, ...]) -> str:
    return ", ".join(each.__name__ for each in types) or "any"


def _rule(when: Any) -> str:
    if isinstance(when, type):
        return when.__name__
    if isinstance(when, tuple):
        return ", ".join(each.__name__ for each in when)
    return f"if {_function(when)}"


def _function(function: Any) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__name__
    name = str(name).rpartition("<locals>.")[2]
    return "λ" if name == "<lambda>" else name


def _value(value: Any) -> str:
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, tuple) and value and all(isinstance(each, type) for each in value):
        return _types(value)
    if hasattr(value, "__qualname__"):
        return _function(value)
    try:
        return clean(repr(value), 80)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def _same(value: Any, default: Any) -> bool:
    try:
        return value is default or bool(value == default)
    except Exception:  # an array, for instance: it is no default then
        return False
