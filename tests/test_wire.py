"""Wire forms: what travels comes back without loss, and nothing else gets in."""

from __future__ import annotations

import base64
import builtins
import copy
import datetime as dt
import enum
import importlib
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, fields, is_dataclass, make_dataclass
from decimal import Decimal
from functools import cached_property
from math import inf, nan
from typing import Annotated, Any, Generic, TypeVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticSerializationError

from rxstage import wire
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
from rxstage.errors import RxStageError, StageError
from rxstage.priority import Priority
from rxstage.wire import RemoteError, WireError

Trip = Callable[[StreamElement], StreamElement]
T = TypeVar("T")

TRIPS: dict[str, Trip] = {
    "json": lambda element: wire.from_json(wire.to_json(element)),
    "msgpack": lambda element: wire.from_msgpack(wire.to_msgpack(element)),
    "dict": lambda element: wire.from_dict(wire.to_dict(element)),
    "strict-json": lambda element: wire.from_dict(json.loads(json.dumps(wire.to_dict(element), allow_nan=False))),
}
READERS: dict[str, Callable[[Any], StreamElement]] = {
    "json": lambda document: wire.from_json(json.dumps(document)),
    "msgpack": lambda document: wire.from_msgpack(msgspec.msgpack.encode(document)),
    "dict": wire.from_dict,
}


@pytest.fixture(params=list(TRIPS.values()), ids=list(TRIPS))
def trip(request: pytest.FixtureRequest) -> Trip:
    there_and_back: Trip = request.param
    return there_and_back


@pytest.fixture(params=list(READERS.values()), ids=list(READERS))
def read(request: pytest.FixtureRequest) -> Callable[[Any], StreamElement]:
    reader: Callable[[Any], StreamElement] = request.param
    return reader


def same(a: Any, b: Any) -> bool:
    """Equality that tells 1 from 1.0 and True, minds the order of keys, and has NaN equal itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (set, frozenset)):
        return a == b and all(any(same(one, other) for other in b) for one in a)
    if isinstance(a, float):
        return repr(a) == repr(b)
    if isinstance(a, msgspec.Struct):
        return all(same(getattr(a, name), getattr(b, name)) for name in a.__struct_fields__)
    if is_dataclass(a):
        return all(same(getattr(a, item.name), getattr(b, item.name)) for item in fields(a))
    if isinstance(a, pydantic.BaseModel):
        return same(vars(a), vars(b)) and same(a.model_extra, b.model_extra)
    if isinstance(a, Decimal):
        return repr(a) == repr(b)
    return bool(a == b)


def document(content: Any, **envelope: Any) -> dict[str, Any]:
    return {"rxstage": 1, "content": content, **envelope}


def data(value: Any) -> dict[str, Any]:
    return document({"kind": "data", "value": value})


def name(value: Any) -> str:
    return type(value).__name__


# --- registered classes -----------------------------------------------------------------------------------------------


class Size(enum.Enum):
    SMALL = (1, 2)
    LARGE = (3, 4)


class Colour(enum.StrEnum):
    RED = "red"


class Right(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@dataclass
class Item:
    code: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Line:
    item: Item
    note: str | None = None
    gross: float = field(init=False, default=0.0)


@wire.register
@dataclass
class Order:
    lines: list[Line]
    size: Size
    rights: Right
    at: dt.datetime
    key: UUID
    price: Decimal
    tags: set[str] = field(default_factory=set)
    pair: tuple[int, ...] = ()
    raw: bytes = b""
    extra: Any = None

    @cached_property
    def total(self) -> int:
        return len(self.lines)


@wire.register(name="tests.Point")
class Point(msgspec.Struct, frozen=True, rename="camel", tag="a point"):
    at_x: int
    at_y: float = 0.0
    next_one: Point | msgspec.UnsetType | None = msgspec.UNSET
    anything: Any = None


class Address(pydantic.BaseModel):
    street: str


@wire.register
class Customer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    full_name: str = pydantic.Field(alias="fullName", min_length=1)
    address: Address | None = None
    size: Size = Size.SMALL
    since: dt.date | None = None
    scores: dict[str, float] = {}
    secret: Annotated[str, pydantic.Field(exclude=True)] = "none"


@wire.register
class Names(pydantic.RootModel[list[str]]):
    pass


@wire.register
class Element(pydantic.BaseModel):
    element: StreamElement


@dataclass
class Box(Generic[T]):
    inside: T


@wire.register
@dataclass
class Shelf:
    boxes: list[Box[Item]]


@wire.register
@dataclass
class Reading:
    value: float
    place: Address | None = None
    unit: Celsius | None = None


class Celsius:
    """A class that says nothing about itself."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Celsius) and other.degrees == self.degrees

    __hash__ = None  # type: ignore[assignment]


def celsius(value: Any) -> Celsius:
    if not isinstance(value, float):
        raise TypeError("degrees are a float")
    return Celsius(value)


wire.register(Celsius, "tests.Celsius", encode=lambda celsius: celsius.degrees, decode=celsius)

