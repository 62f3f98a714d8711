"""The envelope: how it is made, changed, copied and read, and which class it has."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rxstage.element
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
)
from rxstage.element import ControlElement, Metadata, StreamElement, stamped
from rxstage.priority import Priority

PLAIN: list[Any] = [
    Text("hi"),
    Audio(b"\0\1", 16000),
    Image(b"png"),
    Video(b"mp4"),
    Message.user("hi"),
    ToolCall("add"),
    ToolResult("call-1"),
    Parts(("a",)),
    Data(1),
]
CONTROLS: list[Any] = [Failure(ValueError("boom"), "upper"), EndOfTurn(), Interrupt("barge-in"), EndOfStream()]
ENVELOPE: dict[str, Any] = {
    "metadata": {"a": 1},
    "priority": Priority.LOW,
    "sequence": 7,
    "timestamp": 1.5,
    "source": "stt",
}


def kind(content: Any) -> str:
    return type(content).__name__


def fields(element: StreamElement) -> dict[str, Any]:
    return {name: getattr(element, name) for name in ENVELOPE}


def class_of(content: Any) -> type[StreamElement]:
    return ControlElement if type(content) in CONTROL_KINDS else StreamElement


def test_every_kind_is_tried() -> None:
    """The lists of this file cover all kinds."""
    assert {type(content) for content in PLAIN} == CONTENT_KINDS
    assert {type(content) for content in CONTROLS} == CONTROL_KINDS


# --- class identity ---------------------------------------------------------------------------------------------------

TEXT: StreamElement = StreamElement.of("before", **ENVELOPE)
TURN: StreamElement = StreamElement.end_of_turn(**ENVELOPE)
WAYS: dict[str, Callable[[Any], StreamElement]] = {
    "of": StreamElement.of,
    "of-with-envelope": lambda content: StreamElement.of(content, source="stt"),
    "of-element": lambda content: StreamElement.of(StreamElement.of(content)),
    "of-element-with-envelope": lambda content: StreamElement.of(StreamElement.of(content), source="stt"),
    "call": lambda content: StreamElement(content),
    "call-with-envelope": lambda content: StreamElement(content, **ENVELOPE),
    "call-of-the-control-class": lambda content: ControlElement(content),
    "replace-in-content": lambda content: TEXT.replace(content=content),
    "replace-in-content-with-envelope": lambda content: TEXT.replace(content=content, **ENVELOPE),
    "replace-in-control": lambda content: TURN.replace(content=content),
    "replace-in-control-with-envelope": lambda content: TURN.replace(content=content, **ENVELOPE),
    "replace-envelope": lambda content: StreamElement.of(content).replace(**ENVELOPE),
    "replace-nothing": lambda content: StreamElement.of(content).replace(),
    "replace-protocol": lambda content: TEXT.__replace__(content=content),
    "pickle": lambda content: pickle.loads(pickle.dumps(StreamElement.of(content))),
    "pickle-2": lambda content: pickle.loads(pickle.dumps(StreamElement.of(content), 2)),
    "copy": lambda content: copy.copy(StreamElement.of(content)),
    "deepcopy": lambda content: copy.deepcopy(StreamElement.of(content)),
}
if sys.version_info >= (3, 13):
    WAYS["copy-replace"] = lambda content: copy.replace(TEXT, content=content)
    WAYS["copy-replace-in-control"] = lambda content: copy.replace(TURN, content=content)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("content", PLAIN + CONTROLS, ids=kind)
def test_class_tells_controls_apart(content: Any, way: str) -> None:
    """An element is exactly a `ControlElement` if its content is a control, however it was made."""
    element = WAYS[way](content)
    assert type(element) is class_of(content)
    assert type(element.content) is type(content)
    assert element.is_control is (type(content) in CONTROL_KINDS)
    assert type(element.metadata) is Metadata
    assert type(element.priority) is Priority
    if type(content) is not Failure:
        assert element.content == content


def test_class_cannot_be_subclassed() -> None:
    """A subclass, whose elements the engine would not know, is refused with the remedy."""
    with pytest.raises(TypeError, match="Mine: StreamElement cannot be subclassed; use metadata, or Data"):

        class Mine(StreamElement, frozen=True):
            pass


# --- making -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", PLAIN + CONTROLS, ids=kind)
def test_default_priority(content: Any) -> None:
    """Audio and video are HIGH, controls CRITICAL, all else NORMAL, however the element is made."""
    expected = Priority.HIGH if type(content) in (Audio, Video) else Priority.NORMAL
    if type(content) in CONTROL_KINDS:
        expected = Priority.CRITICAL
    for element in (
        StreamElement.of(content),
        StreamElement(content),
        StreamElement(content, source="stt"),
        StreamElement.of(content, sequence=1),
    ):
        assert element.priority is expected


@pytest.mark.parametrize("make", [StreamElement.of, StreamElement], ids=["of", "call"])
@pytest.mark.parametrize(
    ("value", "content"),
    [("hi", Text("hi")), (5, Data(5)), (None, Data(None)), ([1], Data([1])), (Text, Data(Text))],
    ids=["str", "int", "none", "list", "class"],
)
def test_raw_values_become_contents(make: Any, value: Any, content: Any) -> None:
    """`of`, a direct call and `replace` take a raw value for the content that it stands for."""
    assert make(value).content == content
    assert make(value, source="stt").content == content
    assert StreamElement.of(b"before").replace(content=value).content == content
    assert StreamElement.end_of_turn().replace(content=value).content == content


def test_exception_becomes_a_failure() -> None:
    """An exception is a control that holds it."""
    error = ValueError("boom")
    element = StreamElement.of(error)
    assert type(element) is ControlElement
    assert element.content == Failure(error, "")
    assert element.failure is element.content


def test_of_an_element_is_the_element() -> None:
    """An element stays the same object, and a copy only if the envelope changes."""
    for element in (TEXT, TURN):
        assert StreamElement.of(element) is element
        assert StreamElement.of(element, source="tts") == element.replace(source="tts")


def test_envelope_is_taken_over() -> None:
    """Every field of the envelope can be set where an element is made."""
    for element in (
        StreamElement.of("hi", **ENVELOPE),
        StreamElement.of(3, **ENVELOPE),
        StreamElement(Text("hi"), **ENVELOPE),
        StreamElement.end_of_turn(**ENVELOPE),
        StreamElement.interrupt("barge-in", **ENVELOPE),
        StreamElement.end_of_stream(**ENVELOPE),
        StreamElement.of(ValueError(), **ENVELOPE),
    ):
        assert fields(element) == ENVELOPE


def test_defaults_of_the_envelope() -> None:
    """Before it enters an execution an element has no number, time or source."""
    assert fields(StreamElement.of("hi")) == {
        "metadata": {},
        "priority": Priority.NORMAL,
        "sequence": 0,
        "timestamp": 0.0,
        "source": "",
    }


def test_controls_by_name() -> None:
    """Each control has its own constructor."""
    assert StreamElement.end_of_turn().content == EndOfTurn()
    assert StreamElement.end_of_stream().content == EndOfStream()
    assert StreamElement.interrupt().content == Interrupt("")
    assert StreamElement.interrupt("barge-in").content == Interrupt("barge-in")


def test_origin_is_kept_by_controls_alone() -> None:
    """A control knows the node that made it, and keeps it while it stays a control."""
    made: Any = StreamElement
    control = made(EndOfTurn(), origin=3)
    assert control.origin == 3
    assert pickle.loads(pickle.dumps(control)).origin == 3
    assert copy.copy(control).origin == copy.deepcopy(control).origin == 3
    assert control.replace(source="a").origin == 3
    assert control.replace(content=Interrupt()).origin == 3
    assert control.replace(origin=4).origin == 4
    assert not hasattr(control.replace(content="text"), "origin")
    assert made(Text("a"), origin=3) == StreamElement.of("a")


@pytest.mark.parametrize(
    "make",
    [
        lambda: StreamElement.of("hi", colour="red"),  # type: ignore[call-arg]
        lambda: StreamElement.of(TEXT, colour="red"),  # type: ignore[call-arg]
        lambda: StreamElement("hi", colour="red"),  # type: ignore[call-arg]
        lambda: TEXT.replace(colour="red"),  # type: ignore[call-arg]
        lambda: TEXT.replace(content=EndOfTurn(), colour="red"),  # type: ignore[call-arg]
        lambda: TEXT.replace(origin=3),
        lambda: TURN.replace(content="a", origin=3),
        lambda: StreamElement(),  # type: ignore[call-arg]
    ],
    ids=["of", "of-element", "call", "replace", "replace-over", "origin", "origin-over", "nothing"],
)
def test_unknown_fields_are_refused(make: Callable[[], object]) -> None:
    """A field that there is not is a `TypeError`."""
    with pytest.raises(TypeError):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda priority: StreamElement.of("hi", priority=priority),
        lambda priority: StreamElement(Text("hi"), priority=priority),
        lambda priority: TEXT.replace(priority=priority),
        lambda priority: TEXT.replace(content="hi", priority=priority),
    ],
    ids=["of", "call", "replace", "replace-both"],
)
def test_priority_by_number(make: Callable[[Any], StreamElement]) -> None:
    """A number stands for its priority, and one that is none is refused."""
    assert make(3).priority is Priority.CRITICAL
    with pytest.raises(ValueError, match="9 is not a valid Priority"):
        make(9)


# --- replacing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("element", [TEXT, TURN], ids=["content", "control"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("metadata", {"b": 2}), ("priority", Priority.HIGH), ("sequence", 8), ("timestamp", 2.5), ("source", "tts")],
)
def test_replace_changes_one_field(element: StreamElement, field: str, value: Any) -> None:
    """`replace` gives a copy with that field changed and leaves the original alone."""
    before = fields(element)
    changed = element.replace(**{field: value})
    assert fields(changed) == {**before, field: value}
    assert changed.content is element.content
    assert fields(element) == before


@pytest.mark.parametrize("content", PLAIN, ids=kind)
def test_replace_keeps_the_envelope_of_content(content: Any) -> None:
    """Content for content keeps all of the envelope, the priority too."""
    assert fields(TEXT.replace(content=content)) == ENVELOPE


@pytest.mark.parametrize("content", CONTROLS, ids=kind)
def test_replace_keeps_the_envelope_of_a_control(content: Any) -> None:
    """A control for a control keeps all of the envelope, the priority too."""
    assert fields(TURN.replace(content=content)) == ENVELOPE


@pytest.mark.parametrize(
    ("element", "content", "priority"),
    [
        (TEXT, EndOfTurn(), Priority.CRITICAL),
        (TURN, Text("a"), Priority.NORMAL),
        (TURN, Audio(b"", 16000), Priority.HIGH),
        (TURN, "raw", Priority.NORMAL),
        (TEXT, ValueError(), Priority.CRITICAL),
    ],
    ids=["to-control", "to-text", "to-audio", "to-raw", "to-failure"],
)
def test_replace_over_the_border_sets_the_priority(element: StreamElement, content: Any, priority: Priority) -> None:
    """Between content and control the priority becomes the new kind's, unless it is given; all else stays."""
    assert fields(element.replace(content=content)) == {**ENVELOPE, "priority": priority}
    given = element.replace(content=content, priority=Priority.LOW, source="tts")
    assert fields(given) == {**ENVELOPE, "priority": Priority.LOW, "source": "tts"}


