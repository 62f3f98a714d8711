"""The arguments of functions as JSON schemas, and arguments that fit them or not."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field
from typing_extensions import TypedDict

from rxstage.tools.schema import ArgumentsError, arguments_of, docstring_of, excess


class Color(enum.Enum):
    """Of cars."""

    RED = "red"


class Place(BaseModel):
    """Somewhere."""

    city: str
    zip: int = 0


@dataclasses.dataclass
class Point:
    """On a plane."""

    x: float
    y: float = 0.0


class Options(TypedDict, total=False):
    """Keys that may be there."""

    loud: bool


def all_kinds(  # type: ignore[no-untyped-def]
    text: str,
    number: Annotated[int, Field(gt=0, description="how many")],
    choice: Literal["a", "b"],
    color: Color,
    place: Place,
    point: Point,
    when: dt.datetime,
    options: Options | None = None,
    tags: list[str] = [],  # noqa: B006
    anything=1.5,
    *,
    mapping: dict[str, int] | None = None,
) -> None:
    """Takes all.

    Args:
        text: some text,
            on two lines.
        number (int): not this.
        mapping: numbers: by name.

    Returns:
        choice: not this.
    """


def test_the_schema() -> None:
    """Annotations, defaults and what the docstring says become a schema that any model understands."""
    schema = arguments_of(all_kinds, "all").schema
    properties = schema["properties"]
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["text", "number", "choice", "color", "place", "point", "when"]
    assert properties["text"] == {"type": "string", "description": "some text, on two lines."}
    assert properties["number"] == {"type": "integer", "exclusiveMinimum": 0, "description": "how many"}
    assert properties["choice"] == {"type": "string", "enum": ["a", "b"]}
    assert properties["place"] == {"$ref": "#/$defs/Place"}
    assert properties["when"] == {"type": "string", "format": "date-time"}
    assert properties["tags"] == {"type": "array", "items": {"type": "string"}, "default": []}
    assert properties["anything"] == {"default": 1.5}
    assert properties["mapping"]["description"] == "numbers: by name."
    assert "default" not in properties["mapping"]
    assert set(schema["$defs"]) == {"Color", "Place", "Point", "Options"}


def test_arguments_that_fit() -> None:
    """What fits is converted to the types of the function; what is not given is left to its defaults."""
    fitted = arguments_of(all_kinds, "all").fit(
        {
            "text": "t",
            "number": "3",
            "choice": "b",
            "color": "red",
            "place": {"city": "Bonn"},
            "point": {"x": 1},
            "when": "2030-01-02T03:04:05Z",
            "options": {"loud": True},
        }
    )
    assert fitted == {
        "text": "t",
        "number": 3,
        "choice": "b",
        "color": Color.RED,
        "place": Place(city="Bonn"),
        "point": Point(1.0),
        "when": dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        "options": {"loud": True},
    }


def short(count: int, place: Place | None = None) -> None:
    """Takes two."""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "count: is missing"),
        ({"count": "x"}, "count: Input should be a valid integer, unable to parse string as an integer, got 'x'"),
        ({"count": 1.5}, "count: Input should be a valid integer, got a number with a fractional part, got 1.5"),
        ({"count": None}, "count: Input should be a valid integer, got None"),
        ({"count": 1, "url": "http://evil"}, "url: there is no such argument"),
        ({"count": 1, "place": {"city": []}}, "place.city: Input should be a valid string, got []"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], told: str) -> None:
    """What does not fit is told with its place, and with the arguments that there are."""
    with pytest.raises(ArgumentsError) as caught:
        arguments_of(short, "short").fit(arguments)
    assert str(caught.value) == f"{told}. Its arguments are: count, place."


def test_many_problems() -> None:
    """Several problems are told at once, but not without end, and nothing long is repeated."""
    arguments = {"count": "y" * 5000} | {f"{number}{'x' * 1000}": number for number in range(50)}
    with pytest.raises(ArgumentsError) as caught:
        arguments_of(short, "short").fit(arguments)
    assert len(str(caught.value)) < 700
    assert "; and 46 more. Its arguments are" in str(caught.value)


def test_names_that_pydantic_models_have() -> None:
    """Parameters may be called as attributes of pydantic models are, and begin with an underscore."""

    def odd(model_config: int, schema: str, copy: bool, _private: int, json: str = "") -> None: ...

    arguments = arguments_of(odd, "odd")
    given = {"model_config": 1, "schema": "s", "copy": True, "_private": 2}
    assert arguments.fit(given) == given


def test_local_annotations() -> None:
    """Annotations may name what stands beside the function; one that cannot be found is an error."""

    class Local(BaseModel):
        x: int

    def takes(local: Local) -> None: ...

    assert arguments_of(takes, "takes", {"Local": Local}).fit({"local": {"x": 1}}) == {"local": Local(x=1)}
    with pytest.raises(TypeError, match=r"tool 'takes': an annotation cannot be found at run time .*outside TYPE"):
        arguments_of(takes, "takes")


class Opaque:
    """A class that nobody can make of JSON."""


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda *args: None, r"'t': the parameter '\*args' cannot be given by name"),
        (lambda **kwargs: None, r"'t': the parameter '\*\*kwargs' cannot be given by name"),
        (divmod, r"'t': the parameter 'x' cannot be given by name"),
    ],
)
def test_parameters_without_a_name(function: Any, why: str) -> None:
    """What a model cannot name is refused when the tool is made."""
    with pytest.raises(TypeError, match=why):
        arguments_of(function, "t")


def test_annotations_without_a_schema() -> None:
    """An annotation that pydantic cannot use, or that has no JSON schema, is refused with the parameter's name."""

    def opaque(fine: int, bad: Opaque) -> None: ...

    def field(n: int = Field(gt=0)) -> None: ...

    with pytest.raises(TypeError, match="tool 't': pydantic has no schema for bad: Unable to generate"):
        arguments_of(opaque, "t")
    with pytest.raises(TypeError, match=r"tool 't': write n: Annotated\[..., Field\(...\)\] = default"):
        arguments_of(field, "t")