ORDER = Order(
    [Line(Item("a", 2), "fragile"), Line(Item("b"))],
    Size.LARGE,
    Right.READ | Right.WRITE,
    dt.datetime(2024, 5, 6, 7, 8, 9, 10, dt.UTC),
    UUID(int=5),
    Decimal("1.10"),
    {"x", "y"},
    (1, 2),
    b"\0\xff",
    {"deep": [(1, {2}), frozenset({b"x"}), nan]},
)
CUSTOMER = Customer(fullName="Ada", address=Address(street="Main"), scores={"a": inf}, secret="s", shoe=41)  # type: ignore[call-arg]
REGISTERED = [
    ORDER,
    Point(1, -0.0, Point(2), (1, [b"x"])),
    CUSTOMER,
    Customer(fullName="Bob"),
    Names(["a", "b"]),
    Element(element=StreamElement.of(Item("z"), metadata={"a": 1})),
    Shelf([Box(Item("a"))]),
    Celsius(36.6),
    Size.SMALL,
    Colour.RED,
    Right(0),
    Right.READ | Right.WRITE,
    Usage(1, 2, 0.5),
    Priority.HIGH,
    AudioFormat.MULAW,
    Metadata(a=(1,)),
    msgspec.UNSET,
    UUID(int=1),
    Decimal("NaN"),
    Decimal("-1E+30"),
    dt.date(2024, 5, 6),
    dt.timedelta(-3, 4, 5),
    dt.time(1, 2, 3),
    dt.time(1, 2, 3, fold=1, tzinfo=dt.timezone(dt.timedelta(hours=-3, seconds=5))),
    dt.datetime(2024, 5, 6, 7, 8),
    dt.datetime(2024, 10, 27, 2, 30, fold=1),
    dt.datetime(2024, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
]
wire.register(Colour)

CONTENTS: list[Any] = [
    Text("héllo \0 \U0001f600"),
    Audio(b"\0\xff\x80\1", 16000, 2),
    Audio(b"\0\1\2\3", 8000, 1, AudioFormat.FLOAT32),
    Image(b"\xff\xd8", "image/jpeg", 2, 3),
    Video(b"\0", width=1, height=2, duration=1.5),
    Video(b"", duration=inf),
    Message.assistant("a", Audio(b"\0\1", 8000), tool_calls=(ToolCall("f", {"a": (1,)}, "1"),), usage=Usage(1, 2, nan)),
    Message("tool", (ToolResult("1", {"x": b"y"}, "f", True), Data(Item("q")), Image(b"")), "calculator"),
    ToolCall("f", {"a": {"b": [1, nan]}, "$": 1}, "call-1"),
    ToolResult("call-1", ORDER, is_error=True),
    Parts((Text("a"), Parts(("b", Message.user("c"))), EndOfTurn(), Data({1: 2}))),
    Data(None),
    EndOfTurn(),
    Interrupt("barge-in"),
    EndOfStream(),
]


# --- the form ---------------------------------------------------------------------------------------------------------


def test_the_form_of_a_document() -> None:
    """The document is the one that the module describes, and the same in JSON."""
    element = StreamElement.of("hi", sequence=7, timestamp=0.25, source="stt", metadata={"a": 1})
    expected = {
        "rxstage": 1,
        "content": {"kind": "text", "text": "hi"},
        "metadata": {"a": 1},
        "priority": "normal",
        "sequence": 7,
        "timestamp": 0.25,
        "source": "stt",
    }
    assert wire.to_dict(element) == expected
    assert json.loads(wire.to_json(element)) == expected
    assert msgspec.msgpack.decode(wire.to_msgpack(element)) == expected


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (b"\0\1", {"$": "bytes", "value": "AAE="}),
        (nan, {"$": "float", "value": "nan"}),
        (-inf, {"$": "float", "value": "-inf"}),
        (2**64, {"$": "int", "value": "0x10000000000000000"}),
        ((1, 2), {"$": "tuple", "value": [1, 2]}),
        ({1: "a"}, {"$": "dict", "value": [[1, "a"]]}),
        ({"$": "a"}, {"$": "dict", "value": [["$", "a"]]}),
        (Text("a"), {"$": "content", "value": {"kind": "text", "text": "a"}}),
        (Point(1, 2.0, None), {"$": "object", "type": "tests.Point", "value": ...}),
        ({"a": [1, None, True]}, {"a": [1, None, True]}),
    ],
    ids=["bytes", "nan", "inf", "int", "tuple", "dict", "dollar", "content", "object", "plain"],
)
def test_the_form_of_values(value: Any, form: Any) -> None:
    """Values that JSON has stand for themselves, all others have the tags that the module describes."""
    found = wire.to_dict(StreamElement.of(Data(value)))["content"]["value"]
    if isinstance(form, dict) and form.get("value") is ...:
        found["value"] = ...
    assert found == form


def test_bytes_are_base64_in_json_and_raw_in_msgpack() -> None:
    """Audio costs a third more in JSON, and nothing in msgpack."""
    samples = bytes(range(256))
    element = StreamElement.of(Audio(samples, 16000))
    assert wire.to_dict(element)["content"]["samples"] == base64.b64encode(samples).decode()
    assert base64.b64encode(samples) in wire.to_json(element)
    assert samples in wire.to_msgpack(element)
    assert samples in wire.to_msgpack(StreamElement.of(samples))


def test_only_version_and_content_are_needed(read: Callable[[Any], StreamElement]) -> None:
    """What a document leaves out has its default, the priority that of the kind."""
    assert read(document({"kind": "text", "text": "a"})) == StreamElement.of("a")
    assert read(document({"kind": "audio", "samples": "AAE=", "sample_rate": 8000})) == StreamElement.of(
        Audio(b"\0\1", 8000)
    )
    assert read(document({"kind": "interrupt"})) == StreamElement.interrupt()


def test_json_may_be_text() -> None:
    """JSON is taken as bytes, as a buffer or as a string."""
    encoded = wire.to_json(StreamElement.of("hé"))
    for given_as in (encoded, bytearray(encoded), memoryview(encoded), encoded.decode()):
        assert wire.from_json(given_as) == StreamElement.of("hé")


# --- round trips ------------------------------------------------------------------------------------------------------


def test_every_kind_is_tried() -> None:
    """The list of this file covers all kinds but the failure, which has tests of its own."""
    assert {type(content) for content in CONTENTS} == (CONTENT_KINDS | CONTROL_KINDS) - {Failure}


@pytest.mark.parametrize("content", CONTENTS, ids=name)
def test_contents_round_trip(content: Any, trip: Trip) -> None:
    """Every kind comes back the same, in an element of the same class."""
    element = StreamElement.of(content, metadata={"content": content}, sequence=3, source="s")
    again = trip(element)
    assert type(again) is type(element) is (ControlElement if type(content) in CONTROL_KINDS else StreamElement)
    assert type(again.metadata) is Metadata
    assert same(again, element)


@pytest.mark.parametrize("value", REGISTERED, ids=name)
def test_registered_values_round_trip(value: Any, trip: Trip) -> None:
    """A registered value comes back the same, from data, metadata, collections and messages."""
    for element in (
        StreamElement.of(Data(value)),
        StreamElement.of("x", metadata={"a": [value], "b": (value,)}),
        StreamElement.of(Message.user(ToolResult("1", {"v": value}))),
    ):
        assert same(trip(element), element)


@pytest.mark.parametrize("priority", Priority)
def test_envelope_round_trips(priority: Priority, trip: Trip) -> None:
    """Every field of the envelope comes back."""
    for content in (Text("a"), EndOfTurn()):
        element = StreamElement.of(
            content, metadata={"a": {"b": (1,)}}, priority=priority, sequence=2**63, timestamp=1e-300, source="é"
        )
        assert same(trip(element), element)
        assert trip(element).priority is priority


