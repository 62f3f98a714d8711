"""The tools that a conversation in the terminal comes with: they need nothing and change nothing."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from rxstage.tools import ToolError, tool

__all__ = ["calculate", "now"]

_LONGEST: Final = 500  # characters of an expression
_BITS: Final = 4096  # of a power
_OPERATORS: Final[dict[type, Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_NAMES: Final = {"pi": math.pi, "e": math.e}
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "abs": abs,
    "round": round,
    **{
        name: getattr(math, name)
        for name in ("sqrt", "exp", "log", "log2", "log10", "sin", "cos", "tan", "floor", "ceil")
    },
}


@tool
def calculate(expression: str) -> float | int:
    """Calculate an arithmetic expression exactly, such as `(3 + 4) * 2 ** 10` or `sqrt(2) * pi`.

    Args:
        expression: numbers with + - * / // % ** and parentheses, and abs, round, sqrt, exp, log, sin, cos, tan, floor,
            ceil, pi and e.
    """
    if len(expression) > _LONGEST:
        raise ToolError(f"the expression is longer than {_LONGEST} characters")
    try:
        result: Any = _value(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ToolError(f"{expression!r} is no arithmetic expression") from error
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ToolError(f"{expression!r} cannot be calculated: {error}") from error
    if isinstance(result, float) and not math.isfinite(result):
        raise ToolError(f"{expression!r} is too large")
    if isinstance(result, float) and result.is_integer() and abs(result) < 2**53:
        return int(result)
    return result  # type: ignore[no-any-return]


@tool
def now(timezone: str | None = None) -> str:
    """The date and time now.

    Args:
        timezone: such as `Europe/Berlin`; by default the user's own.
    """
    try:
        zone = ZoneInfo(timezone) if timezone else None
    except (OSError, ValueError, LookupError) as error:  # there is none of that name, or it is none
        raise ToolError(f"there is no time zone {timezone!r}; write it as Europe/Berlin") from error
    moment = datetime.now(zone) if zone is not None else datetime.now().astimezone()
    return moment.strftime("%A, %Y-%m-%d %H:%M:%S %Z (UTC%z)")


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand))
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(_value, arguments))
    raise ValueError("it has more in it than numbers, arithmetic and the functions that there are")


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and abs(base).bit_length() * abs(exponent) > _BITS:
        raise ValueError("the number is too large")
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError("it has no real value")
    return result
