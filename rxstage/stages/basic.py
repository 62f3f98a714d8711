"""Stages round a function, an Rx operator or a producer."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import types
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any, ClassVar, Unpack, overload

from reactivex import Observable

from rxstage.content import CONTENT_KINDS, CONTROL_KINDS, Data, Text
from rxstage.element import StreamElement
from rxstage.flow.callback import Callback, Kind
from rxstage.stage import Shape, Stage, StageOptions, StageType, function_flags

__all__ = [
    "FilterStage",
    "FlatMapStage",
    "GenerateStage",
    "MapStage",
    "OperatorStage",
    "PassthroughStage",
    "SinkStage",
    "StageFunc",
    "stage",
]


class _FunctionOptions(StageOptions, total=False):
    as_content: bool


class _FunctionStage(Stage):
    shape: ClassVar[Shape | None] = Shape.ELEMENT
    kind: ClassVar[Kind]

    fn: Any
    on: Any = None
    as_content: bool = False

    def __init__(
        self, name: str, fn: Callable[..., Any], /, *, on: Any = None, **options: Unpack[_FunctionOptions]
    ) -> None:
        if not callable(fn):
            raise TypeError(f"stage {name!r} needs a function, got {fn!r}")
        if on is not None:
            options.setdefault("accepts", on)
        Stage.__init__(self, name, fn=fn, on=on, **options)
        context, asynchronous, generator = function_flags(fn)
        if generator and self.kind is not Kind.FLAT:
            raise TypeError(
                f"stage {name!r}: {type(self).__name__} takes a function that gives one result; for a generator use "
                f"FlatMapStage"
            )
        if self.executor is not None and (asynchronous or context):
            raise ValueError(f"stage {name!r}: executor= runs plain functions without `context`, got {fn!r}")
        if self.blocking and asynchronous:
            raise ValueError(f"stage {name!r}: blocking=True is for plain functions; this one is async already")

    def callback(self, name: str, node: int = 0) -> Callback:
        context, asynchronous, generator = function_flags(self.fn)
        return self._callback(
            name,
            node,
            self.fn,
            self.kind,
            context,
            asynchronous,
            generator,
            "content" if self.as_content else "element" if self.on is None else "payload",
        )


class MapStage(_FunctionStage):
    """Replaces each element by what a function makes of it.

    ```marbles
    --a--b--|
    [ upper ]
    --A--B--|
    ```

    Args:
        name: name in the graph.
        fn: gets an element (or its payload, with `on`) and gives an element or a payload, which is put into the
            envelope that came in. Plain or async. May ask for `context`.
        on: content type, or several: `fn` gets the payload of those, and other content passes by.

    Raises:
        TypeError: `fn` is not callable, or a generator.

    Emits: one element for each that it accepts; the rest as it came.
    Holds: nothing if plain; else a buffer of elements, and up to `concurrency` in work.
    Completes: with its input, once its work is done.
    Fails: with `StageError` where `fn` raises or returns None, unless `on_error` says otherwise.
    """

    kind: ClassVar[Kind] = Kind.MAP

    def __init__(
        self, name: str, fn: Callable[..., Any], /, *, on: Any = None, **options: Unpack[_FunctionOptions]
    ) -> None:  # spelled out for type checkers, which would make one of the fields
        super().__init__(name, fn, on=on, **options)


class FilterStage(_FunctionStage):
    """Lets an element go on if a predicate says so. Controls and content that it does not accept always pass.

    Args:
        name: name in the graph.
        fn: predicate of an element (or of its payload, with `on`). Plain or async.
        on: content type, or several: `fn` gets the payload of those, and other content passes by.

    Emits: the elements for which the predicate is true.
    Holds: as `MapStage`.
    Completes: with its input.
    Fails: with `StageError` where the predicate raises, unless `on_error` says otherwise.
    """

    kind: ClassVar[Kind] = Kind.FILTER

    def __init__(
        self, name: str, fn: Callable[..., Any], /, *, on: Any = None, **options: Unpack[_FunctionOptions]
    ) -> None:  # spelled out for type checkers, which would make one of the fields
        super().__init__(name, fn, on=on, **options)


class FlatMapStage(_FunctionStage):
    """Replaces each element by any number of others.

    Args:
        name: name in the graph.
        fn: gives an iterable of elements or payloads for an element (or its payload, with `on`): a list, a generator,
            an async generator. With an error policy other than `"fail"`, or a timeout, the items of one element
            are collected before the first goes on.
        on: content type, or several: `fn` gets the payload of those, and other content passes by.

    Emits: what `fn` gives, in order, as it comes.
    Holds: nothing if plain; else as `MapStage`.
    Completes: with its input.
    Fails: with `StageError` where `fn` raises, unless `on_error` says otherwise.
    """

    kind: ClassVar[Kind] = Kind.FLAT

    def __init__(
        self, name: str, fn: Callable[..., Any], /, *, on: Any = None, **options: Unpack[_FunctionOptions]
    ) -> None:  # spelled out for type checkers, which would make one of the fields
        super().__init__(name, fn, on=on, **options)


class SinkStage(_FunctionStage):
    """Calls a function with each element and lets only controls go on.

    Args:
        name: name in the graph.
        fn: called with an element (or its payload, with `on`); its result does not matter. Plain or async.
        on: content type, or several: only those are handed over.

    Emits: controls.
    Holds: as `MapStage`.
    Completes: with its input, after the last call is done.
    Fails: with `StageError` where `fn` raises, unless `on_error` says otherwise.
    """

    type: ClassVar[StageType] = StageType.SINK
    kind: ClassVar[Kind] = Kind.SINK

    def __init__(
        self, name: str, fn: Callable[..., Any], /, *, on: Any = None, **options: Unpack[_FunctionOptions]
    ) -> None:  # spelled out for type checkers, which would make one of the fields
        super().__init__(name, fn, on=on, **options)


class PassthroughStage(Stage):
    """Hands everything on. A name in the graph: where branches start or meet.

    Emits: what it gets. Holds: nothing. Completes: with its input. Fails: never.
    """

    shape: ClassVar[Shape | None] = Shape.ELEMENT

    def callback(self, name: str, node: int = 0) -> Callback:
        return self._callback(name, node, _identity, Kind.PASS, False, False, False)


class GenerateStage(Stage):
    """Produces elements. What comes in passes by.

    Args:
        name: name in the graph.
        fn: gives an iterator or async iterator of elements or payloads; called once, at the start.
        blocking: pull a plain iterator on a thread.

    Emits: what the iterator gives, numbered and stamped, and what comes in.
    Holds: nothing: it pulls only while there is room behind it.
    Completes: when its input and its iterator have both ended.
    Fails: with `StageError` where `fn` or its iterator raises; a `Retry` calls `fn` again.
    """

    type: ClassVar[StageType] = StageType.GENERATE
    shape: ClassVar[Shape | None] = Shape.PRODUCER

    fn: Any

    def __init__(self, name: str, fn: Callable[..., Any], /, **options: Unpack[StageOptions]) -> None:
        if not callable(fn):
            raise TypeError(f"stage {name!r} needs a function that gives an iterator, got {fn!r}")
        super().__init__(name, fn=fn, **options)

    def callback(self, name: str, node: int = 0) -> Callback:
        context, _, _ = function_flags(self.fn)
        return self._callback(name, node, self.fn, Kind.FLAT, context, True, True)


class StageFunc(Stage):
    """A loop over the whole stream, with its state in local variables.

    Args:
        name: name in the graph.
        type: what it does to the number of elements.
        fn: `fn(elements)` gets an async iterator of all elements, controls too, and yields elements or payloads.
            A control that it was handed goes on by itself when it asks for the next element, unless it yields it.

    Emits: what it yields.
    Holds: a buffer of elements, and what it keeps itself.
    Completes: when `fn` returns.
    Fails: with `StageError` where `fn` raises; a `Retry` starts it again with fresh state.
    """

    shape: ClassVar[Shape | None] = Shape.STREAM

    fn: Any

    def __init__(self, name: str, type: StageType, fn: Callable[..., Any], /, **options: Unpack[StageOptions]) -> None:
        if not callable(fn):
            raise TypeError(f"stage {name!r} needs a function of an async iterator, got {fn!r}")
        super().__init__(name, fn=fn, type=StageType(type), **options)

    def callback(self, name: str, node: int = 0) -> Callback:
        context, _, _ = function_flags(self.fn)
        return self._callback(name, node, self.fn, Kind.FLAT, context, True, True)


class OperatorStage(Stage):
    """Any Rx operator as a stage.

    Args:
        name: name in the graph.
        operators: one operator, or several in series.
        sees_controls: whether controls go through the operator; by default they go round it.

    Emits: what the operator emits; what is no element becomes one.
    Holds: what the operator holds: `delay`, `buffer_with_time` and their like are not bounded by any valve.
    Completes: when the operator does.
    Fails: with `StageError` where the operator does.
    """

    shape: ClassVar[Shape | None] = Shape.OPERATOR

    operators: tuple[Any, ...]
    sees_controls: bool = False

    def __init__(self, name: str, /, *operators: Callable[[Observable[Any]], Observable[Any]], **options: Any) -> None:
        operators = options.pop("operators", operators)
        if not operators or not all(callable(operator) for operator in operators):
            raise TypeError(f"stage {name!r} needs at least one Rx operator, got {operators!r}")
        super().__init__(name, operators=operators, **options)

    def callback(self, name: str, node: int = 0) -> Callback:
        return self._callback(name, node, self._apply_all, Kind.FLAT, False, False, False)

    def _apply_all(self, source: Observable[StreamElement]) -> Observable[Any]:
        return source.pipe(*self.operators)


def _identity(element: StreamElement) -> StreamElement:
    return element


# ------------------------------------------------------------------------------------------ @stage


@overload
def stage(function: Callable[..., Any], /) -> Stage: ...
@overload
def stage(*, name: str | None = None, **options: Any) -> Callable[[Callable[..., Any]], Stage]: ...
def stage(function: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a stage of a function; its name is the stage's name, its annotations say what it gets.

    A parameter annotated `StreamElement` (or not at all) gets the element, `str` the string of a `Text`,
    a content type that content, any other class the value of a `Data` that is one; a union several of them.
    The return annotation becomes `emits`. A generator makes several elements of one; a function without a
    parameter produces; one over an `AsyncIterator` is a loop over the whole stream.

    Raises:
        TypeError: the function takes more than one argument (beside `context`), has no name and none is given, or
            an annotation of what it gets cannot be resolved.
    """
    names = sys._getframe(1).f_locals  # annotations may speak of classes that stand beside the function
    if function is None:
        return lambda decorated: _stage_of(decorated, name, options, names)
    return _stage_of(function, name, options, names)