@pytest.mark.parametrize(
    "number",
    [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**5000, -(10**400)],
    ids=lambda number: hex(number)[:9],
)
def test_integers_of_any_size(number: int, trip: Trip) -> None:
    """Integers beyond 64 bits travel in data, lists, fields of contents and the sequence."""
    element = StreamElement.of([number, 1], sequence=number, metadata={"a": number})
    assert same(trip(element), element)
    usage = StreamElement.of(Message("assistant", usage=Usage(number, number)))
    assert same(trip(usage), usage)


@pytest.mark.parametrize("number", [nan, inf, -inf, -0.0, 5e-324, 1.7976931348623157e308, 1e16, 0.1])
def test_floats_of_any_kind(number: float, trip: Trip) -> None:
    """Floats are exact, and those that are not finite travel too."""
    element = StreamElement.of([number, 1.0], timestamp=number, metadata={"a": number, "b": [number, "x"]})
    assert same(trip(element), element)


def test_a_control_keeps_its_origin(trip: Trip) -> None:
    """The node that made a control is told where there is one."""
    control = StreamElement.end_of_turn().replace(origin=5)
    assert same(trip(control), control)
    assert "origin" not in wire.to_dict(StreamElement.end_of_turn())


def test_an_element_inside_another(trip: Trip) -> None:
    """Elements may be values, such as a batch in data."""
    batch = StreamElement.of([StreamElement.of("a", source="s"), StreamElement.interrupt("x")])
    again = trip(batch)
    assert same(again, batch)
    assert [type(element) for element in again.data] == [StreamElement, ControlElement]


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.integers(min_value=2**60)
)
KEYS = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda keys: st.lists(keys, max_size=3).map(tuple) | st.frozensets(keys, max_size=3),
    max_leaves=3,
)
VALUES = st.recursive(
    SCALARS | st.sets(KEYS, max_size=3) | st.frozensets(KEYS, max_size=3) | st.builds(Item, st.text(), st.integers()),
    lambda values: (
        st.lists(values, max_size=4)
        | st.lists(values, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.just("$"), values, max_size=4)
        | st.dictionaries(KEYS, values, max_size=3)
        | values.map(Data)
        | values.map(Box)
    ),
    max_leaves=10,
)
COUNTS = st.integers(min_value=0)
BASIC = (
    st.builds(Text, st.text())
    | st.builds(
        Audio, st.binary().map(lambda b: b * 8), st.integers(1), st.sampled_from([1, 2]), st.sampled_from(AudioFormat)
    )
    | st.builds(Image, st.binary(), st.text(), COUNTS, COUNTS)
    | st.builds(Video, st.binary(), st.text(), COUNTS, COUNTS, st.floats())
    | st.builds(ToolCall, st.text(), st.dictionaries(st.text(), VALUES, max_size=3), st.text())
    | st.builds(ToolResult, st.text(), VALUES, st.text(), st.booleans())
    | st.builds(Data, VALUES)
    | st.builds(Interrupt, st.text())
    | st.sampled_from([EndOfTurn(), EndOfStream()])
    | st.builds(Failure, st.builds(RemoteError, st.text(), st.text(), st.text()), st.text())
)
NESTED: st.SearchStrategy[Any] = st.recursive(
    BASIC,
    lambda contents: (
        st.builds(Parts, st.lists(contents, max_size=3))
        | st.builds(
            Message,
            st.text(),
            st.lists(contents, max_size=3),
            st.none() | st.text(),
            st.lists(st.builds(ToolCall, st.text()), max_size=2),
            st.none() | st.builds(Usage, COUNTS, COUNTS, st.floats()),
        )
    ),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None)
@given(
    NESTED,
    st.dictionaries(st.text(), VALUES, max_size=3),
    st.sampled_from(Priority),
    st.integers(),
    st.floats(),
    st.text(),
)
def test_any_element_round_trips(
    content: Any, metadata: Any, priority: Priority, sequence: int, timestamp: float, source: str
) -> None:
    """Whatever an element is made of, every wire form gives it back without loss."""
    element: StreamElement = StreamElement(content, metadata, priority, sequence, timestamp, source)
    for there_and_back in TRIPS.values():
        assert same(there_and_back(element), element)


# --- failures ---------------------------------------------------------------------------------------------------------


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_failure_travels_as_text(trip: Trip) -> None:
    """A failure arrives with a `RemoteError` of the exception's type, message and traceback."""
    element = StreamElement.of(Failure(raised(ValueError("boom")), "upper"), source="s")
    again = trip(element)
    assert type(again) is ControlElement
    assert again.failure is not None
    assert again.failure.stage == "upper"
    error = again.failure.error
    assert type(error) is RemoteError
    assert (error.type, error.message) == ("ValueError", "boom")
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert error.traceback.endswith("ValueError: boom\n")
    assert "raise error" in error.traceback


def test_remote_error_travels_on_unchanged(trip: Trip) -> None:
    """A `RemoteError` is encoded as what it stands for, however often it travels."""
    once = trip(StreamElement.of(raised(KeyError("boom"))))
    assert once == trip(once) == trip(trip(once))
    assert wire.to_json(once) == wire.to_json(trip(once))


def test_failure_tells_of_causes() -> None:
    """The traceback has the whole chain of an error."""
    error = StageError("upper", cause=raised(ValueError("the cause")))
    document = wire.to_dict(StreamElement.of(error))
    assert document["content"]["error"]["type"] == "StageError"
    assert "ValueError: the cause" in document["content"]["error"]["traceback"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Unspeakable(), "<str() raised RuntimeError>"),
        (ValueError("a\ud800b"), "a\\ud800b"),
        (ValueError(), ""),
        (KeyboardInterrupt(), ""),
        (ExceptionGroup("all", [ValueError("x"), OSError("y")]), "all (2 sub-exceptions)"),
    ],
    ids=["no-str", "surrogate", "empty", "exit", "group"],
)
def test_any_exception_travels(error: BaseException, message: str, trip: Trip) -> None:
    """A failure travels however broken its exception is."""
    again = trip(StreamElement.of(error)).failure
    assert again is not None
    assert type(again.error) is RemoteError
    assert (again.error.type, again.error.message) == (type(error).__name__, message)


