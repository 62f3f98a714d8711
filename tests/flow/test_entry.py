"""The door into an execution."""

from __future__ import annotations

import pytest
from wiring import Out, make_scope

from rxstage import Audio, EndOfStream, EndOfTurn, Priority, StreamElement
from rxstage.flow.entry import Entry


def entry(keeps: bool = False) -> tuple[Entry, Out, list[str]]:
    out, ends = Out(), []
    return Entry(make_scope(), out.port(), lambda: ends.append("end"), keeps), out, ends


@pytest.mark.parametrize(
    "value", ["a", None, 0, Audio(b"", 8000), StreamElement.of("x", metadata={"k": 1}), ValueError()]
)
def test_stamps(value: object) -> None:
    """Whatever enters is an element with the next number and the time; the rest of its envelope stays."""
    door, out, _ = entry()
    door.enter("first")
    door.enter(value)
    element = out.elements[1]
    expected = StreamElement.of(value)
    assert (element.sequence, element.timestamp) == (2, 12.5)
    assert element.replace(sequence=0, timestamp=0.0) == expected
    assert element.__class__ is expected.__class__
    assert door.received == 2


def test_a_control_from_outside() -> None:
    """A control that was made in another execution belongs to this one from here on."""
    door, out, _ = entry()
    door.enter(StreamElement(EndOfTurn(), sequence=99).replace(origin=7))
    assert (out.elements[0].sequence, out.elements[0].origin) == (1, 0)  # type: ignore[attr-defined]


def test_nested() -> None:
    """Inside another execution numbers and times stay; only what has none gets one."""
    door, out, _ = entry(keeps=True)
    door.enter(StreamElement.of("a", sequence=40, timestamp=3.0))
    door.enter("b")
    door.enter(StreamElement(EndOfTurn(), sequence=41, timestamp=4.0))
    assert [(e.sequence, e.timestamp) for e in out.elements] == [(40, 3.0), (1, 12.5), (41, 4.0)]


@pytest.mark.parametrize("keeps", [False, True])
def test_end_of_stream(keeps: bool) -> None:
    """An EndOfStream asks for the end and is neither counted nor handed on."""
    door, out, ends = entry(keeps)
    door.enter(StreamElement.end_of_stream())
    door.enter(EndOfStream())
    assert ends == ["end", "end"]
    assert out.elements == []
    assert door.received == 0


def test_closed() -> None:
    """After the end nothing enters, and there is one end."""
    door, out, _ = entry()
    door.enter("a")
    door.end()
    door.end()
    door.enter("b")
    door.enter(StreamElement(EndOfTurn(), priority=Priority.LOW))
    assert out.names == ["a"]
    assert out.dones == 1
    assert door.closed
