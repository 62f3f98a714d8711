"""What a caller of the builder may pass, and what is said where it is something else."""

from __future__ import annotations

import types
import typing
from typing import Any, Final, get_args

from rxstage.config import Overflow
from rxstage.graph.model import Rule
from rxstage.stage import Series, Shape, Stage, function_flags

__all__ = ["called", "expect", "expect_buffer", "rule_of", "taken_apart"]

_OVERFLOWS: Final = get_args(Overflow)


def taken_apart(stage: Stage) -> tuple[Stage, ...]:
    """The stages that one stands for: those of a series, in order."""
    if not isinstance(stage, Series):
        return (stage,)
    result: list[Stage] = []
    left: list[Stage] = [stage]
    while left:
        each = left.pop()
        if isinstance(each, Series):
            left.extend(reversed(each.stages))
        else:
            result.append(each)
    return tuple(result)


def expect(what: Any) -> None:
    """See to it that something is a stage or a name.

    Raises:
        TypeError: it is neither, or a stage that overrides nothing.
        ValueError: it is an empty name or series.
    """
    if isinstance(what, Stage):
        if what.shape is None:
            raise TypeError(
                f"stage {what.name!r} does nothing: {type(what).__name__} must override apply, process or build"
            )
        if what.shape is Shape.SERIES and not taken_apart(what):
            raise ValueError(f"series {what.name!r} holds no stages; make one with a >> b")
    elif isinstance(what, str):
        if not what:
            raise ValueError("a stage's name must not be empty, got ''")
    else:
        raise TypeError(f"a stage or the name of one is needed, got {what!r}; {_remedy(what)}")


def _remedy(what: Any) -> str:
    if isinstance(what, (list, tuple, set, dict)) or hasattr(what, "__next__"):
        return "pass several one by one, with a star: chain(*stages)"
    if isinstance(what, type) and issubclass(what, Stage):
        return f"pass an instance: {what.__name__}(...)"
    if hasattr(what, "build") and hasattr(what, "chain"):
        return "build it first: a pipeline is a stage, its builder is not"
    if callable(what):
        return "wrap a function in MapStage or decorate it with @stage, and an Rx operator in OperatorStage"
    return "see rxstage.Stage"


def expect_buffer(buffer_size: Any, overflow: Any) -> None:
    """See to it that the options of an edge are good; None leaves one to the configuration.

    Raises:
        TypeError: `buffer_size` is no whole number.
        ValueError: it is below 1, or `overflow` is unknown.
    """
    if buffer_size is not None:
        if not isinstance(buffer_size, int) or isinstance(buffer_size, bool):
            raise TypeError(f"buffer_size must be a whole number of elements, got {buffer_size!r}")
        if buffer_size < 1:
            raise ValueError(f"buffer_size must be at least 1 element, got {buffer_size!r}")
    if overflow is not None and overflow not in _OVERFLOWS:
        raise ValueError(f"overflow must be one of {', '.join(map(repr, _OVERFLOWS))}, got {overflow!r}")


def rule_of(rule: Any) -> Rule:
    """What was passed as a rule, as an edge has it.

    Raises:
        TypeError: it is none.
    """
    if typing.get_origin(rule) in (typing.Union, types.UnionType):
        rule = typing.get_args(rule)
    if isinstance(rule, (list, set, frozenset)):
        rule = tuple(rule)
    if isinstance(rule, type):
        return rule
    if isinstance(rule, tuple) and rule and all(isinstance(each, type) for each in rule):
        return rule
    if callable(rule) and not isinstance(rule, Stage):
        if function_flags(rule)[1]:
            raise TypeError(
                f"a rule's predicate must be a plain function, got the async {rule!r}; decide in a stage before"
            )
        return rule  # type: ignore[no-any-return]
    raise TypeError(
        f"a rule must be a content type (Text), several ((Text, Audio)) or a predicate of the element, got {rule!r}"
    )


def called(what: Any) -> str:
    """How a message calls a stage, or what was passed as one."""
    return repr(what.name if isinstance(what, Stage) else what)
