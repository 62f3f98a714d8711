"""The envelope round one content, and how raw values become one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypedDict, TypeVar, Unpack, cast

from msgspec import Struct, StructMeta
from msgspec.structs import replace as _replace

from rxstage.content import (
    CONTENT_KINDS,
    CONTROL_KINDS,
    Audio,
    Data,
    EndOfStream,
    EndOfTurn,
    Failure,
    Image,
    Interrupt,
    Message,
    Parts,
    Text,
    ToolCall,
    ToolResult,
    Video,
    content_of,
    payload_of,
)
from rxstage.priority import Priority

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["ControlElement", "Metadata", "StreamElement", "stamped"]

_T = TypeVar("_T")


class Metadata(dict[str, Any]):
    """An immutable mapping: what is known about an element beside its content."""

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("element metadata is immutable; use element.replace(metadata={**element.metadata, ...})")

    __setitem__ = __delitem__ = _refuse
    clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Metadata, (dict(self),)


_EMPTY: Final = Metadata()
_KEEP: Final[Any] = object()


class _Envelope(TypedDict, total=False):
    metadata: Mapping[str, Any]
    priority: Priority
    sequence: int
    timestamp: float
    source: str


class _Changes(_Envelope, total=False):
    origin: int


class _ElementMeta(StructMeta):
    """Sees to it that an element with a control content is a `ControlElement`, and no other one is."""

    def __call__(
        cls,
        content: Any,
        metadata: Mapping[str, Any] = _EMPTY,
        priority: Priority | None = None,
        sequence: int = 0,
        timestamp: float = 0.0,
        source: str = "",
        origin: int = 0,
    ) -> Any:
        blank = _BLANKS.get(content.__class__)
        if blank is None:
            content = content_of(content)
            blank = _BLANKS[content.__class__]
        if priority is None:
            priority = blank.priority
        elif priority.__class__ is not Priority:
            priority = Priority(priority)
        if metadata.__class__ is not Metadata:
            metadata = Metadata(metadata)
        # Filling in a copy of a blank takes half the time of a call through the type.
        if blank.__class__ is StreamElement:
            return _replace(
                blank,
                content=content,
                metadata=metadata,
                priority=priority,
                sequence=sequence,
                timestamp=timestamp,
                source=source,
            )
        return _replace(
            blank,
            content=content,
            metadata=metadata,
            priority=priority,
            sequence=sequence,
            timestamp=timestamp,
            source=source,
            origin=origin,
        )


class StreamElement(Struct, frozen=True, metaclass=_ElementMeta):
    """One element of a stream: an immutable envelope round exactly one content.

    It cannot be subclassed; what an application has to add goes into `metadata` or `Data`.

    Attributes:
        content: one of the kinds in `rxstage.content`; another value becomes one as in `of`.
        metadata: immutable mapping, handed on by every stage unless it says otherwise.
        priority: how urgent it is; by default as its kind of content is.
        sequence: number stamped where the element enters an execution; 0 before.
        timestamp: seconds on the clock of the execution's scheduler, stamped where it enters; 0.0 before.
        source: name of the stage that made it, where the engine built the envelope.
    """

    content: Any
    metadata: Mapping[str, Any] = _EMPTY
    priority: Priority = Priority.NORMAL
    sequence: int = 0
    timestamp: float = 0.0
    source: str = ""

    def __init_subclass__(cls, **options: Any) -> None:
        if cls.__module__ != __name__:
            raise TypeError(
                f"{cls.__name__}: StreamElement cannot be subclassed; use metadata, or Data for your object"
            )
        super().__init_subclass__(**options)

    @staticmethod
    def of(value: Any, **envelope: Unpack[_Envelope]) -> StreamElement:
        """An element for any value.

        Args:
            value: `str` → `Text`; a content → itself; an exception → `Failure`; an element → itself;
                anything else → `Data(value)`.
            **envelope: `metadata`, `priority`, `sequence`, `timestamp`, `source`.

        Raises:
            TypeError: an unknown field of the envelope.
        """
        kind = value.__class__
        if kind is StreamElement or kind is ControlElement:
            element: StreamElement = value
            return element.replace(**envelope) if envelope else element
        if envelope:
            return StreamElement(value, **envelope)
        if kind is str:
            return _replace(_PLAIN, content=Text(value))
        blank = _BLANKS.get(kind)
        if blank is None:
            value = content_of(value)
            blank = _BLANKS[value.__class__]
        return _replace(blank, content=value)

    @staticmethod
    def end_of_turn(**envelope: Unpack[_Envelope]) -> StreamElement:
        """The control that ends a turn."""
        return StreamElement(EndOfTurn(), **envelope)

    @staticmethod
    def interrupt(reason: str = "", **envelope: Unpack[_Envelope]) -> StreamElement:
        """The control that stops the running turn."""
        return StreamElement(Interrupt(reason), **envelope)

    @staticmethod
    def end_of_stream(**envelope: Unpack[_Envelope]) -> StreamElement:
        """The control that ends the stream after draining."""
        return StreamElement(EndOfStream(), **envelope)

    def replace(self, *, content: Any = _KEEP, **changes: Unpack[_Changes]) -> StreamElement:
        """A copy with some fields changed. A raw `content` becomes one as in `of`.

        The priority stays, unless content takes the place of a control or a control that of content: then it is
        the default of the new kind.

        Raises:
            TypeError: an unknown field.
        """
        if not changes and self.__class__ is StreamElement:
            if content.__class__ is str:
                return _replace(self, content=Text(content))
            if content.__class__ in CONTENT_KINDS:
                return _replace(self, content=content)
        if changes:
            if "metadata" in changes and changes["metadata"].__class__ is not Metadata:
                changes["metadata"] = Metadata(changes["metadata"])
            if "priority" in changes and changes["priority"].__class__ is not Priority:
                changes["priority"] = Priority(changes["priority"])
        if content is _KEEP:
            return _replace(self, **changes)
        content = content_of(content)
        blank = _BLANKS[content.__class__]
        if blank.__class__ is self.__class__:
            return _replace(self, content=content, **changes) if changes else _replace(self, content=content)
        kept: _Changes = {
            "metadata": self.metadata,
            "sequence": self.sequence,
            "timestamp": self.timestamp,
            "source": self.source,
        }
        return _replace(blank, content=content, **{**kept, **changes})

    __replace__ = replace  # type: ignore[assignment]  # narrower than any keyword at all

    @property
    def is_control(self) -> bool:
        """Whether the content is a control: `Failure`, `EndOfTurn`, `Interrupt` or `EndOfStream`."""
        return self.__class__ is not StreamElement

    @property
    def payload(self) -> Any:
        """The bare payload: the `str` of a `Text`, the value of a `Data`, else the content."""
        return payload_of(self.content)

    @property
    def text(self) -> str | None:
        """The string of a `Text`, else None."""
        return self.content.text if self.content.__class__ is Text else None

    @property
    def audio(self) -> Audio | None:
        """The `Audio`, else None."""
        return self._as(Audio)

    @property
    def video(self) -> Video | None:
        """The `Video`, else None."""
        return self._as(Video)

    @property
    def image(self) -> Image | None:
        """The `Image`, else None."""
        return self._as(Image)

    @property
    def message(self) -> Message | None:
        """The `Message`, else None."""
        return self._as(Message)

    @property
    def tool_call(self) -> ToolCall | None:
        """The `ToolCall`, else None."""
        return self._as(ToolCall)

    @property
    def tool_result(self) -> ToolResult | None:
        """The `ToolResult`, else None."""
        return self._as(ToolResult)

    @property
    def parts(self) -> tuple[Any, ...] | None:
        """The contents of a `Parts`, else None."""
        return self.content.parts if self.content.__class__ is Parts else None

    @property
    def data(self) -> Any:
        """The value of a `Data`, else None."""
        return self.content.value if self.content.__class__ is Data else None

    @property
    def failure(self) -> Failure | None:
        """The `Failure`, else None."""
        return self._as(Failure)

    def _as(self, kind: type[_T]) -> _T | None:
        return self.content if self.content.__class__ is kind else None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from rxstage.wire import element_schema

        return element_schema(cls)


class ControlElement(StreamElement, frozen=True):
    """An element whose content is a control. The class is the mark by which the engine tells it apart.

    `origin` is the number of the graph node that made it, 0 where it came in from outside.
    """

    origin: int = 0


def _blank(kind: type) -> StreamElement:
    """An element of the right class and priority for a kind of content, to be copied with the content put in."""
    if kind in CONTROL_KINDS:
        return cast("StreamElement", StructMeta.__call__(ControlElement, None, _EMPTY, Priority.CRITICAL))
    priority = Priority.HIGH if kind in (Audio, Video) else Priority.NORMAL
    return cast("StreamElement", StructMeta.__call__(StreamElement, None, _EMPTY, priority))


_BLANKS: Final = {kind: _blank(kind) for kind in CONTENT_KINDS | CONTROL_KINDS}
_PLAIN: Final = _BLANKS[Text]


def stamped(value: Any, sequence: int, timestamp: float) -> StreamElement:
    """`StreamElement.of(value)` as it enters an execution: numbered, with its time [s], in one copy."""
    kind = value.__class__
    if kind is StreamElement or kind is ControlElement:
        element: StreamElement = value
        if kind is StreamElement:
            return _replace(element, sequence=sequence, timestamp=timestamp)
        return _replace(element, sequence=sequence, timestamp=timestamp, origin=0)
    if kind is not str:
        value = content_of(value)
        return _replace(_BLANKS[value.__class__], content=value, sequence=sequence, timestamp=timestamp)
    return _replace(_PLAIN, content=Text(value), sequence=sequence, timestamp=timestamp)