def known(city: str) -> str:
    if city == "odd":
        raise RuntimeError("no luck")
    if city != "Bonn":
        raise ValueError("unknown city")
    return city


def test_a_validator_that_raises() -> None:
    """What a validator of the application says is told, and what it raises beside is told by type and message."""

    def takes(city: Annotated[str, AfterValidator(known)]) -> None: ...

    arguments = arguments_of(takes, "takes")
    with pytest.raises(ArgumentsError, match="city: Value error, unknown city, got 'Rom'"):
        arguments.fit({"city": "Rom"})
    with pytest.raises(ArgumentsError, match="they cannot be read: RuntimeError: no luck"):
        arguments.fit({"city": "odd"})


def test_defaults_that_json_has_not() -> None:
    """A default that JSON has not stays the function's own."""

    def takes(when: dt.date = dt.date(2030, 1, 2), key: Any = object) -> None: ...

    properties = arguments_of(takes, "takes").schema["properties"]
    assert properties["when"]["default"] == "2030-01-02"
    assert "default" not in properties["key"]


def test_docstrings() -> None:
    """A function without a docstring, or without sections, is described by what there is."""

    def plain() -> None:
        """Just a line: with a colon."""

    assert docstring_of(plain) == ("Just a line: with a colon.", {})
    assert docstring_of(lambda: None) == ("", {})
    assert docstring_of(all_kinds) == (
        "Takes all.",
        {"text": "some text, on two lines.", "number": "not this.", "mapping": "numbers: by name."},
    )


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, {"b": "c"}]}, ""),
        ({"a": "x" * 99_000}, ""),
        ({"a": "x" * 101_000}, "are longer than 100000 characters"),
        ({"x" * 101_000: 1}, "are longer than 100000 characters"),
        ({"a": [0] * 1_000_000}, "are longer than 100000 characters"),
        ({"a": 10**400_000}, "are longer than 100000 characters"),
        ({"a": [["x" * 50_000]] * 3}, "are longer than 100000 characters"),
    ],
)
def test_excess_of_size(value: Any, told: str) -> None:
    """Arguments of any size are measured without being copied or written out."""
    assert excess(value) == told


def test_excess_of_depth() -> None:
    """Arguments that are nested deep, or round in a circle, are noticed without recursion."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle["again"] = circle
    told = "are nested deeper than 64 levels"
    assert [excess({"a": deep}), excess(circle)] == [told, told]
    while deep:  # so that it is not taken apart by recursion either
        deep = deep[0]
