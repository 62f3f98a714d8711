"""Results and errors as a model is told them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from msgspec import Struct
from pydantic import BaseModel

from rxstage import wire
from rxstage.content import Audio, Data, Image, Message, Parts, Text, ToolResult
from rxstage.element import StreamElement
from rxstage.tools import Progress
from rxstage.tools.result import cut, in_words, presentable


class Model(BaseModel):
    """Of pydantic."""

    when: dt.date
    price: Decimal


class Record(Struct):
    """Of msgspec."""

    name: str
    tags: set[str] = set()


@dataclasses.dataclass
class Point:
    """On a plane."""

    x: int


class Color(enum.Enum):
    """Of cars."""

    RED = "red"


class Opaque:
    """Nothing that JSON has."""

    def __str__(self) -> str:
        return "opaque"


class Mute:
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError


class Array:
    """As numpy has them."""

    def tolist(self) -> list[int]:
        return [1, 2]


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (1.5, 1.5),
        ("text", "text"),
        (Text("text"), "text"),
        (Data({"a": 1}), {"a": 1}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ({1: "a"}, {"1": "a"}),
        ([Model(when=dt.date(2030, 1, 2), price=Decimal("1.50"))], [{"when": "2030-01-02", "price": "1.50"}]),
        (Record("a", {"b"}), {"name": "a", "tags": ["b"]}),
        (Point(1), {"x": 1}),
        (Color.RED, "red"),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Array(), [1, 2]),
        ({"x": Opaque()}, {"x": "opaque"}),
        (float("nan"), "NaN"),
        ([float("inf")], ["Infinity"]),
        (b"\x00\xff", "AP8="),
        (10**30, 10**30),
        ("a\ud800b", "a?b"),
        (["a\ud800b"], "['a\\ud800b']"),
        (CIRCLE, "[[...]]"),
        (Mute(), "a Mute that cannot be shown"),
    ],
)
def test_values(value: Any, shown: Any) -> None:
    """Values of all kinds become plain JSON; what has no such form becomes its text, and nothing raises."""
    result = presentable(value, 1000)
    assert result == shown
    assert type(result) is type(shown)
    wire.from_json(wire.to_json(StreamElement.of(ToolResult("1", result))))


@pytest.mark.parametrize("levels", [65, 200, 900, 3000, 100_000])
def test_deep_values(levels: int) -> None:
    """What is nested deeper than stores and models have room for becomes text."""
    deep: Any = []
    for _ in range(levels):
        deep = [deep]
    result = presentable(deep, 1000)
    assert isinstance(result, str)
    assert len(result) < 1100
    while deep:  # so that it is not taken apart by recursion
        deep = deep[0]


def test_values_that_are_not_too_deep() -> None:
    """What is nested less, or has many parts side by side, stays what it is."""
    deep: Any = {"x": 1}
    for _ in range(62):
        deep = [deep]
    values: list[Any] = [deep, [[]] * 200, [{"a": [1]}] * 50]
    for value in values:
        assert presentable(value, 1000) == value
        element = StreamElement.of(ToolResult("1", presentable(value, 1000)))
        assert wire.from_json(wire.to_json(element)) == element


PIXEL = Image(b"png", "image/png", 1, 1)
SOUND = Audio(b"\x00\x00" * 10, 8000)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (PIXEL, Parts((PIXEL,))),
        (SOUND, Parts((SOUND,))),
        (["a", PIXEL, {"b": 1}], Parts((Text("a"), PIXEL, Text('{"b":1}')))),
        (Parts(("a", PIXEL)), Parts((Text("a"), PIXEL))),
        (Message.user("a", PIXEL), Parts((Text("a"), PIXEL))),
        ([Text("a"), Text("b")], Parts((Text("a"), Text("b")))),
    ],
)
def test_images(value: Any, shown: Parts) -> None:
    """Images and sound stay what they are, among texts."""
    assert presentable(value, 1000) == shown


def test_long_results() -> None:
    """What is too long is cut, and says how much of it is there."""
    assert presentable("x" * 50, 10) == "xxxxxxxxxx\n[cut: these are the first 10 of 50 characters]"
    assert presentable({"a": "x" * 50}, 10) == '{"a":"xxxx\n[cut: these are the first 10 of 58 characters]'
    assert presentable({"a": "é" * 10}, 18) == {"a": "é" * 10}
    assert presentable(Parts(("x" * 50, "y", PIXEL)), 10).parts == (
        Text("xxxxxxxxxx\n[cut: these are the first 10 of 50 characters]"),
        Text("[cut: 2 more parts]"),
    )
    assert len(presentable(Parts(("",) * 1000), 10).parts) == 11
    assert len(presentable(Parts((PIXEL,) * 1000), 10).parts) == 11
    huge = Image(b"x" * 20_000_001)
    assert presentable(huge, 1000) == Parts((Text("[left out: image of 20000001 bytes]"),))


def test_cut() -> None:
    """Text that is short enough is left as it is; what is no Unicode is replaced."""
    assert cut("ünï", 3) == "ünï"
    assert cut("\udcff", 3) == "?"


class Loud(Exception):
    """Has a long text."""

    def __str__(self) -> str:
        return "x" * 10_000


def _os_error() -> OSError:
    try:
        open("/root/.secret/key.pem")  # noqa: SIM115
    except OSError as error:
        return error
    raise AssertionError


def _validation() -> Exception:
    try:
        Model.model_validate({"when": "x", "price": "y"})
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("a"), "ValueError: a"),
        (ValueError(), "ValueError"),
        (ValueError("cannot read '/home/me/app/config.yaml'"), "ValueError: cannot read 'config.yaml'"),
        (ValueError(r"cannot read C:\Users\me\app\config.yaml"), "ValueError: cannot read config.yaml"),
        (ValueError("https://example.com/a/b/c is down"), "ValueError: https://example.com/a/b/c is down"),
        (ValueError("1/2 and a/b/c"), "ValueError: 1/2 and a/b/c"),
        (FileNotFoundError(2, "No such file", "/root/.secret/key.pem"), "FileNotFoundError: No such file"),
        (BaseExceptionGroup("g", [ExceptionGroup("h", [KeyError("k")])]), "KeyError: 'k'"),
        (UnicodeError("\ud800"), "UnicodeError: ?"),
    ],
)
def test_errors_in_words(error: BaseException, words: str) -> None:
    """An error is told by type and message, without the folders of files."""
    assert in_words(error) == words


def test_errors_in_few_words() -> None:
    """A long message is cut; a validation is told in one line; no error tells where a file lies."""
    assert in_words(Loud()) == f"Loud: {'x' * 499}…"
    assert in_words(_validation()).startswith("ValidationError: when: Input should be a valid date")
    assert "\n" not in in_words(_validation())
    assert "/" not in in_words(_os_error())


def test_progress_travels() -> None:
    """Progress has a wire form."""
    element = StreamElement.of(Progress(0.5, "half"))
    assert wire.from_json(wire.to_json(element)) == element
