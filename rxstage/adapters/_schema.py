"""JSON schemas in the strict form that OpenAI guarantees to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["strict_schema"]

_FREE: Final = frozenset({"default", "oneOf", "allOf", "not", "if", "then", "else", "dependentSchemas"}) | {
    "patternProperties",
    "dependentRequired",
    "unevaluatedProperties",
    "propertyNames",
}


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema with its objects closed, or None where it allows what the strict form does not have.

    The strict form wants the root to be an object, every property to be required and no others to be allowed, and
    lacks some keywords.
    """
    if schema.get("type") != "object" or "anyOf" in schema:
        return None
    try:
        return _closed(schema)
    except ValueError:
        return None


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    if not _FREE.isdisjoint(schema):
        raise ValueError
    made = dict(schema)
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties", False) is not False or set(properties) != set(schema.get("required", ())):
            raise ValueError
        made["additionalProperties"] = False
        made["properties"] = {name: _closed(each) for name, each in properties.items()}
    if isinstance(schema.get("items"), Mapping):
        made["items"] = _closed(schema["items"])
    if "anyOf" in schema:
        made["anyOf"] = [_closed(each) for each in schema["anyOf"]]
    for name in ("$defs", "definitions"):
        if name in schema:
            made[name] = {key: _closed(each) for key, each in schema[name].items()}
    return made