def test_replace_with_nothing_is_equal() -> None:
    """Without changes the copy equals the original."""
    assert TEXT.replace() == TEXT
    assert TURN.replace() == TURN


def test_replace_with_none_is_data() -> None:
    """None is a value like any other: it becomes `Data`."""
    assert TEXT.replace(content=None).content == Data(None)


# --- being a value ----------------------------------------------------------------------------------------------------


def test_elements_are_frozen() -> None:
    """No field of an element can be set or deleted."""
    for name in ("content", *ENVELOPE):
        with pytest.raises(AttributeError):
            setattr(TEXT, name, None)
        with pytest.raises(AttributeError):
            delattr(TEXT, name)


def test_elements_are_equal_by_value() -> None:
    """Elements are equal if all fields are, and then have the same hash."""
    assert StreamElement.of("hi", **ENVELOPE) == StreamElement.of("hi", **ENVELOPE)
    assert hash(StreamElement.of("hi", **ENVELOPE)) == hash(StreamElement.of("hi", **ENVELOPE))
    assert StreamElement.of("hi") != StreamElement.of("ho")
    assert StreamElement.of("hi") != StreamElement.of("hi", metadata={"a": 1})
    assert len({StreamElement.of("hi"), StreamElement.of("hi"), StreamElement.end_of_turn()}) == 2


