"""The language of prompts: jinja2 in its sandbox, with fewer words, and metered.

What jinja2's sandbox does not bound is how much a template makes. Here every loop, call and operator takes units off a
`Meter`; filters and methods that multiply text are left out or check first; and what is called is a macro, a function
of this module or a method of a plain value that only reads it, never something that a variable brought along.
"""

from __future__ import annotations

import datetime as dt
from functools import partial
from types import BuiltinMethodType, MappingProxyType, MethodType
from typing import Any, Final

from jinja2 import StrictUndefined, Undefined, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

from rxstage.prompts.errors import PromptLimit
from rxstage.prompts.filters import COMPILED, OWN, by_name, directly, guarded, join, paid, replace
from rxstage.prompts.meter import metered

__all__ = ["Absent", "PromptEnvironment"]

_RANGE: Final = 10_000  # items


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


_FILTERS: Final = _words(
    "abs capitalize count d default dictsort first float groupby int items last length list lower map max min reject",
    "rejectattr reverse select selectattr sort title trim truncate unique upper wordcount",
)
_METHODS: Final[tuple[tuple[Any, frozenset[str]], ...]] = (
    (
        str,
        _words(
            "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric",
            "isspace istitle isupper lower lstrip partition removeprefix removesuffix rfind rindex rpartition rsplit",
            "rstrip split splitlines startswith strip swapcase title upper",
        ),
    ),
    ((dict, MappingProxyType), _words("get items keys values")),
    ((list, tuple), _words("count index")),
    ((dt.date, dt.time), _words("date isocalendar isoformat isoweekday strftime time timestamp weekday")),
    (dt.timedelta, _words("total_seconds")),
)
"""What may be called on values: methods that read."""


class Absent(UndefinedError):
    """A template reads what is not there: a variable, or an attribute of something."""

    def __init__(self, name: Any, attribute: bool, message: str | None = None) -> None:
        super().__init__(message)
        self.variable, self.attribute = str(name), attribute


class _Strict(StrictUndefined):
    """Says its name to whoever uses it."""

    __slots__ = ()

    def __init__(
        self, hint: str | None = None, obj: Any = missing, name: Any = None, exc: Any = UndefinedError
    ) -> None:
        if exc is UndefinedError:
            exc = partial(Absent, name, obj is not missing)
        super().__init__(hint, obj, name, exc)

    def __repr__(self) -> str:  # as it stands in a list that is written
        return str(self)


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and runs templates of prompts."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(undefined=_Strict, autoescape=False, cache_size=0, loader=None)
        self.globals = {"range": _range, "dict": dict, "namespace": Namespace}
        plain = ImmutableSandboxedEnvironment(undefined=_Strict)
        self.filters = {
            **{name: guarded(partial(by_name, plain.call_filter, name)) for name in _FILTERS},
            **{name: guarded(partial(directly, own)) for name, own in OWN.items()},
            **COMPILED,
        }
        self.tests = {name: guarded(partial(by_name, plain.call_test, name)) for name in plain.tests}

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what may be called.

        Raises:
            SecurityError: it may not.
        """
        meter = metered.get()
        meter.spend(1)
        if isinstance(__obj, Undefined):
            return __obj()
        args = tuple(map(paid, args))
        named = {key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")}
        meter.weigh(named)
        if isinstance(__obj, Macro) or __obj is Namespace:
            return __context.call(__obj, *args, **kwargs)
        owner = getattr(__obj, "__self__", None)
        if isinstance(__obj, BuiltinMethodType) and isinstance(owner, str) and __obj.__name__ in ("join", "replace"):
            return meter.made(join(args[0], owner) if __obj.__name__ == "join" else replace(owner, *args))
        if __obj is dict or __obj is _range or _reads(__obj, owner):
            meter.weigh(owner)
            return meter.made(__obj(*args, **named))
        raise SecurityError(
            f"{getattr(__obj, '__name__', type(__obj).__name__)!r} cannot be called by a template; let a variable "
            f"hold the result"
        )

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Work out `left operator right`, where that cannot grow too big.

        Raises:
            PromptLimit: it can.
        """
        meter = metered.get()
        meter.weigh(left)
        meter.weigh(right)
        if operator == "%" and isinstance(left, (str, bytes)):
            raise SecurityError("a template has no % for texts; put them together with ~")
        whole = isinstance(left, int) and isinstance(right, int)
        if operator == "**" and whole:
            meter.number(left.bit_length() * max(0, right))
        elif operator == "*" and whole:
            meter.number(left.bit_length() + right.bit_length())
        elif operator == "*":
            for many, count in ((left, right), (right, left)):
                if isinstance(count, int) and isinstance(many, (str, bytes, list, tuple)):
                    meter.fits(len(many) * max(0, count))
        elif operator == "+" and isinstance(left, (str, bytes)) and isinstance(right, (str, bytes)):
            meter.fits(len(left) + len(right))
        return meter.made(self.binop_table[operator](left, right))


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > _RANGE:
        raise PromptLimit(f"a range in a template has at most {_RANGE} numbers, this one has {len(numbers)}")
    return numbers


def _reads(function: Any, owner: Any) -> bool:
    """Whether it is a method of a plain value that only reads it."""
    if isinstance(function, MethodType):
        return isinstance(owner, LoopContext) and function.__name__ in ("changed", "cycle")
    if not isinstance(function, BuiltinMethodType):  # one written in Python may be anything
        return False
    return any(isinstance(owner, kinds) and function.__name__ in names for kinds, names in _METHODS)
