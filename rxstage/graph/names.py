"""What a name in a spec stands for: registered things, the library's own, and imports where they are allowed.

A spec may come from somebody who is not trusted, so nothing is imported that was not allowed, and an allowed package
does not open the way to what it imports itself: a thing must have been made where its name says.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any, Final

from rxstage.content import CONTENT_KINDS, CONTROL_KINDS
from rxstage.element import StreamElement
from rxstage.graph.registry import REGISTERED
from rxstage.stage import Stage
from rxstage.stages import basic

__all__ = ["Names"]

_VALUES: Final = (str, bytes, int, float, bool, complex, list, tuple, dict, set, frozenset, object)
_TYPES: Final[dict[str, type]] = {
    each.__name__: each for each in (*CONTENT_KINDS, *CONTROL_KINDS, StreamElement, *_VALUES)
}
_ERRORS: Final = {
    name: each for name, each in vars(builtins).items() if isinstance(each, type) and issubclass(each, BaseException)
}
_STAGES: Final[dict[str, Any]] = {
    name: each for name in basic.__all__ if isinstance(each := getattr(basic, name), type) and issubclass(each, Stage)
}
_FUNCTIONS: Final[dict[str, Any]] = {  # builtins that can do no harm
    f"builtins:{each.__name__}": each
    for each in (
        abs,
        all,
        any,
        bool,
        chr,
        float,
        int,
        len,
        list,
        max,
        min,
        ord,
        repr,
        round,
        set,
        sorted,
        str,
        sum,
        tuple,
    )
} | {
    f"builtins:{kind.__name__}.{name}": getattr(kind, name)
    for kind in (str, bytes)
    for name in dir(kind)
    if not name.startswith(("_", "format"))
}
_OWN_NAMES: Final = {
    what: {id(thing): name for name, thing in table.items()}
    for what, table in (("stage", _STAGES), ("function", _FUNCTIONS), ("type", _TYPES | _ERRORS))
}
_OWN: Final = ("rxstage.stages", "rxstage.content", "rxstage.priority")


class Names:
    """Finds what names stand for, and names for things.

    Args:
        registry: further names, which go before the registered ones.
        allow_imports: True for any `module:qualname`, or the packages whose names may be imported.

    Raises:
        TypeError: `allow_imports` is a string.
    """

    def __init__(self, registry: Mapping[str, Any] | None = None, allow_imports: bool | Iterable[str] = False) -> None:
        if isinstance(allow_imports, str):
            raise TypeError(f"allow_imports takes several packages: allow_imports=({allow_imports!r},)")
        self.registry: Mapping[str, Any] = {**REGISTERED, **(registry or {})}
        self._names = {id(thing): name for name, thing in self.registry.items()}
        self.everything = allow_imports is True
        self.packages = () if isinstance(allow_imports, bool) else tuple(allow_imports)

    # ------------------------------------------------------------------ from names to things

    def stage(self, name: str) -> Any:
        """A stage, a stage class, or a function that makes a stage.

        Raises:
            LookupError: there is none, or it must not be imported.
        """
        found = self._find(name, _STAGES, "stage", _is_own_stage)
        if not callable(found):
            raise LookupError(f"{name!r} is {found!r}, and no stage")
        return found

    def function(self, name: str) -> Any:
        """A function.

        Raises:
            LookupError: there is none, or it must not be imported.
        """
        found = self._find(name, _FUNCTIONS, "function", None)
        if isinstance(found, Stage):  # what @stage made of it has its name
            found = getattr(found, "fn", None)
        if not callable(found):
            raise LookupError(f"{name!r} is {found!r}, and no function")
        return found

    def type(self, name: str) -> type:
        """A class.

        Raises:
            LookupError: there is none, or it must not be imported.
        """
        found = self._find(name, _TYPES | _ERRORS, "type", inspect.isclass)
        if not isinstance(found, type):
            raise LookupError(f"{name!r} is {found!r}, and no class")
        return found

    def _find(self, name: str, own: Mapping[str, Any], what: str, is_own: Callable[[Any], bool] | None) -> Any:
        for names in (self.registry, own):
            if name in names:
                return names[name]
        if ":" in name:
            return self._import(name, what, is_own)
        near = get_close_matches(name, [*self.registry, *own], n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"register it with register_{what}, or use an import name"
        raise LookupError(f"{what} {name!r} is unknown, {remedy}")

    def _import(self, name: str, what: str, is_own: Callable[[Any], bool] | None) -> Any:
        module_name, _, qualname = name.partition(":")
        parts = qualname.split(".")
        if not all(part.isidentifier() for part in (*module_name.split("."), *parts)) or any(
            part.startswith("__") for part in parts
        ):
            raise LookupError(f"{what} {name!r} is no import name; write 'package.module:name'")
        own = is_own is not None and _within(module_name, _OWN)
        if not own and not self._allowed(module_name):
            raise LookupError(
                f"{what} {name!r} must not be imported; if you trust the spec, allow it with "
                f"allow_imports=({module_name.partition('.')[0]!r},), or register it with register_{what}"
            )
        thing = _reach(name, module_name, parts)
        if own and is_own is not None and is_own(thing) and _within(_home(thing), _OWN):
            return thing
        # A stage is a stage, whoever wrote its function; anything else that a package imports is not its own.
        home = module_name if isinstance(thing, Stage) else _home(thing)
        if not self._allowed(home):
            raise LookupError(
                f"{what} {name!r} is made in {home!r}, which must not be imported from; allow that with "
                f"allow_imports, or register it with register_{what}"
            )
        return thing

    def _allowed(self, module: str) -> bool:
        return self.everything or _within(module, self.packages)

    # ------------------------------------------------------------------ from things to names

    def of(self, thing: Any, what: str) -> str:
        """A name that stands for a stage class, a function or a type.

        Raises:
            LookupError: it has none; the message tells why and what to do.
        """
        name = self.registered(thing) or _OWN_NAMES[what].get(id(thing))
        if name is not None:
            return name
        module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
        remedy = f"give it a name with register_{what}(name, ...)"
        if not module or not qualname:
            raise LookupError(f"{thing!r} has no name that it could be imported by; {remedy}")
        if "<" in qualname:
            kind = "a lambda" if qualname.endswith("<lambda>") else "local to a function"
            raise LookupError(
                f"{what} {qualname!r} is {kind} and cannot be imported; define it in a module, or {remedy}"
            )
        name = f"{module}:{qualname}"
        try:
            found = _reach(name, module, qualname.split("."))
        except LookupError as error:
            raise LookupError(f"{error}; {remedy}") from error
        if found is thing or found == thing or (isinstance(found, Stage) and getattr(found, "fn", None) is thing):
            return name
        raise LookupError(f"{name!r} stands for something else than {thing!r}; {remedy}")

    def registered(self, thing: Any) -> str | None:
        """The name that something is registered under."""
        if inspect.ismethod(thing):  # a new object each time
            return next((name for name, each in self.registry.items() if each == thing), None)
        return self._names.get(id(thing))

    def module_stage(self, stage: Stage) -> str | None:
        """The import name of a stage that `@stage` made of a function in a module."""
        function = getattr(stage, "fn", None)
        module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        if not module or not qualname or "<" in qualname:
            return None
        try:
            found = _reach(name := f"{module}:{qualname}", module, qualname.split("."))
        except LookupError:
            return None
        return name if found is stage else None


def _reach(name: str, module_name: str, parts: Iterable[str]) -> Any:
    try:
        thing: Any = importlib.import_module(module_name)
    except Exception as error:  # the module's own code can raise anything
        raise LookupError(f"{name!r} cannot be imported: {type(error).__name__}: {error}") from error
    for part in parts:
        try:
            thing = getattr(thing, part)
        except AttributeError as error:
            raise LookupError(f"{name!r} cannot be imported: {error}") from error
        if isinstance(thing, ModuleType):
            raise LookupError(f"{name!r} goes through the module {thing.__name__!r}; write '{thing.__name__}:...'")
    return thing


def _home(thing: Any) -> str:
    """The module that something was made in."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    owner = getattr(thing, "__objclass__", None)  # of a method of a builtin class
    home = getattr(owner or thing, "__module__", None) or getattr(type(thing), "__module__", "")
    return str(home)


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def _is_own_stage(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, Stage)