@given(
    st.text() | st.integers() | st.lists(st.text()),
    st.dictionaries(st.text(), st.integers() | st.text()),
    st.sampled_from(Priority),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
)
def test_elements_pickle(
    value: Any, metadata: Any, priority: Priority, sequence: int, time: float, source: str
) -> None:
    """An element comes back from pickle as it was."""
    element: StreamElement = StreamElement(value, metadata, priority, sequence, time, source)
    again = pickle.loads(pickle.dumps(element))
    assert again == element
    assert type(again) is StreamElement
    assert type(again.metadata) is Metadata
    assert again.priority is priority


def test_deepcopy_is_deep() -> None:
    """A deep copy shares no mutable value with the original, a shallow one does."""
    element = StreamElement.of([1], metadata={"a": [2]})
    deep, shallow = copy.deepcopy(element), copy.copy(element)
    assert deep == shallow == element
    assert deep.data is not element.data
    assert deep.metadata["a"] is not element.metadata["a"]
    assert shallow.data is element.data


# --- reading ----------------------------------------------------------------------------------------------------------

VIEWS = {
    "text": Text,
    "audio": Audio,
    "video": Video,
    "image": Image,
    "message": Message,
    "tool_call": ToolCall,
    "tool_result": ToolResult,
    "parts": Parts,
    "data": Data,
    "failure": Failure,
}


