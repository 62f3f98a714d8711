"""Elements as JSON and msgpack, and back without loss.

A document is a plain object (`to_dict`), the same one in both encodings:

    {"rxstage": 1, "content": {"kind": "text", "text": "hi"}, "metadata": {}, "priority": "normal",
     "sequence": 7, "timestamp": 0.25, "source": "stt"}

`rxstage` is the version of the form. `content` holds the kind in snake case and the fields of its class; what a
`Message` or `Parts` is made of are such objects themselves. Only `rxstage` and `content` must be there. `origin` is
there where a control has one. The bytes of a content are base64 in JSON and raw in msgpack.

A value (of `Data`, of metadata, of a tool's arguments) stands for itself where JSON has it. What JSON has not is an
object with the key `$`:

    {"$": "bytes", "value": "AAE="}                   raw in msgpack
    {"$": "float", "value": "nan"}                    also "inf", "-inf"
    {"$": "int", "value": "0x10000000000000000"}      beyond 64 bits
    {"$": "tuple", "value": [1, 2]}                   also "set", "frozenset"
    {"$": "dict", "value": [[1, "a"], [2, "b"]]}      keys that are no strings, or one that is "$"
    {"$": "content", "value": {"kind": ...}}          also "element", with a whole document
    {"$": "object", "type": "shop.Order", "value": …} of a registered class

A `Failure` travels as type, message and traceback of its exception, and arrives with a `RemoteError`. What arrives is
checked throughout: nothing is imported, and only registered classes are made.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import re
import sys
import threading
import traceback
import typing
import warnings
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from enum import Enum, Flag
from functools import cache, partial, wraps
from math import isfinite
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, TypeVar, overload
from uuid import UUID

import msgspec

from rxstage.content import (
    CONTENT_KINDS,
    CONTROL_KINDS,
    Audio,
    AudioFormat,
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
    Usage,
    Video,
)
from rxstage.element import ControlElement, Metadata, StreamElement
from rxstage.errors import RxStageError
from rxstage.priority import Priority

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

__all__ = [
    "RemoteError",
    "WireError",
    "element_schema",
    "from_dict",
    "from_json",
    "from_msgpack",
    "register",
    "to_dict",
    "to_json",
    "to_msgpack",
]

_T = TypeVar("_T")
_P = ParamSpec("_P")

_VERSION: Final = 1
_DEPTH: Final = 100
_NOTHING: Final = Metadata()
_make: Final[Any] = StreamElement  # whose metaclass takes more than a type checker knows


class WireError(RxStageError):
    """An element has no wire form, or data is none."""


class RemoteError(Exception):
    """The exception of a `Failure` that came over the wire. Two are equal if all three fields are.

    Attributes:
        type: name of the exception's class.
        message: its text.
        traceback: its formatted traceback.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:
        super().__init__(type, message, traceback)
        self.type = type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    def __eq__(self, other: object) -> bool:
        return self.args == other.args if isinstance(other, RemoteError) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.args)


