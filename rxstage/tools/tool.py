"""What a model may call: a function with a name, a description and the JSON schema of its arguments."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, Literal, TypeAlias, TypedDict, Unpack, overload

from msgspec import Struct, field
from typing_extensions import ParamSpec, TypeVar

from rxstage.content import ToolCall
from rxstage.ports.provider import ToolSpec
from rxstage.tools.schema import Arguments, ArgumentsError, arguments_of, docstring_of

__all__ = ["Approve", "Schedule", "Tool", "ToolOptions", "tool"]

_P = ParamSpec("_P", default=...)
_R = TypeVar("_R", default=Any)

Schedule: TypeAlias = Literal["turn", "interrupt", "when_idle", "silent"]
"""When a result is told to the model: in the turn that waits for it; or the tool runs in the background, and its result
interrupts the model, waits till the model is idle, or is there when the model is asked next."""

Approve: TypeAlias = bool | Callable[[ToolCall], bool | Awaitable[bool]]
"""Whether somebody has to allow a call: always, never, or as a function of the call says."""

_SCHEDULES: Final = ("turn", "interrupt", "when_idle", "silent")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what the APIs of models take
_NO_ARGUMENTS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


class ToolOptions(TypedDict, total=False):
    """What every tool can be told; see `Tool`."""

    timeout: float | None
    schedule: Schedule
    approval: Approve
    interruptible: bool


class _External:
    """`tool.external` is a fact, and `Tool.external(...)` makes one of which it is true."""

    @overload
    def __get__(self, tool: None, owner: Any) -> Callable[..., Tool]: ...
    @overload
    def __get__(self, tool: Tool, owner: Any) -> bool: ...
    def __get__(self, tool: Tool | None, owner: Any) -> Any:
        return _external if tool is None else tool.function is None


class Tool(Struct, Generic[_P, _R], frozen=True, eq=False, kw_only=True, weakref=True):
    """Something that a model may call. Made with `@tool`, `Tool.external` or `Tool.from_schema`.

    It can still be called as the function that it was made of. It holds nothing of a call: one object serves any
    number of toolboxes, conversations and event loops at once.

    Attributes:
        name: of letters, digits, `_` and `-`, at most 64.
        description: tells the model what it does.
        parameters: JSON schema of its arguments, an object.
        function: what it calls; None where the application answers the call (`external`).
        arguments: how the model's arguments become the function's; None where it gets them as they are.
        timeout: seconds for one call; None: as the toolbox says.
        schedule: `"turn"`: its result is awaited in the turn. Else it runs in the background, the turn goes on, and its
            result comes with an `"interrupt"`, `"when_idle"` or `"silent"`.
        approval: whether a call has to be allowed; a function decides for each.
        interruptible: whether an `Interrupt` cancels it; else it goes on, and its result comes silently.

    Raises:
        ValueError: the name has other characters or is too long, the timeout is not above 0, the schedule is unknown.
        TypeError: `function` is not callable.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: _NO_ARGUMENTS)
    function: Callable[_P, _R] | None = None
    arguments: Arguments | None = None
    timeout: float | None = None
    schedule: Schedule = "turn"
    approval: Approve = False
    interruptible: bool = True

    external = _External()

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"a tool's name has 1 to 64 letters, digits, '_' and '-', got {str(name)[:80]!r}; pass another name="
            )
        if self.function is not None and not callable(self.function):
            raise TypeError(f"tool {name!r} needs a function, got {self.function!r}")
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"tool {name!r}: timeout must be above 0 s, got {self.timeout!r}")
        if self.schedule not in _SCHEDULES:
            raise ValueError(f"tool {name!r}: schedule must be one of {', '.join(_SCHEDULES)}, got {self.schedule!r}")

    @classmethod
    def from_schema(
        cls,
        function: Callable[..., Any],
        /,
        *,
        name: str,
        description: str = "",
        parameters: Mapping[str, Any] = _NO_ARGUMENTS,
        **options: Unpack[ToolOptions],
    ) -> Tool:
        """A tool whose arguments are described by a schema, not by annotations.

        Args:
            function: `function(arguments, context)` gets the model's arguments as a mapping, and a `ToolContext`. Of
                the schema only the names are checked: which are required, and, where `additionalProperties` is
                false, which there are.
            name: its name.
            description: tells the model what it does.
            parameters: JSON schema of its arguments, an object.
            **options: as in `Tool`.
        """
        return Tool(name=name, description=description, parameters=parameters, function=function, **options)

    @property
    def spec(self) -> ToolSpec:
        """The tool as it is offered to a model."""
        return ToolSpec(self.name, self.description, self.parameters)

    def fit(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The model's arguments as those of the function.

        Raises:
            ArgumentsError: they do not fit; it says where and why.
        """
        if self.arguments is not None:
            return self.arguments.fit(arguments)
        known = self.parameters.get("properties", {})
        unknown = [name for name in arguments if name not in known]
        missing = [name for name in self.parameters.get("required", ()) if name not in arguments]
        if missing or (unknown and self.parameters.get("additionalProperties") is False):
            told = [f"{name}: is missing" for name in missing]
            told += [f"{name[:60]}: there is no such argument" for name in unknown[:5]]
            raise ArgumentsError(f"{'; '.join(told)}. Its arguments are: {', '.join(known) or 'none'}.")
        return dict(arguments)

    async def needs_approval(self, call: ToolCall) -> bool:
        """Whether somebody has to allow this call; where the function that decides raises, somebody has to."""
        if not callable(self.approval):
            return self.approval
        try:
            answer = self.approval(call)
            return bool(await answer if isinstance(answer, Awaitable) else answer)
        except Exception:
            return True

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call the function itself.

        Raises:
            TypeError: the tool is external and has none.
        """
        if self.function is None:
            raise TypeError(f"tool {self.name!r} is external: the application answers its calls")
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"


def _external(
    name: str, description: str = "", parameters: Mapping[str, Any] = _NO_ARGUMENTS, **options: Unpack[ToolOptions]
) -> Tool:
    """A tool without a function: the `ToolCall` goes out, and the application sends a `ToolResult` in."""
    return Tool(name=name, description=description, parameters=parameters, **options)


class _Named(ToolOptions, total=False):
    name: str | None
    description: str | None


@overload
def tool(function: Callable[_P, _R], /, **options: Unpack[_Named]) -> Tool[_P, _R]: ...
@overload
def tool(**options: Unpack[_Named]) -> Callable[[Callable[_P, _R]], Tool[_P, _R]]: ...
def tool(function: Any = None, /, **options: Any) -> Any:
    """Make a tool of a function: `@tool`, `@tool(timeout=5)`, or `tool(shop.buy)` for a bound method.

    Its name is the function's, its description the docstring down to `Args:`, and the schema of its arguments comes
    from the annotations by pydantic; what stands under `Args:`, or in `Annotated[..., Field(description=...)]`,
    describes them. The model's arguments are checked and converted; unknown ones are refused.

    A coroutine function is awaited, a plain one runs on a thread. A generator, async or plain, yields `Progress` as
    often as it likes and its result once; a plain one may return it instead. A parameter annotated `ToolContext`, or
    named `context` without an annotation, gets the context of the call and is no argument of the model's.

    Args:
        function: what is called.
        **options: `name`, `description`, and those of `Tool`: `timeout` [s], `schedule`, `approval`, `interruptible`.

    Raises:
        TypeError: a parameter cannot be given by name, its annotation cannot be found, or has no JSON schema.
        ValueError: the name does not suit the APIs of models, or an option is out of range.
    """
    names = sys._getframe(1).f_locals  # annotations may speak of classes that stand beside the function
    if function is None:
        return lambda decorated: tool_of(decorated, names, **options)
    return tool_of(function, names, **options)


def tool_of(
    function: Any, names: Mapping[str, Any], *, name: str | None = None, description: str | None = None, **options: Any
) -> Tool:
    """As `tool`, with the names that annotations may use beside the globals."""
    if not callable(function):
        raise TypeError(f"@tool takes a function, got {function!r}")
    called = name or getattr(function, "__name__", "")
    if not called:
        raise TypeError(f"{function!r} has no name of its own; write tool(..., name=...)")
    arguments = arguments_of(function, called, names)
    return Tool(
        name=called,
        description=docstring_of(function)[0] if description is None else description,
        parameters=arguments.schema,
        function=function,
        arguments=arguments,
        **options,
    )
