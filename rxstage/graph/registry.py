"""Names that are given to stages, functions and types, so that specs can name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from rxstage.stage import Stage

__all__ = ["REGISTERED", "register_function", "register_stage", "register_type"]

_T = TypeVar("_T")

REGISTERED: Final[dict[str, Any]] = {}
"""What was registered, by name."""


def register_stage(name: str, stage: Stage | Callable[..., Stage], *, replace: bool = False) -> Any:
    """Give a stage, or what makes one, a name for specs.

    Args:
        name: what stands for it in a spec, as a stage's `stage`.
        stage: a stage object; or a stage class or function that makes one from keyword options, and from `name` if
            it takes that.
        replace: whether it may take the place of another one of that name.

    Returns:
        `stage`.

    Raises:
        TypeError: `stage` is neither, or `name` is no string.
        ValueError: the name is empty, contains a colon, or is taken.
    """
    if not callable(stage):
        raise TypeError(f"register_stage takes a stage or what makes one, got {stage!r}")
    return _register(name, stage, replace)


def register_function(name: str, function: Callable[..., _T], *, replace: bool = False) -> Callable[..., _T]:
    """Give a function a name for specs: a lambda, a local function, a predicate of a rule, an Rx operator.

    Args:
        name: what stands for it in a spec.
        function: any callable.
        replace: whether it may take the place of another one of that name.

    Returns:
        `function`.

    Raises:
        TypeError: `function` is not callable, or `name` is no string.
        ValueError: the name is empty, contains a colon, or is taken.
    """
    if not callable(function):
        raise TypeError(f"register_function takes a function, got {function!r}")
    return _register(name, function, replace)


def register_type(name: str, cls: type[_T], *, replace: bool = False) -> type[_T]:
    """Give a class a name for specs: a type of `Data` values that stages accept, or one of options.

    Args:
        name: what stands for it in a spec.
        cls: the class.
        replace: whether it may take the place of another one of that name.

    Returns:
        `cls`.

    Raises:
        TypeError: `cls` is no class, or `name` is no string.
        ValueError: the name is empty, contains a colon, or is taken.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_type takes a class, got {cls!r}")
    return _register(name, cls, replace)


def _register(name: str, thing: _T, replace: bool) -> _T:
    if not isinstance(name, str):
        raise TypeError(f"a registered name must be a string, got {name!r}")
    if not name or ":" in name:
        raise ValueError(f"a registered name must not be empty and have no colon (import names have), got {name!r}")
    holder = REGISTERED.get(name, thing)
    if not replace and holder is not thing and holder != thing:
        raise ValueError(f"the name {name!r} is registered for {holder!r} already; use another, or replace=True")
    REGISTERED[name] = thing
    return thing
