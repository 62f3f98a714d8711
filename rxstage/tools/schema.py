"""The arguments of a function as a JSON schema, and arguments of a call as those of the function."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, NotRequired

import pydantic_core
from msgspec import Struct
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

from rxstage.tools.context import ToolContext
from rxstage.tools.result import in_words

__all__ = ["Arguments", "ArgumentsError", "arguments_of", "docstring_of", "excess"]

_MOST: Final = 100_000  # characters of the arguments of one call
_DEEPEST: Final = 64  # levels of objects and lists in them
_TOLD: Final = 5  # errors that one answer tells
_NAMED: Final = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
_SECTION: Final = re.compile(
    r"(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?|Attributes|See Also|Warnings?):\s*$"
)
_ENTRY: Final = re.compile(r"(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


class ArgumentsError(ValueError):
    """Arguments do not fit; the message is for the model."""


class Arguments(Struct, frozen=True, eq=False):
    """How the arguments of a call become those of a function.

    Attributes:
        schema: JSON schema of the object that a model has to give.
        context: name of the parameter that gets the `ToolContext`, or "".
        check: makes the function's arguments of the model's.
    """

    schema: dict[str, Any]
    context: str
    check: Callable[[Any], dict[str, Any]]

    def fit(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The function's arguments, checked and converted.

        Raises:
            ArgumentsError: they do not fit; it says where and why.
        """
        try:
            return self.check(arguments)
        except ValidationError as error:
            raise ArgumentsError(_problems(error, self.schema["properties"])) from error
        except Exception as error:  # a validator of the application
            raise ArgumentsError(f"they cannot be read: {in_words(error)}") from error


class _Plain(GenerateJsonSchema):
    """Leaves out the titles, which say the names again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def arguments_of(function: Callable[..., Any], tool: str, names: Mapping[str, Any] | None = None) -> Arguments:
    """Read the parameters of a function.

    Args:
        function: whose parameters become properties; what its docstring says of them, descriptions.
        tool: name of the tool, for errors.
        names: further names that annotations may use.

    Raises:
        TypeError: a parameter cannot be given by name, its annotation cannot be found, or has no JSON schema.
    """
    hints = _hints(function, tool, names)
    texts = docstring_of(function)[1]
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    context = ""
    for each in inspect.signature(function).parameters.values():
        hint = hints.get(each.name, Any)
        if _is_context(each.name, hint, each.name in hints):
            context = each.name
            continue
        _usable(each, tool, first=not fields)
        if each.default is not each.empty:
            defaults[each.name] = each.default
            hint = NotRequired[hint]
        fields[each.name] = hint
    adapter = _adapter(fields, tool)
    try:
        schema = adapter.json_schema(schema_generator=_Plain)
    except Exception as error:
        raise TypeError(f"tool {tool!r}: a parameter has no JSON schema: {error}") from error
    schema.pop("title", None)
    for name, form in schema.setdefault("properties", {}).items():
        if name in texts:
            form.setdefault("description", texts[name])
        if (default := _plain(defaults.get(name))) is not None:
            form.setdefault("default", default)
    return Arguments(schema, context, adapter.validate_python)


def docstring_of(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What a docstring says of a function, and of each parameter under `Args:`."""
    while isinstance(function, functools.partial):
        function = function.func
    described, entries = [], dict[str, str]()
    section, depth, name = "", 0, ""
    for line in (inspect.getdoc(function) or "").splitlines():
        if found := _SECTION.match(line):
            section, depth = found[1], 0
        elif not section:
            described.append(line)
        elif section in ("Args", "Arguments", "Parameters"):
            entry = _ENTRY.match(line)
            if entry and (not depth or len(entry[1]) <= depth):
                depth, name = len(entry[1]), entry[2]
                entries[name] = entry[3]
            elif name and line.strip():
                entries[name] += f" {line.strip()}"
    return "\n".join(described).strip(), entries


def excess(arguments: Any) -> str:
    """What is too much about arguments, in words; "" where nothing is."""
    size = 0
    left = [(arguments, 0)]
    while left:
        value, depth = left.pop()
        if depth > _DEEPEST:
            return f"are nested deeper than {_DEEPEST} levels"
        size += 1
        if isinstance(value, (str, bytes)):
            size += len(value)
        elif isinstance(value, Mapping):
            size += len(value)
            if size <= _MOST:
                size += sum(len(key) for key in value if isinstance(key, str))
                left += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, (list, tuple)):
            size += len(value)
            if size <= _MOST:
                left += [(each, depth + 1) for each in value]
        elif isinstance(value, int):
            size += value.bit_length() // 3
        if size > _MOST:
            return f"are longer than {_MOST} characters"
    return ""


def _hints(function: Callable[..., Any], tool: str, names: Mapping[str, Any] | None) -> dict[str, Any]:
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__annotations__") or isinstance(function, type):
        function = function.__init__ if isinstance(function, type) else type(function).__call__  # type: ignore[misc]
    try:
        return typing.get_type_hints(function, localns=dict(names) if names else None, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"tool {tool!r}: an annotation cannot be found at run time ({error}); import it outside TYPE_CHECKING"
        ) from error


def _is_context(name: str, hint: Any, annotated: bool) -> bool:
    if not annotated:
        return name == "context"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return ToolContext in typing.get_args(hint)
    return hint is ToolContext


def _usable(parameter: inspect.Parameter, tool: str, *, first: bool) -> None:
    if parameter.kind not in _NAMED:
        raise TypeError(
            f"tool {tool!r}: the parameter {str(parameter)!r} cannot be given by name; a model names each argument "
            f"(one of type dict[str, Any] takes any)"
        )
    if first and parameter.name == "self" and parameter.annotation is parameter.empty:
        raise TypeError(f"tool {tool!r} is a method without its object; take the bound method: tool(shop.buy)")
    if isinstance(parameter.default, FieldInfo):
        raise TypeError(
            f"tool {tool!r}: write {parameter.name}: Annotated[..., Field(...)] = default instead of a Field as default"
        )


def _adapter(fields: dict[str, Any], tool: str) -> TypeAdapter[dict[str, Any]]:
    typed_dict: Any = TypedDict  # a type checker wants a literal
    try:
        form = typed_dict("Arguments", fields)
        form.__pydantic_config__ = ConfigDict(extra="forbid")
        return TypeAdapter(form)
    except Exception as error:
        if len(fields) > 1:
            for name, hint in fields.items():
                _adapter({name: hint}, tool)  # names the one that it is
        names = ", ".join(fields)
        raise TypeError(f"tool {tool!r}: pydantic has no schema for {names}: {str(error).splitlines()[0]}") from error


def _plain(value: Any) -> Any:
    try:
        return pydantic_core.to_jsonable_python(value)
    except Exception:
        return None  # the function has a default that JSON has not: it stays the function's own


def _problems(error: ValidationError, known: Mapping[str, Any]) -> str:
    told = []
    for each in error.errors(include_url=False, include_context=False)[:_TOLD]:
        place = _short(".".join(map(str, each["loc"])), str)
        if each["type"] == "extra_forbidden":
            told.append(f"{place}: there is no such argument")
        elif each["type"] == "missing":
            told.append(f"{place}: is missing")
        else:
            told.append(f"{place}: {each['msg']}, got {_short(each['input'])}")
    if (more := error.error_count() - _TOLD) > 0:
        told.append(f"and {more} more")
    takes = ", ".join(known) if known else "none"
    return f"{'; '.join(told)}. Its arguments are: {takes}."


def _short(value: Any, form: Callable[[Any], str] = repr) -> str:
    text = form(value)
    return text if len(text) <= 60 else text[:59] + "…"
