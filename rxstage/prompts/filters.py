"""The filters of prompts, each of which pays for what it looks through and for what it makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec
from jinja2 import Undefined, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import do_round, make_attrgetter
from jinja2.runtime import Context
from markupsafe import escape

from rxstage.prompts.errors import PromptLimit
from rxstage.prompts.meter import metered

__all__ = [
    "CHARGE",
    "COMPILED",
    "CONCAT",
    "MADE",
    "OWN",
    "TAKEN",
    "WEIGHED",
    "WRITTEN",
    "by_name",
    "directly",
    "guarded",
    "join",
    "paid",
    "replace",
]

# Filters that only the compile step writes; no name in a template has a space in it.
CHARGE: Final = "rx charge"
CONCAT: Final = "rx concat"
MADE: Final = "rx made"
TAKEN: Final = "rx taken"
WEIGHED: Final = "rx weighed"
WRITTEN: Final = "rx written"

_INDENT: Final = 100  # characters
_PLACES: Final = 20  # of a rounded number


def guarded(use: Callable[[Context, Any, Any, Any], Any]) -> Callable[..., Any]:
    """A filter or test that pays for what it is given and for what it makes."""

    @pass_context
    def pays(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = metered.get()
        meter.spend(1)
        meter.weigh(args)
        meter.weigh(kwargs)
        return meter.made(use(context, paid(value), args, kwargs))

    return pays


def paid(value: Any) -> Any:
    """The value, once it is paid for; an iterator is paid for as it is taken."""
    meter = metered.get()
    meter.weigh(value)
    return _each(value) if isinstance(value, Iterator) else value


def _each(items: Iterator[Any]) -> Iterator[Any]:
    meter = metered.get()
    for item in items:
        meter.spend(1)
        yield item


def by_name(call: Callable[..., Any], name: str, context: Context, value: Any, args: Any, kwargs: Any) -> Any:
    """Use jinja2's own filter or test of a name."""
    return call(name, value, args, kwargs, context)


def directly(function: Callable[..., Any], context: Context, value: Any, args: Any, kwargs: Any) -> Any:
    """Use one of ours."""
    return function(context, value, *args, **kwargs)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if callable(value) and not isinstance(value, Undefined):
        raise SecurityError(f"{getattr(value, '__name__', type(value).__name__)!r} is a function, no text")
    return str(value)


def _join_filter(context: Context, value: Iterable[Any], d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    return join(value, d)


def join(value: Iterable[Any], separator: Any) -> str:
    """Join texts, unless they come to too much."""
    meter = metered.get()
    between = _text(separator)
    texts: list[str] = []
    length = 0
    for item in value:
        meter.weigh(item)
        texts.append(text := _text(item))
        length += len(text) + len(between)
        meter.fits(length - len(between))
    return between.join(texts)


def replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    """Replace in a text, unless it comes to too much."""
    text, this, that = _text(value), _text(old), _text(new)
    times = text.count(this)
    if count is not None and count >= 0:
        times = min(times, count)
    metered.get().fits(len(text) + times * max(0, len(that) - len(this)))
    return text.replace(this, that, times)


def _indent(_: Context, text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = width if isinstance(width, str) else " " * min(width, _INDENT + 1)
    if len(margin) > _INDENT:
        raise PromptLimit(f"an indent has at most {_INDENT} characters")
    lines = _text(text).split("\n")
    metered.get().fits(sum(len(line) + len(margin) for line in lines))
    return "\n".join(
        margin + line if (first or number) and (blank or line) else line for number, line in enumerate(lines)
    )


def _round(_: Context, value: float, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > _PLACES:
        raise PromptLimit(f"a number is rounded to at most {_PLACES} places")
    return do_round(value, precision, method)


def _sum(context: Context, value: Iterable[Any], attribute: Any = None, start: float = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise SecurityError("only numbers can be summed up")
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    return sum(value, start)


def _json(_: Context, value: Any, indent: int | None = None) -> str:
    """JSON as it is; jinja2's own writes it for HTML."""
    tree = msgspec.to_builtins(value, str_keys=True, enc_hook=_no_json)
    return json.dumps(tree, ensure_ascii=False, indent=None if indent is None else min(max(indent, 0), 8))


def _no_json(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # raises what is missing
    raise TypeError(f"{type(value).__name__} has no JSON")


OWN: Final[dict[str, Callable[..., Any]]] = {
    "e": lambda _, value: str(escape(_text(value))),
    "escape": lambda _, value: str(escape(_text(value))),
    "indent": _indent,
    "join": _join_filter,
    "replace": lambda _, *args, **kwargs: replace(*args, **kwargs),
    "round": _round,
    "string": lambda _, value: _text(value),
    "sum": _sum,
    "tojson": _json,
}


@pass_context
def _charge(_: Context, units: int) -> str:
    metered.get().spend(units)
    return ""


@pass_context
def _made(_: Context, value: Any) -> Any:
    return metered.get().made(value)


@pass_context
def _weighed(_: Context, value: Any) -> Any:
    return paid(value)


@pass_context
def _taken(_: Context, value: Any) -> Any:
    return _each(value) if isinstance(value, Iterator) else value


@pass_context
def _written(_: Context, value: Any) -> str:
    metered.get().weigh(value)
    return _text(value)


@pass_context
def _concat(_: Context, values: Iterable[Any]) -> str:
    return join(values, "")


COMPILED: Final = {CHARGE: _charge, CONCAT: _concat, MADE: _made, TAKEN: _taken, WEIGHED: _weighed, WRITTEN: _written}