def test_remote_error_is_a_value() -> None:
    """A `RemoteError` compares by its fields, reads well, pickles and copies."""
    error = RemoteError("ValueError", "boom", "Traceback ...")
    assert str(error) == "ValueError: boom"
    assert str(RemoteError("ValueError", "")) == "ValueError"
    assert RemoteError("ValueError", "boom").traceback == ""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is RemoteError
        assert again == error
        assert hash(again) == hash(error)
        assert (again.type, again.message, again.traceback) == ("ValueError", "boom", "Traceback ...")
    assert error != RemoteError("ValueError", "boom")
    assert error != ValueError("boom")


def test_wire_error_is_ours_and_pickles() -> None:
    """A `WireError` is an `RxStageError` and survives a process boundary."""
    error = WireError("no wire form")
    assert isinstance(error, RxStageError)
    assert str(pickle.loads(pickle.dumps(error))) == "no wire form"


# --- what does not travel ---------------------------------------------------------------------------------------------

ENCODERS: dict[str, Callable[[Any], Any]] = {"json": wire.to_json, "msgpack": wire.to_msgpack, "dict": wire.to_dict}


class Unknown:
    pass


class UnknownModel(pydantic.BaseModel):
    x: int = 1


@dataclass
class LargeItem(Item):
    pass


class Letters(str):
    __slots__ = ()


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize(
    "value",
    [
        Unknown(),
        Unknown,
        UnknownModel(),
        LargeItem("a"),
        OrderedDict(a=1),
        Letters("a"),
        1j,
        bytearray(b"a"),
        len,
        ValueError(),
    ],
    ids=name,
)
def test_unregistered_classes_are_named(value: Any, encode: Callable[[Any], Any]) -> None:
    """A value of a class that is not registered is an error with the class and the remedy, wherever it stands."""
    for element in (
        StreamElement.of(Data(value)),
        StreamElement.of("a", metadata={"a": value}),
        StreamElement.of(Parts((Data([{"a": (value,)}]),))),
        StreamElement.of(ToolResult("1", value)),
        StreamElement.of(Order([], Size.SMALL, Right(0), ORDER.at, ORDER.key, ORDER.price, extra=value)),
    ):
        with pytest.raises(WireError, match=rf"{type(value).__qualname__} has no wire form; .*rxstage\.wire\.register"):
            encode(element)


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Text(5), r"Text\.text cannot be of type int"),  # type: ignore[arg-type]
        (Audio(b"", 16000.5), r"Audio\.sample_rate cannot be of type float"),  # type: ignore[arg-type]
        (Image(bytearray()), r"Image\.data cannot be of type bytearray"),  # type: ignore[arg-type]
        (Message("user", usage=5), r"Message\.usage cannot be of type int"),  # type: ignore[arg-type]
        (ToolCall("f", [1]), r"ToolCall\.arguments cannot be of type list"),  # type: ignore[arg-type]
        (Interrupt(None), r"Interrupt\.reason cannot be of type NoneType"),  # type: ignore[arg-type]
    ],
    ids=["text", "audio", "image", "message", "call", "interrupt"],
)
def test_badly_filled_contents_are_refused(content: Any, message: str, encode: Callable[[Any], Any]) -> None:
    """A field of the wrong type is found by the sender."""
    with pytest.raises(WireError, match=message):
        encode(StreamElement.of(content))


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("value", ["text", Text("a"), None, {"rxstage": 1}], ids=name)
def test_only_elements_are_encoded(value: Any, encode: Callable[[Any], Any]) -> None:
    """What is no element is an error that says how to make one."""
    with pytest.raises(WireError, match=r"only elements have a wire form, got .*StreamElement\.of"):
        encode(value)


@pytest.mark.parametrize("encode", [wire.to_json, wire.to_msgpack], ids=["json", "msgpack"])
def test_broken_text_is_refused(encode: Callable[[Any], Any]) -> None:
    """A lone surrogate is no Unicode text and an error, not another text."""
    with pytest.raises(WireError, match="UnicodeEncodeError"):
        encode(StreamElement.of("\ud800"))


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_a_value_that_contains_itself(encode: Callable[[Any], Any]) -> None:
    """A cycle is an error and not the end of the stack."""
    cycle: list[Any] = []
    cycle.append({"a": (cycle,)})
    with pytest.raises(WireError, match="containing itself"):
        encode(StreamElement.of(cycle))


def nested_list(value: Any) -> Any:
    return [value]


def nested_tuple(value: Any) -> Any:
    return (value,)


def nested_dict(value: Any) -> Any:
    return {1: value}


def nested_data(value: Any) -> Any:
    return Data(value)


def nested_parts(value: Any) -> Any:
    return Parts((value,))


def nested_object(value: Any) -> Any:
    return Box(value)


def nested_element(value: Any) -> Any:
    return StreamElement.of(Data(value))


NESTS = [nested_list, nested_tuple, nested_dict, nested_data, nested_parts, nested_object, nested_element]


@pytest.mark.parametrize("nest", NESTS)
def test_what_can_be_written_can_be_read(nest: Callable[[Any], Any], trip: Trip) -> None:
    """The limit of nesting is the same for the sender and the receiver."""
    value: Any = Text("core")
    refused = False
    for _ in range(150):
        element = StreamElement.of(Data(value))
        try:
            wire.to_json(element)
        except WireError:
            refused = True
            with pytest.raises(WireError, match="nested more than 100 deep"):
                trip(element)
        else:
            assert not refused
            assert trip(element) == element
        value = nest(value)
    assert refused


# --- registering ------------------------------------------------------------------------------------------------------


def test_name_defaults_to_the_import_name() -> None:
    """Without a name a class goes by where it is imported from."""
    found = wire.to_dict(StreamElement.of(ORDER))["content"]["value"]["type"]
    assert found == f"{Order.__module__}.Order"


def test_register_returns_the_class() -> None:
    """As a function and as a decorator, with a name or without, the class is given back."""

    class A(msgspec.Struct):
        x: int

    assert wire.register(A) is A
    assert wire.register(A) is A

    @wire.register(name="tests.B")
    class B(msgspec.Struct):
        x: int

    @wire.register(name="tests.C", encode=lambda c: None, decode=lambda _: C())
    class C:
        pass

    assert wire.from_json(wire.to_json(StreamElement.of(B(1)))).data == B(1)
    assert type(wire.from_json(wire.to_json(StreamElement.of(C()))).data) is C