def _guarded(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Whatever goes wrong inside is a `WireError`."""

    @wraps(function)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except WireError:
            raise
        except Exception as error:
            what = "no wire form of this" if function.__name__.startswith("to_") else "malformed wire form"
            raise WireError(f"{what}: {type(error).__name__}: {str(error)[:500]}") from error

    return guarded


# --- the public functions ---------------------------------------------------------------------------------------------


@_guarded
def to_json(element: StreamElement) -> bytes:
    """The element as a JSON document.

    Raises:
        WireError: something in it is neither content nor a plain value, and its class is not registered.
    """
    return msgspec.json.encode(_element_out(element, 0))


@_guarded
def from_json(data: bytes | bytearray | memoryview | str) -> StreamElement:
    """The element of a JSON document.

    Raises:
        WireError: the data is malformed, of another version, or names a class that is not registered.
    """
    return _element_in(msgspec.json.decode(data), 0)


@_guarded
def to_msgpack(element: StreamElement) -> bytes:
    """The element as a msgpack document.

    Raises:
        WireError: something in it is neither content nor a plain value, and its class is not registered.
    """
    return msgspec.msgpack.encode(_element_out(element, 0))


@_guarded
def from_msgpack(data: bytes | bytearray | memoryview) -> StreamElement:
    """The element of a msgpack document.

    Raises:
        WireError: the data is malformed, of another version, or names a class that is not registered.
    """
    return _element_in(msgspec.msgpack.decode(data), 0)


@_guarded
def to_dict(element: StreamElement) -> dict[str, Any]:
    """The element as the plain structure that `to_json` writes.

    Raises:
        WireError: something in it is neither content nor a plain value, and its class is not registered.
    """
    document: dict[str, Any] = msgspec.to_builtins(_element_out(element, 0))
    return document


@_guarded
def from_dict(document: Mapping[str, Any]) -> StreamElement:
    """The element of a plain structure as `to_dict` gives it; bytes may be raw in it.

    Raises:
        WireError: the structure is malformed, of another version, or names a class that is not registered.
    """
    return _element_in(document, 0)


# --- registered classes -----------------------------------------------------------------------------------------------


class _Codec(NamedTuple):
    cls: type
    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_CODECS: Final[dict[type, _Codec]] = {}
_NAMES: Final[dict[str, _Codec]] = {}
_UNREAD: Final[list[type]] = []  # registered classes whose annotations have not been looked at
_LOCK: Final = threading.RLock()


@overload
def register(
    cls: type[_T],
    name: str | None = None,
    *,
    encode: Callable[[_T], Any] | None = None,
    decode: Callable[[Any], _T] | None = None,
) -> type[_T]: ...
@overload
def register(
    cls: None = None,
    name: str | None = None,
    *,
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> Callable[[type[_T]], type[_T]]: ...
def register(
    cls: type[Any] | None = None,
    name: str | None = None,
    *,
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> Any:
    """Let the objects of a class travel, as values of `Data` and wherever values stand.

    msgspec structs, dataclasses, pydantic models and enumerations need no functions, and such classes in the
    annotations of their fields come along. Their fields are checked strictly on arrival, then the class is called as
    usual. `datetime`, `date`, `time`, `timedelta`, `Decimal` and `UUID` are registered already.

    Args:
        cls: the class; without it, a decorator.
        name: what stands for the class on the wire, on all sides; by default its qualified import name.
        encode: makes of an object a value that can travel.
        decode: makes the object of that value; what it raises becomes a `WireError`.

    Returns:
        The class.

    Raises:
        WireError: another class has the name, the class has another name, or functions are needed.
    """
    if cls is None:
        return partial(register, name=name, encode=encode, decode=decode)
    if not isinstance(cls, type):
        raise WireError(f"wire.register takes a class, got {cls!r}; a name goes into name=")
    name = name or f"{cls.__module__}.{cls.__qualname__}"
    if cls in _BUILT_IN:
        raise WireError(f"{_path(cls)} has a wire form of its own and cannot be registered")
    if (encode is None) is not (decode is None):
        raise WireError(f"{_path(cls)} needs both encode= and decode= or neither")
    codec = _Codec(cls, name, encode, decode) if encode and decode else _own_codec(cls, name)
    with _LOCK:
        holder, known = _NAMES.get(name), _CODECS.get(cls)
        if holder is not None and holder.cls is not cls:
            raise WireError(f"the wire name {name!r} is taken by another class {_path(holder.cls)}; pass another name=")
        if known is not None and known.name != name:
            raise WireError(f"{_path(cls)} is registered already, under the wire name {known.name!r}")
        _CODECS[cls] = _NAMES[name] = codec
        if encode is None:
            _UNREAD.append(cls)
    return cls


def _own_codec(cls: type, name: str) -> _Codec:
    """What a class tells about itself is enough to encode it."""
    if issubclass(cls, Flag):
        return _Codec(cls, name, lambda flag: flag.value, cls)
    if issubclass(cls, Enum):
        return _Codec(cls, name, lambda member: member.name, lambda member: cls[member])
    if issubclass(cls, msgspec.Struct):
        return _fields_codec(cls, name, cls.__struct_fields__, ())
    if dataclasses.is_dataclass(cls):
        fields = dataclasses.fields(cls)
        given = [field.name for field in fields if field.init]
        if set(inspect.signature(cls).parameters) != set(given):
            raise WireError(f"{_path(cls)} is not made of its fields alone; pass encode= and decode= to wire.register")
        return _fields_codec(cls, name, given, [field.name for field in fields if not field.init])
    if _is_model(cls):
        return _model_codec(cls, name)
    raise WireError(
        f"{_path(cls)} is no msgspec struct, dataclass, pydantic model or enumeration; "
        "pass encode= and decode= to wire.register"
    )


def _fields_codec(cls: type, name: str, given: Iterable[str], computed: Iterable[str]) -> _Codec:
    names = (*given, *computed)

    def encode(value: Any) -> dict[str, Any]:
        return {field: getattr(value, field) for field in names}

    def decode(fields: Any) -> Any:
        _known_keys(fields, names, name)
        for field, item in _field_check(cls, names)(fields).items():
            # What came is kept where the check agrees; it may have read a number as a float, or a dict as a model.
            if item is not fields[field] and item != fields[field] and type(item) is not float:
                fields[field] = item
        late = {field: fields.pop(field) for field in computed if field in fields}
        value = cls(**fields)
        for field, item in late.items():
            object.__setattr__(value, field, item)
        return value

    return _Codec(cls, name, encode, decode)


@cache
def _field_check(cls: type, names: tuple[str, ...]) -> Callable[[Any], dict[str, Any]]:
    """Checks that fields are of the types that they are annotated with, as far as these can be told."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter
    from typing_extensions import TypedDict

    hints = _hints(cls)
    typed_dict: Any = TypedDict  # a type checker wants a literal
    fields = typed_dict("Fields", {name: hints.get(name, Any) for name in names}, total=False)
    fields.__pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)
    try:
        with warnings.catch_warnings(action="ignore"):
            return partial(TypeAdapter(fields).validate_python, strict=True)
    except (PydanticUserError, TypeError, NameError):  # what an annotation means is a secret of the class
        return lambda fields: fields