@pytest.mark.parametrize("content", PLAIN + CONTROLS, ids=kind)
def test_views_by_kind(content: Any) -> None:
    """The property of its kind gives the content (or what is in it), all others give None."""
    element = StreamElement.of(content)
    inside = {Text: "text", Parts: "parts", Data: "value"}
    for name, cls in VIEWS.items():
        expected = None
        if type(content) is cls:
            expected = getattr(content, inside[cls]) if cls in inside else content
        assert getattr(element, name) is expected


def test_payload() -> None:
    """The payload is the bare value of text and data, and the content of all else."""
    assert StreamElement.of("hi").payload == "hi"
    assert StreamElement.of(5).payload == 5
    assert StreamElement.end_of_turn().payload == EndOfTurn()


# --- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.__setitem__("a", 2),
        lambda m: m.__delitem__("a"),
        lambda m: m.clear(),
        lambda m: m.pop("a"),
        lambda m: m.popitem(),
        lambda m: m.setdefault("b", 2),
        lambda m: m.update(b=2),
        lambda m: m.__ior__({"b": 2}),
    ],
    ids=["set", "delete", "clear", "pop", "popitem", "setdefault", "update", "ior"],
)
def test_metadata_is_immutable(change: Callable[[Any], object]) -> None:
    """Every way to change metadata in place is refused, with the remedy."""
    metadata = StreamElement.of("hi", metadata={"a": 1}).metadata
    with pytest.raises(TypeError, match=r"immutable; use element\.replace\(metadata="):
        change(metadata)
    assert metadata == {"a": 1}


