"""Options of stages as plain data, and back.

What JSON has stands for itself, and so does what the annotation of an option makes of plain data again (an enum, a
nested model). The rest is an object with the key `$`:

    {"$": "function", "name": "myapp.text:clean"}      {"$": "type", "name": "Audio"}
    {"$": "retry", "attempts": 5, "retry_on": ["TimeoutError"], "then": "skip"}
    {"$": "fallback", "stage": {...}}                  {"$": "stage", "stage": {...}}
    {"$": "tuple", "items": [...]}                     also "set", "frozenset"
    {"$": "dict", "items": [[key, value], ...]}        {"$": "bytes", "base64": "..."}
    {"$": "float", "text": "inf"}                      {"$": "model", "type": "myapp:Options", "fields": {...}}
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from rxstage.config import Fallback, Retry
from rxstage.graph.names import Names
from rxstage.stage import Stage

__all__ = ["ValueReader", "ValueWriter"]

_MARK: Final = "$"
_SEQUENCES: Final[dict[str, Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_RETRY: Final = {"attempts", "wait", "jitter", "retry_on", "then"}


class ValueWriter:
    """Makes plain data of options.

    Args:
        names: where names for functions and types come from.
        stage: makes plain data of a stage.
    """

    def __init__(self, names: Names, stage: Callable[[Any], dict[str, Any]]) -> None:
        self.names = names
        self.stage = stage

    def option(self, value: Any, field: FieldInfo) -> Any:
        """Plain data for the value of a field.

        Raises:
            LookupError: something in it has no name.
            TypeError: something in it has no plain form.
        """
        if not _plain(value):
            adapted = _adapted(value, field)
            if adapted is not None:
                return adapted
        return self.value(value)

    def value(self, value: Any) -> Any:
        """Plain data for any value that has a form.

        Raises:
            LookupError: something in it has no name.
            TypeError: something in it has no plain form.
        """
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {_MARK: "float", "text": repr(value)}
        if kind is list:
            return [self.value(each) for each in value]
        if kind is dict:
            return self._dict(value)
        if kind in (tuple, set, frozenset):
            items = value if kind is tuple else sorted(value, key=repr)
            return {_MARK: kind.__name__, "items": [self.value(each) for each in items]}
        if kind is bytes:
            return {_MARK: "bytes", "base64": base64.b64encode(value).decode()}
        if isinstance(value, Stage):
            return {_MARK: "stage", "stage": self.stage(value)}
        if isinstance(value, Fallback):
            return {_MARK: "fallback", "stage": self.stage(value.stage)}
        if isinstance(value, Retry):
            return self._retry(value)
        if isinstance(value, type):
            return {_MARK: "type", "name": self.names.of(value, "type")}
        if isinstance(value, BaseModel):
            fields = {name: self.option(getattr(value, name), field) for name, field in kind.model_fields.items()}
            return {_MARK: "model", "type": self.names.of(kind, "type"), "fields": fields}
        if callable(value) and (hasattr(value, "__qualname__") or self.names.registered(value)):
            return {_MARK: "function", "name": self.names.of(value, "function")}
        raise TypeError(f"{value!r} has no plain form; register the stage with register_stage, or a factory for it")

    def _dict(self, value: dict[Any, Any]) -> dict[str, Any]:
        if all(type(key) is str for key in value) and _MARK not in value:
            return {key: self.value(each) for key, each in value.items()}
        return {_MARK: "dict", "items": [[self.value(key), self.value(each)] for key, each in value.items()]}

    def _retry(self, retry: Retry) -> dict[str, Any]:
        plain: dict[str, Any] = {_MARK: "retry", "attempts": retry.attempts}
        if retry.wait != 0.0:
            plain["wait"] = self.value(retry.wait)
        if retry.jitter != 0.0:
            plain["jitter"] = retry.jitter
        if isinstance(retry.retry_on, (type, tuple)):
            types = retry.retry_on if isinstance(retry.retry_on, tuple) else (retry.retry_on,)
            if types != (Exception,):
                plain["retry_on"] = [self.names.of(each, "type") for each in types]
        else:
            plain["retry_on"] = self.value(retry.retry_on)
        if retry.then != "fail":
            plain["then"] = self.value(retry.then)
        return plain


class ValueReader:
    """Makes options of plain data.

    Args:
        names: where functions and types come from.
        stage: makes a stage of plain data.
    """

    def __init__(self, names: Names, stage: Callable[[Any], Stage]) -> None:
        self.names = names
        self.stage = stage

    def value(self, plain: Any) -> Any:
        """The value that plain data stands for.

        Raises:
            LookupError: a name in it is unknown, or must not be imported.
            ValueError: it is no plain form of anything.
        """
        if isinstance(plain, list):
            return [self.value(each) for each in plain]
        if not isinstance(plain, Mapping):
            return plain
        match plain:
            case {"$": "function", "name": str(name), **rest} if not rest:
                return self.names.function(name)
            case {"$": "type", "name": str(name), **rest} if not rest:
                return self.names.type(name)
            case {"$": "stage", "stage": stage, **rest} if not rest:
                return self.stage(stage)
            case {"$": "fallback", "stage": stage, **rest} if not rest:
                return Fallback(self.stage(stage))
            case {"$": "retry", **options} if options.keys() <= _RETRY:
                return self._retry(options)
            case {"$": "tuple" | "set" | "frozenset" as kind, "items": list(items), **rest} if not rest:
                return _SEQUENCES[kind](self.value(items))
            case {"$": "dict", "items": list(items), **rest} if not rest:
                return {self.value(key): self.value(each) for key, each in items}
            case {"$": "bytes", "base64": str(text), **rest} if not rest:
                return base64.b64decode(text, validate=True)
            case {"$": "float", "text": str(text), **rest} if not rest:
                return float(text)
            case {"$": "model", "type": str(name), "fields": dict(fields), **rest} if not rest:
                return self._model(name, fields)
            case {"$": _}:
                raise ValueError(f"{dict(plain)!r} is no form of an option; see rxstage.graph.values for the forms")
        return {key: self.value(each) for key, each in plain.items()}

    def _retry(self, options: dict[str, Any]) -> Retry:
        retry_on = options.pop("retry_on", "Exception")
        types = [retry_on] if isinstance(retry_on, str) else retry_on
        matched = tuple(map(self.names.type, types)) if isinstance(types, list) else self.value(types)
        return Retry(**{key: self.value(each) for key, each in options.items()}, retry_on=matched)

    def _model(self, name: str, fields: dict[str, Any]) -> BaseModel:
        kind = self.names.type(name)
        if not issubclass(kind, BaseModel):
            raise ValueError(f"{name!r} is no pydantic model, and nothing else is made from fields")
        return kind(**{key: self.value(each) for key, each in fields.items()})


def _plain(value: Any) -> bool:
    """Whether it is its own plain form."""
    kind = type(value)
    if kind is list:
        return all(map(_plain, value))
    if kind is dict:
        return _MARK not in value and all(type(key) is str and _plain(each) for key, each in value.items())
    return value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value))


def _adapted(value: Any, field: FieldInfo) -> Any:
    """Plain data of which the annotation of a field makes the value again; None if it does not."""
    if field.annotation is Any:
        return None
    annotation: Any = field.annotation
    if field.metadata:
        annotation = Annotated[(annotation, *field.metadata)]
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        plain = adapter.dump_python(value, mode="json", warnings="error")
        again = adapter.validate_python(plain)
        return plain if _plain(plain) and type(again) is type(value) and again == value else None
    except Exception:  # pydantic knows no plain form of it, or no way back: it gets a form of ours
        return None