def _is_model(cls: type) -> bool:
    pydantic: Any = sys.modules.get("pydantic")  # who has a model has imported it
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def _model_codec(cls: Any, name: str) -> _Codec:
    if cls.__private_attributes__:
        private = ", ".join(sorted(cls.__private_attributes__))
        raise WireError(f"{_path(cls)} has private state ({private}); pass encode= and decode= to wire.register")
    root = getattr(cls, "__pydantic_root_model__", False)

    def encode(model: Any) -> dict[str, Any]:
        fields = {field: item for field, item in model.__dict__.items() if field in cls.model_fields}
        fields |= model.__pydantic_extra__ or {}
        explicit = model.__pydantic_fields_set__
        return {"fields": fields} if explicit == fields.keys() else {"fields": fields, "set": set(explicit)}

    def decode(payload: Any) -> Any:
        _known_keys(payload, ("fields", "set"), name)
        fields = payload["fields"]
        given = fields["root"] if root else fields
        model = cls.__pydantic_validator__.validate_python(given, strict=True, by_alias=False, by_name=True)
        if "set" in payload:
            explicit = payload["set"]
            if type(explicit) is not set or not explicit <= fields.keys():
                raise WireError(f"the fields set of {name} must be among its fields")
            object.__setattr__(model, "__pydantic_fields_set__", explicit)
        return model

    return _Codec(cls, name, encode, decode)


def _codec(table: Mapping[Any, _Codec], key: Any) -> _Codec | None:
    codec = table.get(key)
    if codec is None:
        with _LOCK:  # another thread may be reading the annotations that bring it
            while _UNREAD:
                for cls in _declared(_UNREAD.pop()):
                    if cls not in _CODECS:
                        with suppress(Exception):
                            register(cls)
            codec = table.get(key)
    return codec