def _stage_of(
    function: Callable[..., Any], name: str | None, options: dict[str, Any], names: Mapping[str, Any]
) -> Stage:
    name = name or getattr(function, "__name__", None)
    if name is None:
        raise TypeError(f"{function!r} has no name of its own; write stage(name=...)")
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "context" and parameter.default is parameter.empty
    ]
    hints = _hints(function, names)
    generator = function_flags(function)[2]
    emits = _returned(hints.get("return"))
    if emits:
        options.setdefault("emits", emits)
    if not parameters:
        return GenerateStage(name, function, **options)
    if len(parameters) > 1:
        raise TypeError(f"stage {name!r}: a stage's function takes one argument (and `context`), got {len(parameters)}")
    hint = hints.get(parameters[0].name)
    if isinstance(hint, str):
        raise TypeError(
            f"stage {name!r}: what its function gets is annotated {hint!r}, a name that cannot be found at run time; "
            f"import it outside TYPE_CHECKING, or use MapStage with on="
        )
    if typing.get_origin(hint) in (AsyncIterator, AsyncIterable):
        return StageFunc(name, options.pop("type", StageType.TRANSFORM), function, **options)
    kinds = tuple(kind for kind in _members(hint) if kind is not StreamElement)
    kind_of_stage = FlatMapStage if generator else MapStage
    if not kinds:
        return kind_of_stage(name, function, **options)
    if Text in kinds or Data in kinds:  # it wants the content itself, not the string or value in it
        options["as_content"] = True
    return kind_of_stage(name, function, on=kinds if len(kinds) > 1 else kinds[0], **options)