def test_metadata_takes_no_attributes() -> None:
    """Nothing can be hung on metadata."""
    with pytest.raises(AttributeError):
        Metadata(a=1).b = 2  # type: ignore[attr-defined]


def test_metadata_is_the_elements_own() -> None:
    """Later changes to the mapping that it was made of do not show."""
    given: dict[str, Any] = {"a": 1}
    elements = [
        StreamElement.of("hi", metadata=given),
        StreamElement(Text("hi"), given),
        StreamElement.of("hi").replace(metadata=given),
        StreamElement.of("hi").replace(content="ho", metadata=given),
    ]
    given["a"] = 2
    assert [element.metadata for element in elements] == [{"a": 1}] * 4
    assert {type(element.metadata) for element in elements} == {Metadata}


def test_metadata_is_shared_by_copies() -> None:
    """What is immutable already is not copied again."""
    element = StreamElement.of("hi", metadata={"a": 1})
    assert element.replace(content="ho").metadata is element.metadata
    assert element.replace(content=EndOfTurn()).metadata is element.metadata
    assert StreamElement.of("ho", metadata=element.metadata).metadata is element.metadata


def test_metadata_joins_to_a_dict() -> None:
    """Metadata merges like a mapping, into a plain dict that can be given to `replace`."""
    metadata = Metadata(a=1)
    merged = metadata | {"b": 2}
    assert merged == {**metadata, "b": 2} == {"a": 1, "b": 2}
    assert type(merged) is dict
    assert StreamElement.of("hi").replace(metadata=merged).metadata == merged


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: pickle.loads(pickle.dumps(m, 2))],
    ids=["copy", "deepcopy", "pickle", "pickle-2"],
)
def test_metadata_pickles_and_copies(again: Callable[[Metadata], Metadata]) -> None:
    """Copies of metadata are metadata, and equal."""
    metadata = Metadata(a=[1], b="c")
    assert again(metadata) == metadata
    assert type(again(metadata)) is Metadata


def test_metadata_hashes_by_keys() -> None:
    """Equal metadata have equal hashes, even where values cannot be hashed."""
    assert hash(Metadata(a=[1], b=2)) == hash(Metadata(b=2, a=[1]))


# --- entering an execution --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [*PLAIN, *CONTROLS, "raw", 5, TEXT, TURN], ids=kind)
def test_stamped_is_of_with_number_and_time(value: Any) -> None:
    """What enters an execution is numbered and timed, and is otherwise what `of` makes of it."""
    element = stamped(value, 3, 4.5)
    assert element == StreamElement.of(value, sequence=3, timestamp=4.5)
    assert type(element) is type(StreamElement.of(value))


def test_stamped_forgets_the_origin() -> None:
    """A control that comes in from outside has no origin in this graph, whatever it had."""
    control = TURN.replace(origin=3)
    assert getattr(stamped(control, 1, 2.0), "origin") == 0


# --- imports ----------------------------------------------------------------------------------------------------------


def test_element_needs_neither_pydantic_nor_wire() -> None:
    """The module itself imports only what is cheap; pydantic and the wire forms come when asked for."""
    script = (
        "import sys, types\n"
        "package = types.ModuleType('rxstage')\n"
        "package.__path__ = [sys.argv[1]]\n"
        "sys.modules['rxstage'] = package\n"
        "import rxstage.element\n"
        "loaded = {'pydantic', 'pydantic_core', 'rxstage.wire', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    package = Path(rxstage.element.__file__).parent
    done = subprocess.run([sys.executable, "-c", script, str(package)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