def _declared(cls: type) -> Iterator[type]:
    """The classes in the annotations of a class's fields."""
    hints = list(_hints(cls).values())
    while hints:
        hint = hints.pop()
        hints.extend(typing.get_args(hint))
        if (origin := typing.get_origin(hint)) is not None:
            hints.append(origin)
        if isinstance(hint, type):
            yield hint


def _hints(cls: Any) -> dict[str, Any]:
    if _is_model(cls):
        return {name: field.annotation for name, field in cls.model_fields.items()}
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:  # names that cannot be resolved from here
        return {}


# --- values -----------------------------------------------------------------------------------------------------------

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1
_AS_THEY_ARE: Final = frozenset({str, bool, NoneType})
_SCALARS: Final = frozenset({str, bool, NoneType, int, float, bytes})
_COLLECTIONS: Final[dict[str, type]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_HEX: Final = re.compile(r"-?0x[0-9a-f]+")


def _value_out(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is int:
        return value if _INT_MIN <= value <= _INT_MAX else {"$": "int", "value": hex(value)}
    if kind is float:
        return value if isfinite(value) else {"$": "float", "value": repr(value)}
    if kind is bytes:
        return {"$": "bytes", "value": value}
    _check_depth(depth)
    if kind is list:
        return _list_out(value, depth + 1)
    if kind is dict:
        return _dict_out(value, depth + 1)
    if kind is tuple or kind is set or kind is frozenset:
        return {"$": kind.__name__, "value": _list_out(value, depth + 1)}
    if kind in _SPECS:
        return {"$": "content", "value": _fields_out(value, depth + 1)}
    if kind is StreamElement or kind is ControlElement:
        return {"$": "element", "value": _element_out(value, depth + 1)}
    codec = _codec(_CODECS, kind)
    if codec is None:
        raise WireError(f"{_path(kind)} has no wire form; register the class with rxstage.wire.register")
    return {"$": "object", "type": codec.name, "value": _value_out(codec.encode(value), depth + 1)}


def _list_out(values: Any, depth: int) -> list[Any]:
    kinds = set(map(type, values))  # long lists are mostly of one kind, and then nothing is to be done
    if (
        kinds <= _AS_THEY_ARE
        or (kinds == {float} and all(map(isfinite, values)))
        or (kinds == {int} and min(values) >= _INT_MIN and max(values) <= _INT_MAX)
    ):
        return list(values)
    return [_value_out(value, depth) for value in values]


def _dict_out(values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    if "$" in values or not all(type(key) is str for key in values):
        return {"$": "dict", "value": [_value_out(list(pair), depth) for pair in values.items()]}
    return {key: _value_out(value, depth) for key, value in values.items()}


def _value_in(tree: Any, depth: int) -> Any:
    kind = type(tree)
    if kind in _SCALARS:
        return tree
    _check_depth(depth)
    if kind is list:
        return _list_in(tree, depth + 1)
    if kind is not dict:
        raise WireError(f"a wire document holds no {_path(kind)}")
    if "$" not in tree:
        if not all(type(key) is str for key in tree):
            raise WireError('keys in a wire document are strings; others take the form {"$": "dict", ...}')
        return {key: _value_in(value, depth + 1) for key, value in tree.items()}
    tag = tree["$"]
    read = _TAGS.get(tag) if type(tag) is str else None
    if read is None or "value" not in tree or len(tree) != (3 if tag == "object" else 2):
        raise WireError(f"malformed value with the tag {str(tag)[:50]!r}")
    return read(tree, depth + 1)


def _list_in(tree: Any, depth: int) -> list[Any]:
    if type(tree) is not list:
        raise WireError(f"expected an array, got {_path(type(tree))}")
    if _SCALARS.issuperset(map(type, tree)):
        return list(tree)
    return [_value_in(value, depth) for value in tree]


def _bytes_in(tree: Any, _: int) -> bytes:
    if type(tree) is bytes:
        return tree
    if type(tree) is not str:
        raise WireError(f"expected bytes or base64, got {_path(type(tree))}")
    return a2b_base64(tree, strict_mode=True)


def _int_in(tree: Any, _: int) -> int:
    if not _HEX.fullmatch(tree["value"]):
        raise WireError("an integer beyond 64 bits is written in hexadecimal, such as 0x1f")
    return int(tree["value"], 16)


def _float_in(tree: Any, _: int) -> float:
    if tree["value"] not in ("nan", "inf", "-inf"):
        raise WireError("a float that is not finite is one of 'nan', 'inf', '-inf'")
    return float(tree["value"])


def _collection_in(tree: Any, depth: int) -> Any:
    items = _list_in(tree["value"], depth)
    collection = _COLLECTIONS[tree["$"]](items)
    if len(collection) != len(items):
        raise WireError("a set holds no value twice")
    return collection


def _dict_in(tree: Any, depth: int) -> dict[Any, Any]:
    pairs = _list_in(tree["value"], depth)
    items = dict(pairs)
    if len(items) != len(pairs) or not all(type(pair) is list for pair in pairs):
        raise WireError("a mapping holds pairs, and no key twice")
    return items


def _object_in(tree: Any, depth: int) -> Any:
    name = tree.get("type")
    codec = _codec(_NAMES, name) if type(name) is str else None
    if codec is None:
        raise WireError(
            f"no class is registered under the wire name {str(name)[:200]!r}; rxstage.wire.register it on this side too"
        )
    value = _value_in(tree["value"], depth)
    try:
        return codec.decode(value)
    except Exception as error:
        raise WireError(f"this is no {name}: {type(error).__name__}: {str(error)[:500]}") from error


_TAGS: Final[dict[str, Callable[[Any, int], Any]]] = {
    "bytes": lambda tree, depth: _bytes_in(tree["value"], depth),
    "content": lambda tree, depth: _fields_in(None, tree["value"], depth),
    "dict": _dict_in,
    "element": lambda tree, depth: _element_in(tree["value"], depth),
    "float": _float_in,
    "int": _int_in,
    "object": _object_in,
    **dict.fromkeys(_COLLECTIONS, _collection_in),
}


def _check_depth(depth: int) -> None:
    if depth > _DEPTH:
        raise WireError(f"nested more than {_DEPTH} deep, or containing itself; a wire document is flatter than that")


def _known_keys(fields: Any, known: Iterable[str], what: str) -> None:
    if type(fields) is not dict:
        raise WireError(f"expected the fields of {what}, got {_path(type(fields))}")
    unknown = fields.keys() - set(known)
    if unknown:
        raise WireError(f"{what} has no field {', '.join(repr(str(name)[:50]) for name in list(unknown)[:5])}")


def _path(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


# --- contents and elements --------------------------------------------------------------------------------------------


def _contents_out(parts: Any, depth: int) -> list[Any]:
    return [_content_out(part, depth + 1) for part in parts]


def _contents_in(tree: Any, depth: int) -> tuple[Any, ...]:
    if type(tree) is not list:
        raise WireError(f"expected an array of contents, got {_path(type(tree))}")
    return tuple([_content_in(part, depth + 1) for part in tree])


def _calls_in(tree: Any, depth: int) -> tuple[ToolCall, ...]:
    calls = _contents_in(tree, depth)
    if not all(type(call) is ToolCall for call in calls):
        raise WireError("the tool calls of a message are contents of the kind 'tool_call'")
    return calls


def _error_out(error: BaseException, _: int) -> dict[str, str]:
    if isinstance(error, RemoteError):
        fields = {"type": error.type, "message": error.message, "traceback": error.traceback}
    else:
        try:
            message = str(error)
        except Exception as broken:  # a failure travels, however broken its exception is
            message = f"<str() raised {type(broken).__name__}>"
        formatted = "".join(traceback.format_exception(error))
        fields = {"type": type(error).__name__, "message": message, "traceback": formatted}
    return {name: text.encode("utf-8", "backslashreplace").decode() for name, text in fields.items()}


def _error_in(tree: Any, _: int) -> RemoteError:
    _known_keys(tree, ("type", "message", "traceback"), "error")
    if not all(type(text) is str for text in tree.values()):
        raise WireError("type, message and traceback of an error are strings")
    return RemoteError(**tree)


def _named(table: Mapping[str, _T], name: Any) -> _T:
    if type(name) is not str or name not in table:
        raise WireError(f"{str(name)[:50]!r} is none of {', '.join(table)}")
    return table[name]


class _Field(NamedTuple):
    """How a field of a content travels: what it must be, on both sides, and what it becomes."""

    types: Any
    write: Callable[[Any, int], Any] = _value_out
    read: Callable[[Any, int], Any] = _value_in


_FORMATS: Final = {format.value: format for format in AudioFormat}
_STR: Final = _Field(str)
_INT: Final = _Field(int)
_FLOAT: Final = _Field((float, int))
_ANY: Final = _Field(object)
_BYTES: Final = _Field(bytes, lambda value, _: value, _bytes_in)
_CONTENTS: Final = _Field(tuple, _contents_out, _contents_in)

_KINDS: Final[dict[str, tuple[type, dict[str, _Field]]]] = {
    "text": (Text, {"text": _STR}),
    "audio": (
        Audio,
        {
            "samples": _BYTES,
            "sample_rate": _INT,
            "channels": _INT,
            "format": _Field(AudioFormat, lambda value, _: value.value, lambda tree, _: _named(_FORMATS, tree)),
        },
    ),
    "video": (Video, {"data": _BYTES, "mime_type": _STR, "width": _INT, "height": _INT, "duration": _FLOAT}),
    "image": (Image, {"data": _BYTES, "mime_type": _STR, "width": _INT, "height": _INT}),
    "usage": (Usage, {"input_tokens": _INT, "output_tokens": _INT, "cost": _FLOAT}),
    "tool_call": (ToolCall, {"name": _STR, "arguments": _Field(Mapping, lambda v, d: _dict_out(v, d + 1)), "id": _STR}),
    "tool_result": (ToolResult, {"call_id": _STR, "value": _ANY, "name": _STR, "is_error": _Field(bool)}),
    "message": (
        Message,
        {
            "role": _STR,
            "parts": _CONTENTS,
            "name": _Field((str, NoneType)),
            "tool_calls": _Field(tuple, _contents_out, _calls_in),
            "usage": _Field(
                (Usage, NoneType),
                lambda usage, depth: None if usage is None else _fields_out(usage, depth),
                lambda tree, depth: None if tree is None else _fields_in("usage", tree, depth),
            ),
        },
    ),
    "parts": (Parts, {"parts": _CONTENTS}),
    "data": (Data, {"value": _ANY}),
    "failure": (Failure, {"error": _Field(BaseException, _error_out, _error_in), "stage": _STR}),
    "end_of_turn": (EndOfTurn, {}),
    "interrupt": (Interrupt, {"reason": _STR}),
    "end_of_stream": (EndOfStream, {}),
}
_SPECS: Final = {cls: (kind, tuple(fields.items())) for kind, (cls, fields) in _KINDS.items()}
_CARRIED: Final = CONTENT_KINDS | CONTROL_KINDS
_BUILT_IN: Final = frozenset({*_SCALARS, list, dict, tuple, set, frozenset, *_SPECS, StreamElement, ControlElement})


def _content_out(content: Any, depth: int) -> dict[str, Any]:
    kind = type(content)
    if kind is Text and type(content.text) is str and depth <= _DEPTH:  # by far the most frequent
        return {"kind": "text", "text": content.text}
    if kind not in _CARRIED:
        raise WireError(f"{_path(kind)} is no content; StreamElement.of puts a value into Data")
    return _fields_out(content, depth)


def _fields_out(content: Any, depth: int) -> dict[str, Any]:
    _check_depth(depth)
    kind, fields = _SPECS[type(content)]
    tree: dict[str, Any] = {"kind": kind}
    for name, field in fields:
        value = getattr(content, name)
        if not isinstance(value, field.types):
            raise WireError(f"{_path(type(content))}.{name} cannot be of type {_path(type(value))}")
        tree[name] = field.write(value, depth)
    return tree


def _content_in(tree: Any, depth: int) -> Any:
    content = _fields_in(None, tree, depth)
    if type(content) not in _CARRIED:
        raise WireError(f"{_path(type(content))} is no content of its own")
    return content


def _fields_in(expected: str | None, tree: Any, depth: int) -> Any:
    _check_depth(depth)
    kind = tree.get("kind") if type(tree) is dict else None
    if type(kind) is not str or kind not in _KINDS or expected not in (None, kind):
        raise WireError(f"a content names its 'kind', one of {', '.join(_KINDS)}; got {str(kind)[:50]!r}")
    cls, fields = _KINDS[kind]
    values = {}
    for name, item in tree.items():
        field = fields.get(name)
        if field is not None:
            value = values[name] = field.read(item, depth)
            if not isinstance(value, field.types):
                raise WireError(f"{name!r} of {kind} cannot be of type {_path(type(value))}")
        elif name != "kind":
            raise WireError(f"{kind} has no field {str(name)[:50]!r}")
    return cls(**values)


_PRIORITIES: Final = {priority.name.lower(): priority for priority in Priority}
_PRIORITY_NAMES: Final = tuple(_PRIORITIES)  # by number
_DOCUMENT_KEYS: Final = {"rxstage", "content", "metadata", "priority", "sequence", "timestamp", "source", "origin"}


def _element_out(element: Any, depth: int) -> dict[str, Any]:
    kind = type(element)
    if kind is not StreamElement and kind is not ControlElement:
        raise WireError(f"only elements have a wire form, got {_path(kind)}; make one with StreamElement.of(value)")
    document = {
        "rxstage": _VERSION,
        "content": _content_out(element.content, depth),
        "metadata": _dict_out(element.metadata, depth + 1) if element.metadata else {},
        "priority": _PRIORITY_NAMES[element.priority],
        "sequence": _value_out(element.sequence, depth),
        "timestamp": _value_out(element.timestamp, depth),
        "source": _value_out(element.source, depth),
    }
    if kind is ControlElement and element.origin:
        document["origin"] = element.origin
    return document


def _element_in(document: Any, depth: int) -> StreamElement:
    if type(document) is not dict or "rxstage" not in document or "content" not in document:
        raise WireError("a wire document is an object with 'rxstage' (its version) and 'content'")
    version = document["rxstage"]
    if type(version) is not int or version != _VERSION:
        raise WireError(
            f"wire version {str(version)[:50]} is unknown to this rxstage, which reads {_VERSION}; upgrade one"
        )
    if not document.keys() <= _DOCUMENT_KEYS:
        _known_keys(document, _DOCUMENT_KEYS, "element")
    get = document.get
    metadata, sequence, timestamp, origin = (
        get("metadata", {}),
        get("sequence", 0),
        get("timestamp", 0.0),
        get("origin", 0),
    )
    if metadata:
        metadata = _value_in(metadata, depth)
    if type(sequence) is dict:
        sequence = _value_in(sequence, depth)
    if type(timestamp) is dict:
        timestamp = _value_in(timestamp, depth)
    priority = _named(_PRIORITIES, document["priority"]) if "priority" in document else None
    source = get("source", "")
    if (
        type(metadata) is not dict
        or type(sequence) is not int
        or type(timestamp) not in (float, int)
        or type(source) is not str
        or type(origin) is not int
    ):
        raise WireError("metadata, sequence, timestamp, source and origin of an element must be of their types")
    content = _content_in(document["content"], depth)
    if origin and type(content) not in CONTROL_KINDS:
        raise WireError("only a control has an 'origin'")
    element: StreamElement = _make(content, metadata or _NOTHING, priority, sequence, timestamp, source, origin)
    return element


# --- pydantic ---------------------------------------------------------------------------------------------------------


def element_schema(cls: type[StreamElement] = StreamElement) -> CoreSchema:
    """How pydantic treats a field that is an element.

    It takes an element as it is, or its wire form as `to_dict` gives it, and writes the wire form to JSON; a dump in
    python mode holds the element itself.

    Args:
        cls: `ControlElement` where nothing but controls will do.
    """
    from pydantic_core import core_schema

    def accept(value: Any) -> StreamElement:
        if not isinstance(value, StreamElement):
            try:
                value = from_dict(value)
            except WireError as error:
                raise ValueError(f"no StreamElement (make one with StreamElement.of): {error}") from error
        if not isinstance(value, cls):
            raise ValueError(  # which pydantic would not take for a finding
                f"expected a control, got {type(value.content).__name__}"
            )
        return value

    string = core_schema.str_schema()
    anything = core_schema.dict_schema(string, core_schema.any_schema())
    integer = core_schema.union_schema([core_schema.int_schema(), anything])
    document = core_schema.typed_dict_schema(
        {
            "rxstage": core_schema.typed_dict_field(core_schema.literal_schema([_VERSION])),
            "content": core_schema.typed_dict_field(
                core_schema.typed_dict_schema(
                    {
                        "kind": core_schema.typed_dict_field(
                            core_schema.literal_schema([kind for kind, (of, _) in _KINDS.items() if of in _CARRIED])
                        )
                    },
                    extra_behavior="allow",
                )
            ),
            "metadata": core_schema.typed_dict_field(anything, required=False),
            "priority": core_schema.typed_dict_field(core_schema.literal_schema(list(_PRIORITY_NAMES)), required=False),
            "sequence": core_schema.typed_dict_field(integer, required=False),
            "timestamp": core_schema.typed_dict_field(
                core_schema.union_schema([core_schema.float_schema(), anything]), required=False
            ),
            "source": core_schema.typed_dict_field(string, required=False),
            "origin": core_schema.typed_dict_field(integer, required=False),
        }
    )
    return core_schema.no_info_plain_validator_function(
        accept,
        json_schema_input_schema=document,
        serialization=core_schema.plain_serializer_function_ser_schema(
            to_dict, return_schema=document, when_used="json"
        ),
    )


# --- what is registered already ---------------------------------------------------------------------------------------


def _clock_out(value: dt.datetime | dt.time) -> list[Any] | str:
    if value.tzinfo is not None and value.tzinfo.utcoffset(None) is None:
        raise WireError(
            f"{value!r} is in a zone that has no fixed offset; travel in UTC: value.astimezone(timezone.utc)"
        )
    return [value.isoformat(), value.fold] if value.fold else value.isoformat()


def _clock_in(cls: type[Any], value: Any) -> Any:
    return cls.fromisoformat(value[0]).replace(fold=value[1]) if type(value) is list else cls.fromisoformat(value)


register(dt.datetime, encode=_clock_out, decode=partial(_clock_in, dt.datetime))
register(dt.time, encode=_clock_out, decode=partial(_clock_in, dt.time))
register(dt.date, encode=dt.date.isoformat, decode=dt.date.fromisoformat)
register(dt.timedelta, encode=lambda v: [v.days, v.seconds, v.microseconds], decode=lambda v: dt.timedelta(*v))
register(Decimal, encode=str, decode=Decimal)
register(UUID, encode=str, decode=UUID)
register(msgspec.UnsetType, encode=lambda _: None, decode=lambda _: msgspec.UNSET)
register(Metadata, encode=dict, decode=Metadata)
register(AudioFormat)
register(Priority)