def _hints(function: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations by name; one that cannot be resolved (a name that only type checkers know) as a string."""
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__annotations__"):
        function = type(function).__call__
    try:
        annotations = inspect.get_annotations(function)
    except NameError:  # from 3.14 on they are evaluated when they are asked for
        library = importlib.import_module("annotationlib")
        annotations = library.get_annotations(function, format=library.Format.FORWARDREF)
    known = getattr(inspect.unwrap(function), "__globals__", {})
    return {each: _resolved(annotation, known, names) for each, annotation in annotations.items()}


def _resolved(annotation: Any, known: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
    def holder() -> None: ...

    holder.__annotations__ = {"hint": annotation}
    try:
        return typing.get_type_hints(holder, dict(known), dict(names))["hint"]
    except Exception:
        return str(getattr(annotation, "__forward_arg__", annotation))


def _members(hint: Any) -> tuple[type, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(kind for member in typing.get_args(hint) for kind in _members(member))
    hint = typing.get_origin(hint) or hint
    return (hint,) if isinstance(hint, type) and hint not in (object, Any, StreamElement) else ()


def _returned(hint: Any) -> tuple[type, ...]:
    origin = typing.get_origin(hint)
    if origin in (AsyncIterator, AsyncIterable, Iterator, Iterable, AsyncGenerator, Generator):
        hint = typing.get_args(hint)[0] if typing.get_args(hint) else None
    kinds = _members(hint)
    return tuple(
        kind
        for kind in kinds
        if kind is str or kind in CONTENT_KINDS or (kind not in CONTROL_KINDS and kind is not type(None))
    )
