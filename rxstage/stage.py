"""What a stage is: a named Rx operator over elements, with what it declares about itself."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from difflib import get_close_matches
from enum import Enum
from typing import Any, ClassVar, Final, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from reactivex import Observable

from rxstage.audiospec import AudioSpec
from rxstage.config import ErrorPolicy, Fallback, Retry
from rxstage.content import Audio
from rxstage.element import StreamElement
from rxstage.flow.callback import Callback, Kind, Select, kinds_of
from rxstage.flow.context import StageContext

__all__ = [
    "Series",
    "Shape",
    "Stage",
    "StageContext",
    "StageOptions",
    "StageType",
    "function_flags",
    "use_operator_form",
]


class StageType(Enum):
    """What a stage does to the number of elements."""

    TRANSFORM = "transform"  # 1:1 or 1:N
    ACCUMULATE = "accumulate"  # N:1
    GENERATE = "generate"  # 0:N
    SINK = "sink"  # N:0
    BIDIRECTIONAL = "bidirectional"  # a session with two ends


class Shape(Enum):
    """How a stage is written."""

    ELEMENT = "element"  # a function of one element
    STREAM = "stream"  # a function of the whole stream
    OPERATOR = "operator"  # an Rx operator
    PRODUCER = "producer"  # a function that gives an iterator
    SERIES = "series"  # stages in series
    GRAPH = "graph"  # a pipeline


_OPTIONS: Final = ("type", "accepts", "emits")
_STYLES: Final = {"apply": Shape.ELEMENT, "process": Shape.STREAM, "build": Shape.OPERATOR}
_operator_form: Callable[[Any, Observable[Any]], Observable[StreamElement]] | None = None


def use_operator_form(form: Callable[[Any, Observable[Any]], Observable[StreamElement]]) -> None:
    """Set what `stage(source)` does; the pipeline module sets it once, for all stages."""
    global _operator_form
    _operator_form = form


class StageOptions(TypedDict, total=False):
    """What every stage can be told; see `Stage`."""

    on_error: ErrorPolicy
    timeout: float | None
    concurrency: int
    ordered: bool
    interruptible: bool
    blocking: bool
    executor: Executor | None
    type: StageType
    accepts: Any
    emits: Any


class Stage(BaseModel):
    """Base of all stages. Subclass it and override exactly one of `apply`, `process` and `build`.

    Options of a subclass are pydantic fields; `type`, `accepts` and `emits` are set on the class (or given to
    the constructor). A stage holds no state of a stream: that is born when a pipeline is executed, so one
    stage object serves any number of executions at once.

    Args:
        name: name in the graph; by default the class name in snake case.
        on_error: what happens when its function raises.
        timeout: seconds for each element.
        concurrency: elements it works on at once.
        ordered: whether results keep the order of the elements when `concurrency` is above 1.
        interruptible: whether an `Interrupt` cancels its work on an element.
        blocking: run its plain function on a thread.
        executor: run its plain function there, on a process pool for instance.
        type: what it does to the number of elements.
        accepts: content types (or types of `Data` values) it sees; empty is any.
        emits: content types it makes; empty is any.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, extra="forbid", defer_build=True)

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = ()
    emits: ClassVar[tuple[Any, ...]] = ()
    shape: ClassVar[Shape | None] = None

    name: str = Field(default=..., kw_only=False)  # for type checkers it has a default, which __init__ makes
    on_error: Any = "fail"
    timeout: float | None = None
    concurrency: int = 1
    ordered: bool = True
    interruptible: bool = False
    blocking: bool = False
    executor: Any = None

    def __init__(self, name: str | None = None, /, **options: Any) -> None:
        declared = {key: options.pop(key) for key in _OPTIONS if key in options}
        if name is not None:
            options["name"] = name
        elif (
            "name" not in options
            and "name" in self.__pydantic_fields__
            and self.__pydantic_fields__["name"].is_required()
        ):
            options["name"] = _snake(self.__class__.__name__)
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise _explained(type(self), options.get("name"), error) from None
        for key, value in declared.items():
            object.__setattr__(self, key, value if key == "type" else _types(value))
        self._check()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        own = [style for style in _STYLES if getattr(cls, style) is not getattr(Stage, style)]
        if len(own) > 1:
            raise TypeError(
                f"stage class {cls.__name__!r} overrides {' and '.join(own)}; override exactly one of "
                f"{', '.join(_STYLES)}"
            )
        if own:
            cls.shape = _STYLES[own[0]]
        for key in ("accepts", "emits"):
            if not isinstance(value := getattr(cls, key), tuple):
                setattr(cls, key, _types(value))

    # ---------------------------------------------------------------- what a subclass overrides

    def apply(self, *element: Any, **context: Any) -> Any:
        """`apply(self, element)`: treat one element, give an element or payload; a generator gives several.

        May be async, and may ask for the keyword `context`.
        """
        raise TypeError(f"{type(self).__name__} overrides none of {', '.join(_STYLES)}")

    def process(self, *elements: Any, **context: Any) -> AsyncIterator[Any]:
        """`process(self, elements)`: treat the whole stream, read elements, yield elements or payloads.

        State lives in local variables. May ask for the keyword `context`.
        """
        raise TypeError(f"{type(self).__name__} overrides none of {', '.join(_STYLES)}")

    def build(self, source: Observable[StreamElement]) -> Observable[Any]:
        """Treat the whole stream as an Rx operator does."""
        raise TypeError(f"{type(self).__name__} overrides none of {', '.join(_STYLES)}")

    # ---------------------------------------------------------------- what a graph is checked by

    def audio_in(self) -> AudioSpec | None:
        """The form that sound has to have for it; None: any."""
        return None

    def audio_out(self, incoming: AudioSpec) -> AudioSpec:
        """The form of the sound that leaves it, given that of what comes in; as far as it is known.

        By default that of what comes in, where the stage does not touch sound, else not known.
        """
        touches = (self.shape is not Shape.ELEMENT or not self.accepts or Audio in self.accepts) or Audio in self.emits
        return AudioSpec() if touches else incoming

    # ---------------------------------------------------------------- what the engine asks

    def callback(self, name: str, node: int = 0) -> Callback | None:
        """Its function as the engine calls it under `name`; None for a stage of several stages."""
        shape = self.shape
        if shape is Shape.ELEMENT:
            context, asynchronous, generator = function_flags(self.apply)
            kind = Kind.SINK if self.type is StageType.SINK else Kind.FLAT if generator else Kind.MAP
            return self._callback(name, node, self.apply, kind, context, asynchronous, generator)
        if shape is Shape.STREAM:
            return self._callback(name, node, self.process, Kind.FLAT, function_flags(self.process)[0], True, True)
        if shape is Shape.OPERATOR:
            return self._callback(name, node, self.build, Kind.FLAT, False, False, False)
        return None

    def _callback(
        self,
        name: str,
        node: int,
        function: Callable[..., Any],
        kind: Kind,
        context: bool,
        asynchronous: bool,
        generator: bool,
        argument: str = "element",
    ) -> Callback:
        kinds, values = kinds_of(self.accepts)
        return Callback(
            name=name,
            stage_type=self.type,
            kind=kind,
            function=function,
            select=Select(kinds, values, argument),
            policy=self.on_error,
            context=context,
            asynchronous=asynchronous,
            generator=generator,
            concurrency=self.concurrency,
            ordered=self.ordered,
            interruptible=self.interruptible,
            blocking=self.blocking,
            executor=self.executor,
            timeout=self.timeout,
            node=node,
        )

    def _check(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"a stage needs a name, got {self.name!r}")
        if self.concurrency < 1:
            raise ValueError(f"stage {self.name!r}: concurrency must be at least 1, got {self.concurrency!r}")
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"stage {self.name!r}: timeout must be above 0 s, got {self.timeout!r}")
        if self.executor is not None and not isinstance(self.executor, Executor):
            raise TypeError(
                f"stage {self.name!r}: executor must be a concurrent.futures.Executor, got {self.executor!r}"
            )
        if self.on_error != "fail":
            _check_policy(self.name, self.on_error)

    # ---------------------------------------------------------------- what users do with it

    def __call__(self, source: Observable[Any]) -> Observable[StreamElement]:
        """The stage as an Rx operator: `source.pipe(stage)`. Raw values become elements."""
        assert _operator_form is not None, "import rxstage first"
        return _operator_form(self, source)

    def __rshift__(self, other: Any) -> Series:
        """`a >> b`: both in series."""
        return Series.of(self, other)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    __str__ = __repr__