def test_one_name_for_two_classes_is_refused() -> None:
    """A name stands for one class, and both are named."""

    @wire.register(name="tests.First")
    class First(msgspec.Struct):
        x: int = 0

    class Second(msgspec.Struct):
        x: int = 0

    with pytest.raises(WireError, match=r"'tests\.First' is taken by another class .*First; pass another name="):
        wire.register(Second, "tests.First")
    with pytest.raises(WireError, match=r"Second has no wire form"):
        wire.to_json(StreamElement.of(Second()))
    with pytest.raises(WireError, match=r"First is registered already, under the wire name 'tests\.First'"):
        wire.register(First, "tests.Other")
    assert wire.from_json(wire.to_json(StreamElement.of(First(1)))).data == First(1)


@dataclass
class Seeded:
    x: int
    seed: InitVar[int] = 0


@dataclass(init=False)
class Handmade:
    x: int

    def __init__(self, y: int) -> None:
        self.x = y


class Private(pydantic.BaseModel):
    x: int = 0
    _cache: int = pydantic.PrivateAttr(default=1)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (Unknown, {}, "Unknown is no msgspec struct, dataclass.*pass encode= and decode="),
        (Seeded, {}, "Seeded is not made of its fields alone; pass encode= and decode="),
        (Handmade, {}, "Handmade is not made of its fields alone; pass encode= and decode="),
        (Private, {}, r"Private has private state \(_cache\); pass encode= and decode="),
        (Unknown, {"encode": str}, "both encode= and decode="),
        (Unknown, {"decode": str}, "both encode= and decode="),
        (Text, {}, "Text has a wire form of its own"),
        (StreamElement, {}, "StreamElement has a wire form of its own"),
        (dict, {"encode": list, "decode": dict}, "dict has a wire form of its own"),
        ("tests.Name", {}, "takes a class, got 'tests.Name'"),
        (Item("a"), {}, r"takes a class, got Item\("),
    ],
    ids=["plain", "initvar", "own-init", "private", "encode", "decode", "text", "element", "dict", "name", "object"],
)
def test_what_cannot_be_registered(cls: Any, options: dict[str, Any], message: str) -> None:
    """What would not come back the same is refused with the remedy."""
    with pytest.raises(WireError, match=message):
        wire.register(cls, **options)


def test_pydantic_keeps_what_was_set() -> None:
    """A model comes back with its extra fields, its excluded ones, and the same fields set."""
    for model in (CUSTOMER, Customer(fullName="Bob")):
        again = wire.from_json(wire.to_json(StreamElement.of(model))).data
        assert again == model
        assert again.model_fields_set == model.model_fields_set
        assert again.model_extra == model.model_extra
        assert again.secret == model.secret


def test_a_subclass_in_a_field_keeps_its_class() -> None:
    """A field that is annotated with a base class gives back what was in it."""

    @dataclass
    class Base:
        x: int

    @dataclass
    class Derived(Base):
        y: int

    @dataclass
    class Holder:
        base: Any

    for cls in (Base, Derived, Holder):
        wire.register(cls)
    again = wire.from_json(wire.to_json(StreamElement.of(Holder(Derived(1, 2))))).data
    assert again == Holder(Derived(1, 2))
    assert type(again.base) is Derived


def test_fields_keep_their_exact_values(trip: Trip) -> None:
    """The check of a field changes nothing: an integer in a field for floats stays one."""
    for value in (1, 2**53 + 1, 1.5, nan):
        reading = StreamElement.of(Reading(value, Address(street="Main"), Celsius(20.5)))
        assert same(trip(reading), reading)


def test_a_field_is_never_of_another_type() -> None:
    """Where the check makes a model of a dict, the model is in the field and not the dict."""
    type_name = f"{Reading.__module__}.Reading"
    tree = {"$": "object", "type": type_name, "value": {"value": 1, "place": {"street": "Main"}}}
    assert wire.from_dict(data(tree)).data == Reading(1, Address(street="Main"))
    tree["value"] = {"value": 1, "unit": 20.5}
    with pytest.raises(WireError, match="Celsius"):
        wire.from_dict(data(tree))


class Secretive:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise TypeError("no schema")


@pytest.mark.parametrize("hint", ["NoSuchName", "Secretive", "5"])
def test_annotations_that_mean_nothing(hint: str, trip: Trip) -> None:
    """A class whose annotations cannot be resolved travels all the same, its fields unchecked."""
    cls = make_dataclass("Riddle", [("x", hint)], namespace={"__module__": __name__})
    wire.register(cls, f"tests.Riddle.{hint}.{id(cls)}")
    riddle = StreamElement.of(cls((1, "a")))
    assert trip(riddle) == riddle


def test_a_content_that_is_none_is_refused() -> None:
    """An element that was filled past its own checks is found by the sender."""
    with pytest.raises(WireError, match=r"str is no content; StreamElement\.of"):
        wire.to_json(msgspec.structs.replace(StreamElement.of("a"), content="raw"))


def test_a_failing_encoder_is_a_wire_error() -> None:
    """What a function of the user's raises is the cause of a `WireError`."""

    class Bad:
        pass

    def fail(_: object) -> Any:
        raise ZeroDivisionError("oops")

    wire.register(Bad, "tests.Bad", encode=fail, decode=fail)
    with pytest.raises(WireError, match="ZeroDivisionError: oops") as caught:
        wire.to_json(StreamElement.of(Bad()))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(WireError, match=r"this is no tests\.Bad: ZeroDivisionError: oops"):
        wire.from_dict(data({"$": "object", "type": "tests.Bad", "value": None}))


def test_a_time_zone_with_rules_is_refused() -> None:
    """A zone whose offset changes would be lost, so the sender is told to use UTC."""
    moment = dt.datetime(2024, 5, 6, tzinfo=ZoneInfo("Europe/Berlin"))
    with pytest.raises(WireError, match=r"no fixed offset; travel in UTC"):
        wire.to_json(StreamElement.of(moment))
    assert wire.from_json(wire.to_json(StreamElement.of(moment.astimezone(dt.UTC)))).data == moment


# --- malformed and hostile input --------------------------------------------------------------------------------------

