"""What the providers share: values as JSON, calls, what is remembered, strict schemas, events of a stream."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from rxstage import Audio, Message, ToolCall
from rxstage.adapters._errors import provider_error, retry_after
from rxstage.adapters._messages import Remembered, call_of, calls_of, json_text, wav
from rxstage.adapters._schema import strict_schema
from rxstage.adapters._sse import EventData
from rxstage.content import AudioFormat
from rxstage.ports import ProviderError, ProviderTimeout


class Model(BaseModel):
    """A model of pydantic."""

    day: date


class Frozen(msgspec.Struct, frozen=True):
    """A struct of msgspec."""

    number: int


@dataclasses.dataclass
class Plain:
    """A dataclass."""

    text: str


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ({"a": [1, None, True]}, '{"a":[1,null,true]}'),
        (Model(day=date(2020, 1, 2)), '{"day":"2020-01-02"}'),
        (Frozen(7), '{"number":7}'),
        ([Plain("ü")], '[{"text":"ü"}]'),
        (float("nan"), '"NaN"'),
    ],
)
def test_values_as_json(value: object, text: str) -> None:
    """What tools give and users send has a JSON form, whatever library it is made with."""
    assert json_text(value) == text


def test_a_value_without_a_json_form() -> None:
    """A value that has none is an error that names its type."""
    with pytest.raises(ValueError, match="a object has no JSON form for a model"):
        json_text(object())


@pytest.mark.parametrize(
    ("written", "arguments"),
    [("", {}), ("  ", {}), ('{"a": 1}', {"a": 1}), ("null", {"": "null"}), ("{'a': 1}", {"": "{'a': 1}"})],
)
def test_arguments(written: str, arguments: dict[str, Any]) -> None:
    """Arguments are what was written, decoded; what is no JSON object stands under an empty name."""
    assert call_of("f", written, "1") == ToolCall("f", arguments, "1")


def test_calls_among_the_parts() -> None:
    """Calls among the parts of a message count, each once."""
    one, two = ToolCall("f", {}, "1"), ToolCall("g", {}, "2")
    assert calls_of(Message("assistant", (one, two), tool_calls=(two,))) == (one, two)


def test_what_is_remembered_is_bounded() -> None:
    """The oldest is forgotten first, and another call of the same id is another call."""
    memory = Remembered(limit=2)
    calls = [ToolCall("f", {"n": number}, "0") for number in range(3)]
    for number, call in enumerate(calls):
        memory.keep(call, number + 1)
    assert [memory.of((call,)) for call in calls] == [None, 2, 3]
    assert memory.of(calls) == 2
    assert memory.of(()) is None


_STRICT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {**_STRICT, "required": []},
        {**_STRICT, "additionalProperties": True},
        {**_STRICT, "properties": {"a": {"type": "string", "default": "x"}}},
        {**_STRICT, "properties": {"a": {"oneOf": [{"type": "string"}]}}},
        {**_STRICT, "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {"b": {}}}}}},
    ],
)
def test_schemas_that_are_not_strict(schema: dict[str, Any]) -> None:
    """What allows more than the strict form has is left as it is."""
    assert strict_schema(schema) is None


def test_a_strict_schema() -> None:
    """Every object in it is closed, in lists, in alternatives and in definitions, too."""
    schema = {
        **_STRICT,
        "properties": {"a": {"anyOf": [_STRICT, {"type": "null"}]}, "b": {"type": "array", "items": _STRICT}},
        "required": ["a", "b"],
        "$defs": {"C": _STRICT},
    }
    made = strict_schema(schema)
    assert made is not None
    closed = {**_STRICT, "additionalProperties": False}
    assert made["additionalProperties"] is False
    assert made["properties"]["a"]["anyOf"][0] == closed
    assert made["properties"]["b"]["items"] == closed
    assert made["$defs"]["C"] == closed
    assert "additionalProperties" not in _STRICT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 01 Jan 2020 00:01:30 GMT", "date": "Wed, 01 Jan 2020 00:00:00 GMT"}, 90.0),
        ({"retry-after": "Wed, 01 Jan 2020 00:00:00 GMT"}, 0.0),
    ],
)
def test_when_to_try_again(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and dates are understood, and nonsense is not."""
    assert retry_after(headers) == seconds


def test_an_error_that_nobody_knows() -> None:
    """What is neither of the wire nor of the API is told as what it is, and no other try will help."""
    made = provider_error(TypeError("no such option"), provider="x", model="m")
    assert (str(made), made.retryable, made.status) == ("the call of x failed: no such option", False, None)


def test_what_caused_an_error_counts_and_what_was_before_it_does_not() -> None:
    """An error is judged by what it was raised from, not by what somebody was busy with when it was raised."""
    error = ValueError("other")
    error.__context__ = type("APITimeoutError", (Exception,), {})()
    assert type(provider_error(error, provider="x", model="m")) is ProviderError
    error.__cause__ = error.__context__
    assert type(provider_error(error, provider="x", model="m")) is ProviderTimeout


def test_the_events_of_a_stream() -> None:
    """Data of several lines is one, comments and names are left out, and an event without an end is none."""
    events = EventData()
    assert events.feed(b": hello\nevent: x\ndata: 1\n\ndata:2\r\n\r\nda") == [b"1", b"2"]
    assert events.feed(b"ta: 3\ndata: 4\nid: 7\n\n\ndata: 5") == [b"3\n4"]
    assert events.feed(b"\n") == []
    assert events.feed(b"\n") == [b"5"]


def test_a_line_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends one line for ever is stopped."""
    monkeypatch.setattr("rxstage.adapters._sse._LONGEST", 10)
    events = EventData()
    events.feed(b"data: 1234")
    with pytest.raises(ValueError, match="longer than 10 bytes"):
        events.feed(b"5")


@pytest.mark.parametrize(
    ("form", "code", "bits"),
    [(AudioFormat.PCM16, 1, 16), (AudioFormat.PCM32, 1, 32), (AudioFormat.FLOAT32, 3, 32), (AudioFormat.MULAW, 7, 8)],
)
def test_samples_as_wav(form: AudioFormat, code: int, bits: int) -> None:
    """Every form of samples has its header: what it is, channels, rate, width, length."""
    made = wav(Audio(b"\1" * 16, 8000, 2, form))
    numbers = [int.from_bytes(made[at : at + size], "little") for at, size in ((20, 2), (22, 2), (24, 4), (34, 2))]
    assert numbers == [code, 2, 8000, bits]
    assert int.from_bytes(made[4:8], "little") == len(made) - 8
    assert made[40:] == (16).to_bytes(4, "little") + b"\1" * 16