class Series(Stage):
    """Stages in series, as `a >> b >> c` makes it. A builder takes it apart again."""

    shape: ClassVar[Shape | None] = Shape.SERIES

    stages: tuple[Stage, ...]

    def __init__(self, name: str, /, *, stages: tuple[Stage, ...], **options: Any) -> None:
        super().__init__(name, stages=stages, **options)

    @classmethod
    def of(cls, *stages: Any) -> Series:
        """A series of stages; series among them are flattened.

        Raises:
            TypeError: one is no stage.
        """
        flat: list[Stage] = []
        for stage in stages:
            if isinstance(stage, Series):
                flat.extend(stage.stages)
            elif isinstance(stage, Stage):
                flat.append(stage)
            else:
                raise TypeError(
                    f"only stages can stand in a series, got {stage!r}; wrap a function in MapStage or decorate it "
                    f"with @stage, and an Rx operator in OperatorStage"
                )
        return cls(">>".join(stage.name for stage in flat), stages=tuple(flat))


def function_flags(function: Any) -> tuple[bool, bool, bool]:
    """Whether a callable asks for `context`, is asynchronous, and is a generator."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None:
        function = getattr(function, "__func__", None) or type(function).__call__
        code = getattr(function, "__code__", None)
        if code is None:
            return False, False, False
    flags = code.co_flags
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    asynchronous = bool(flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE))
    generator = bool(flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR))
    if not asynchronous and getattr(function, "__wrapped__", None) is not None:
        asynchronous = inspect.iscoroutinefunction(function)
    return "context" in names, asynchronous, generator


def _check_policy(name: str, policy: ErrorPolicy) -> None:
    if isinstance(policy, (Retry, Fallback)):
        last = policy.then if isinstance(policy, Retry) else policy
        if isinstance(last, Fallback) and (not isinstance(last.stage, Stage) or last.stage.shape is not Shape.ELEMENT):
            raise TypeError(
                f"stage {name!r}: Fallback takes a stage that treats one element at a time (MapStage, FlatMapStage, "
                f"a Stage with apply), got {last.stage!r}"
            )
    elif policy not in ("fail", "emit", "skip"):
        raise ValueError(
            f"stage {name!r}: on_error must be 'fail', 'emit', 'skip', a Retry or a Fallback, got {policy!r}"
        )


def _types(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    types = tuple(value) if isinstance(value, (tuple, list, set, frozenset)) else (value,)
    for each in types:
        if not isinstance(each, type):
            raise TypeError(f"content types must be classes such as Text or Audio, got {each!r}")
    return types


def _explained(cls: type[Stage], name: Any, error: ValidationError) -> ValidationError:
    """What is wrong with a stage's options, with the stage's name, and the options that there are if one is unknown."""
    fields = [*cls.__pydantic_fields__]
    known = [*(field for field in fields if field not in Stage.__pydantic_fields__), *Stage.__pydantic_fields__]
    lines: list[InitErrorDetails] = []
    for each in error.errors(include_url=False):
        kind, words = each["type"], each["msg"]
        if kind == "extra_forbidden" and len(each["loc"]) == 1:
            option = str(each["loc"][0])
            near = get_close_matches(option, known, n=1)
            remedy = f", did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            kind, words = "unknown_option", f"there is no option {option!r}{remedy}"
        told = PydanticCustomError(kind, words)
        lines.append(InitErrorDetails(type=told, loc=each["loc"], input=each["input"]))
    return ValidationError.from_exception_data(f"{cls.__name__} {name!r}", lines)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