TEXT = {"kind": "text", "text": "a"}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (None, "'rxstage'"),
        ([], "'rxstage'"),
        ("text", "'rxstage'"),
        ({}, "'rxstage'"),
        ({"content": TEXT}, "'rxstage'"),
        ({"rxstage": 1}, "'content'"),
        ({"rxstage": 2, "content": TEXT}, "wire version 2 is unknown to this rxstage, which reads 1"),
        ({"rxstage": "1", "content": TEXT}, "wire version 1"),
        ({"rxstage": True, "content": TEXT}, "wire version True"),
        ({"rxstage": None, "content": TEXT}, "wire version None"),
        (document(TEXT, colour="red"), "element has no field 'colour'"),
        (document(TEXT, origin=3), "only a control has an 'origin'"),
        (document(TEXT, metadata=[]), "metadata"),
        (document(TEXT, metadata=None), "metadata"),
        (document(TEXT, metadata={"$": "tuple", "value": []}), "metadata"),
        (document(TEXT, priority="urgent"), "'urgent' is none of low, normal, high, critical"),
        (document(TEXT, priority=3), "none of low"),
        (document(TEXT, priority=["low"]), "none of low"),
        (document(TEXT, sequence="1"), "sequence"),
        (document(TEXT, sequence=1.0), "sequence"),
        (document(TEXT, timestamp="now"), "timestamp"),
        (document(TEXT, timestamp={}), "timestamp"),
        (document(TEXT, source=None), "source"),
        (document({"kind": "end_of_turn"}, origin="1"), "origin"),
        (document(None), "'kind'"),
        (document([]), "'kind'"),
        (document({}), "'kind'"),
        (document({"kind": "smell"}), "'smell'"),
        (document({"kind": ["text"]}), "'kind'"),
        (document({"kind": "usage"}), "no content of its own"),
        (document({"kind": "text"}), "text"),
        (document({"kind": "text", "text": 5}), "'text' of text cannot be of type int"),
        (document({"kind": "text", "text": None}), "NoneType"),
        (document({"kind": "text", "text": "a", "size": 3}), "text has no field 'size'"),
        (document({"kind": "audio", "samples": "AAE=", "sample_rate": 0}), "above 0 Hz"),
        (document({"kind": "audio", "samples": "AA==", "sample_rate": 8000}), "whole number"),
        (document({"kind": "audio", "samples": "%%%", "sample_rate": 8000}), "Error"),
        (document({"kind": "audio", "samples": "AAE", "sample_rate": 8000}), "padding"),
        (document({"kind": "audio", "samples": "é", "sample_rate": 8000}), "ASCII"),
        (document({"kind": "audio", "samples": [0, 1], "sample_rate": 8000}), "bytes or base64"),
        (document({"kind": "audio", "samples": "", "sample_rate": "8000"}), "'sample_rate' of audio"),
        (document({"kind": "audio", "samples": "", "sample_rate": 8000, "format": "mp3"}), "'mp3' is none of pcm16"),
        (document({"kind": "message", "role": 5}), "'role' of message"),
        (document({"kind": "message", "role": "user", "parts": "abc"}), "array of contents"),
        (document({"kind": "message", "role": "user", "parts": ["abc"]}), "'kind'"),
        (document({"kind": "message", "role": "user", "parts": [{"kind": "usage"}]}), "no content of its own"),
        (document({"kind": "message", "role": "user", "tool_calls": [TEXT]}), "'tool_call'"),
        (document({"kind": "message", "role": "user", "usage": TEXT}), "'kind'"),
        (document({"kind": "message", "role": "user", "usage": {"kind": "usage", "cost": "a"}}), "'cost' of usage"),
        (document({"kind": "tool_call", "name": "f", "arguments": [1]}), "'arguments' of tool_call"),
        (document({"kind": "parts", "parts": {}}), "array of contents"),
        (document({"kind": "failure"}), "error"),
        (document({"kind": "failure", "error": "boom"}), "fields of error"),
        (document({"kind": "failure", "error": {"type": "E"}}), "message"),
        (document({"kind": "failure", "error": {"type": "E", "message": 5}}), "strings"),
        (document({"kind": "failure", "error": {"type": "E", "message": "m", "args": []}}), "no field 'args'"),
        (data({"$": "bytes", "value": 5}), "bytes or base64"),
        (data({"$": "bytes"}), "malformed value"),
        (data({"$": "bytes", "value": "", "more": 1}), "malformed value"),
        (data({"$": "spell", "value": ""}), "malformed value with the tag 'spell'"),
        (data({"$": None, "value": ""}), "malformed value"),
        (data({"$": ["bytes"], "value": ""}), "malformed value"),
        (data({"$": "int", "value": "10"}), "hexadecimal"),
        (data({"$": "int", "value": "0x_1"}), "hexadecimal"),
        (data({"$": "int", "value": 10}), "string"),
        (data({"$": "float", "value": "1.5"}), "not finite"),
        (data({"$": "float", "value": []}), "not finite"),
        (data({"$": "tuple", "value": "ab"}), "expected an array"),
        (data({"$": "set", "value": [1, 1]}), "twice"),
        (data({"$": "set", "value": [[]]}), "unhashable"),
        (data({"$": "dict", "value": [[1, 2], [1, 3]]}), "twice"),
        (data({"$": "dict", "value": ["ab"]}), "pairs"),
        (data({"$": "dict", "value": [[1]]}), "length"),
        (data({"$": "dict", "value": [[[], 1]]}), "unhashable"),
        (data({"$": "dict", "value": 5}), "expected an array"),
        (data({"$": "content", "value": 5}), "'kind'"),
        (data({"$": "element", "value": 5}), "'rxstage'"),
        (data({"$": "object", "value": 5}), "malformed value"),
        (data({"$": "object", "type": "os.system", "value": "true"}), "no class is registered .*'os.system'.*register"),
        (data({"$": "object", "type": "builtins.eval", "value": "1"}), "no class is registered"),
        (data({"$": "object", "type": ["x"], "value": "1"}), "no class is registered"),
        (data({"$": "object", "type": 5, "value": "1"}), "no class is registered"),
    ],
    ids=lambda value: json.dumps(value)[:60] if not isinstance(value, str) else "",
)
def test_malformed_documents(tree: Any, message: str, read: Callable[[Any], StreamElement]) -> None:
    """Whatever is wrong with a document is a `WireError` that says what."""
    with pytest.raises(WireError, match=message):
        read(tree)


ITEM = {"$": "object", "type": f"{Item.__module__}.Item"}
CUSTOMER_TYPE = f"{Customer.__module__}.Customer"


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        (f"{Item.__module__}.Item", None),
        (f"{Item.__module__}.Item", []),
        (f"{Item.__module__}.Item", {}),
        (f"{Item.__module__}.Item", {"code": 5}),
        (f"{Item.__module__}.Item", {"code": "a", "count": "1"}),
        (f"{Item.__module__}.Item", {"code": "a", "colour": "red"}),
        (f"{Item.__module__}.Item", {"code": "a", "__class__": "x"}),
        (f"{Line.__module__}.Line", {"item": {"code": "a"}}),
        (f"{Line.__module__}.Line", {"item": {**ITEM, "value": {"code": "a"}}, "gross": "much"}),
        ("tests.Point", {"at_x": "1"}),
        ("tests.Point", {"at_x": 1, "next_one": {"at_x": 1}}),
        ("tests.Point", {"atX": 1}),
        (CUSTOMER_TYPE, {}),
        (CUSTOMER_TYPE, {"fields": {}}),
        (CUSTOMER_TYPE, {"fields": {"full_name": ""}}),
        (CUSTOMER_TYPE, {"fields": {"full_name": 5}}),
        (CUSTOMER_TYPE, {"fields": {"full_name": "a"}, "set": ["nothing"]}),
        (CUSTOMER_TYPE, {"fields": {"full_name": "a"}, "set": ["full_name"]}),
        (CUSTOMER_TYPE, {"fields": {"full_name": "a"}, "more": 1}),
        (CUSTOMER_TYPE, {"fields": {"full_name": "a", "address": {"road": "b"}}}),
        (f"{Names.__module__}.Names", {"fields": {"root": "ab"}}),
        (f"{Size.__module__}.Size", "HUGE"),
        (f"{Size.__module__}.Size", [1]),
        (f"{Right.__module__}.Right", 64),
        (f"{Right.__module__}.Right", "READ"),
        ("tests.Celsius", "warm"),
        ("datetime.datetime", "yesterday"),
        ("datetime.datetime", 5),
        ("datetime.datetime", ["2024-01-01", 7]),
        ("datetime.time", None),
        ("datetime.timedelta", "long"),
        ("datetime.timedelta", [1e300]),
        ("decimal.Decimal", "much"),
        ("uuid.UUID", "me"),
        ("uuid.UUID", 5),
        ("rxstage.priority.Priority", "URGENT"),
        ("rxstage.element.Metadata", 5),
    ],
)
def test_fields_of_registered_classes_are_checked(
    type_name: str, value: Any, read: Callable[[Any], StreamElement]
) -> None:
    """A registered class is made only of fields that it has, each of its annotated type."""
    with pytest.raises(WireError):
        read(data({"$": "object", "type": type_name, "value": value}))


def test_fields_may_be_left_out() -> None:
    """A sender that does not know a field yet leaves it to its default."""
    tree = data({"$": "object", "type": f"{Item.__module__}.Item", "value": {"code": "a"}})
    assert wire.from_dict(tree).data == Item("a", 1)


def test_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a class leads to the registered one or nowhere."""
    tree = data({"$": "object", "type": "antigravity.Antigravity", "value": {}})

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an import")

    def patched() -> StreamElement:
        with monkeypatch.context() as patches:
            patches.setattr(importlib, "import_module", refuse)
            patches.setattr(builtins, "__import__", refuse)
            return wire.from_dict(tree)

    with pytest.raises(WireError, match="no class is registered"):
        patched()


DEEP = 100_000


@pytest.mark.parametrize(
    ("decode", "encoded"),
    [
        (wire.from_json, b"[" * DEEP),
        (wire.from_json, b"[" * DEEP + b"]" * DEEP),
        (wire.from_json, b'{"rxstage":1,"content":' * DEEP),
        (wire.from_json, b'{"rxstage":1,"content":{"kind":"data","value":' + b"[" * 500 + b"]" * 500 + b"}}"),
        (wire.from_json, b'{"rxstage":1,"content":{"kind":"data","value":' + b'{"a":' * 300 + b"1" + b"}" * 302),
        (wire.from_json, b'{"rxstage":' + b"[" * 300 + b"]" * 300 + b',"content":{}}'),
        (wire.from_json, b'{"rxstage":1,"content":{"kind":' + b"[" * 900 + b"]" * 900 + b"}}"),
        (wire.from_json, b'{"rxstage":1' + b"1" * 10_000 + b',"content":{}}'),
        (wire.from_json, b""),
        (wire.from_json, b"{"),
        (wire.from_json, b"NaN"),
        (wire.from_json, b'"\xff"'),
        (wire.from_json, b'{"rxstage":1,"content":{"kind":"data","value":1e999}}'),
        (wire.from_json, b'{"rxstage":1,"content":{"kind":"text","text":"\\ud800"}}'),
        (wire.from_json, None),
        (wire.from_json, 5),
        (wire.from_msgpack, b"\x91" * DEEP),
        (wire.from_msgpack, b"\xdd\xff\xff\xff\xff"),
        (wire.from_msgpack, b"\xdf\xff\xff\xff\xff"),
        (wire.from_msgpack, b"\xc6\xff\xff\xff\xff"),
        (wire.from_msgpack, b""),
        (wire.from_msgpack, b"\xc1"),
        (wire.from_msgpack, b"\x81\x80\x01"),
        (wire.from_msgpack, msgspec.msgpack.encode({1: 2, "rxstage": 1, "content": TEXT})),
        (wire.from_msgpack, msgspec.msgpack.encode(data(msgspec.msgpack.Ext(5, b"x")))),
        (wire.from_msgpack, msgspec.msgpack.encode(data({1: 2}))),
        (wire.from_msgpack, msgspec.msgpack.encode(data(dt.datetime.now(dt.UTC)))),
        (wire.from_msgpack, None),
        (wire.from_msgpack, "text"),
        (wire.from_dict, data(object())),
        (wire.from_dict, data({1: 2})),
        (wire.from_dict, data(b"x" and (1, 2))),
        (wire.from_dict, document(Text("a"))),
        (wire.from_dict, OrderedDict(document(TEXT))),
    ],
    ids=str,
)
def test_hostile_input(decode: Callable[[Any], StreamElement], encoded: Any) -> None:
    """Data that is cut, deep, huge or of another format is a `WireError`."""
    with pytest.raises(WireError):
        decode(encoded)


def test_nested_hostile_values() -> None:
    """Deep nesting by way of tags, contents and elements is a `WireError` too."""
    for wrap in (
        lambda inner: {"$": "tuple", "value": [inner]},
        lambda inner: {"$": "content", "value": {"kind": "data", "value": inner}},
        lambda inner: {"$": "content", "value": {"kind": "tool_result", "call_id": "", "value": inner}},
        lambda inner: {"$": "element", "value": data(inner)},
        lambda inner: {"$": "object", "type": "tests.Celsius", "value": inner},
        lambda inner: {"$": "dict", "value": [[1, inner]]},
    ):
        value: Any = None
        for _ in range(5000):
            value = wrap(value)
        with pytest.raises(WireError):
            wire.from_dict(data(value))


HOSTILE = st.recursive(
    SCALARS | st.sampled_from(["text", "data", "parts", "set", "object", "AAE=", "nan", "0x1", "tests.Point", "low"]),
    lambda trees: (
        st.lists(trees, max_size=3)
        | st.dictionaries(
            st.text(max_size=3)
            | st.sampled_from(
                ["$", "value", "type", "kind", "text", "parts", "samples", "error", "role", "at_x", "fields"]
            ),
            trees,
            max_size=4,
        )
        | st.builds(
            lambda tag, value: {"$": tag, "value": value},
            st.sampled_from(["bytes", "content", "dict", "element", "float", "int", "tuple", "set", "frozenset"]),
            trees,
        )
        | st.builds(
            lambda cls, value: {"$": "object", "type": cls, "value": value}, st.sampled_from(sorted(wire._NAMES)), trees
        )
        | st.builds(
            lambda kind, fields: {**fields, "kind": kind},
            st.sampled_from(sorted(wire._KINDS)),
            st.dictionaries(
                st.sampled_from(["text", "value", "parts", "role", "error", "samples", "name"]), trees, max_size=3
            ),
        )
        | st.builds(lambda content: document(content), trees)
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=300)
@given(
    HOSTILE, st.dictionaries(st.sampled_from(["metadata", "sequence", "timestamp", "priority"]), HOSTILE, max_size=2)
)
def test_any_structure_is_an_element_or_a_wire_error(content: Any, envelope: dict[str, Any]) -> None:
    """Whatever structure comes in, an element that can travel again comes out, or a `WireError`."""
    for tree in (content, document(content, **envelope), data(content)):
        try:
            element = wire.from_dict(tree)
        except WireError:
            continue
        assert type(element) in (StreamElement, ControlElement)
        assert same(wire.from_msgpack(wire.to_msgpack(element)), element)


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode), st.integers(0, 400), st.binary(max_size=3))
def test_any_bytes_are_an_element_or_a_wire_error(noise: bytes, at: int, patch: bytes) -> None:
    """Noise, and documents with a few bytes changed, give an element or a `WireError`."""
    element = StreamElement.of(Message.user("a", ORDER, Audio(b"\0\1", 8000)), metadata={"a": (1, nan)})
    for decode, encoded in ((wire.from_json, wire.to_json(element)), (wire.from_msgpack, wire.to_msgpack(element))):
        for changed in (noise, encoded[:at] + patch + encoded[at + len(patch) :], encoded[:at]):
            try:
                again = decode(changed)
            except WireError:
                continue
            assert type(again) in (StreamElement, ControlElement)


# --- pydantic ---------------------------------------------------------------------------------------------------------


class Turn(pydantic.BaseModel):
    element: StreamElement
    control: ControlElement | None = None
    history: list[StreamElement] = []


TURN = Turn(
    element=StreamElement.of(Audio(b"\0\1", 8000), timestamp=inf, metadata={"a": (1,)}),
    control=cast("ControlElement", StreamElement.interrupt("x")),
    history=[StreamElement.of("a"), StreamElement.end_of_turn()],
)


def test_a_model_holds_the_element_itself() -> None:
    """In python mode an element goes in and comes out as the same object."""
    assert TURN.model_dump()["element"] is TURN.element
    assert Turn.model_validate({"element": TURN.element}).element is TURN.element
    assert type(TURN.control) is ControlElement


def test_a_model_writes_the_wire_form_to_json() -> None:
    """In JSON an element of a model is its wire document, and comes back from it."""
    expected = wire.to_dict(TURN.element)
    assert TURN.model_dump(mode="json")["element"] == expected
    assert json.loads(TURN.model_dump_json())["element"] == expected
    again = Turn.model_validate_json(TURN.model_dump_json())
    assert again == TURN
    assert [type(element) for element in again.history] == [StreamElement, ControlElement]


def test_a_model_takes_the_wire_form_in_python() -> None:
    """A dict of the wire form is an element in python mode too."""
    assert Turn.model_validate(TURN.model_dump(mode="json")) == TURN


@pytest.mark.parametrize(
    "value", ["raw", 5, None, {}, Text("a"), {"rxstage": 2, "content": TEXT}, document({"kind": "smell"})], ids=repr
)
def test_a_model_takes_nothing_else(value: Any) -> None:
    """A raw value or a malformed document is a `ValidationError` that says how to make an element."""
    with pytest.raises(pydantic.ValidationError, match=r"make one with StreamElement\.of"):
        Turn(element=value)


def test_a_control_field_takes_only_controls() -> None:
    """A field of the class `ControlElement` refuses content, as an object and in JSON."""
    for value in (StreamElement.of("a"), wire.to_dict(StreamElement.of("a"))):
        with pytest.raises(pydantic.ValidationError, match="expected a control, got Text"):
            Turn.model_validate({"element": TURN.element, "control": value})


def test_a_model_cannot_write_what_does_not_travel() -> None:
    """A value without a wire form is an error of the dump that names the class."""
    with pytest.raises(PydanticSerializationError, match=r"Unknown has no wire form; .*wire\.register"):
        Turn(element=StreamElement.of(Unknown())).model_dump_json()


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_a_model_has_a_json_schema(mode: Any) -> None:
    """The JSON schema of a model describes the wire document."""
    schema = Turn.model_json_schema(mode=mode)["properties"]["element"]
    assert {"rxstage", "content"} == set(schema["required"])
    assert schema["properties"]["rxstage"]["const"] == 1
    assert schema["properties"]["priority"]["enum"] == ["low", "normal", "high", "critical"]
    assert set(schema["properties"]) == {*wire.to_dict(TURN.element), "origin"}
    kinds = schema["properties"]["content"]["properties"]["kind"]["enum"]
    assert len(kinds) == len(CONTENT_KINDS | CONTROL_KINDS)
