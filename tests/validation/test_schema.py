"""JSON of a schema or of a model: what is wrong is said, and what the text says is not."""

from __future__ import annotations

import pickle
from typing import Literal

import pytest
from pydantic import BaseModel

from rxstage.validation import JSONSchema, Model, Verdict

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
}
needs = pytest.mark.needs("module:jsonschema_rs")


class Person(BaseModel):
    """A form for answers."""

    name: str
    age: int = 0
    mood: Literal["good", "bad"] = "good"


@needs
def test_json_schema() -> None:
    """What fits passes; else the reason names each problem and where it is, but no value."""
    validator = JSONSchema(SCHEMA)
    assert validator.check('{"name": "Ann", "age": 3}') == Verdict.passed()
    refused = validator.check('{"age": "secret"}')
    assert (refused.ok, refused.score) == (False, 0.0)
    assert refused.reason == (
        'it does not fit the schema: the whole: "name" is a required property; age: the value is not of type "integer"'
    )
    assert validator.check("My name is Ann").reason == "it is no JSON: expected value at line 1 column 1"
    assert validator.check('{"name": "A"').reason.startswith("it is no JSON: EOF")
    assert validator.check("").ok is False
    assert JSONSchema(True).check("3").ok
    assert not JSONSchema(False).check("3").ok


@needs
def test_many_problems() -> None:
    """Of many problems the first are named and the rest counted."""
    reason = JSONSchema({"type": "array", "items": {"type": "integer"}}).check('["a","b","c","d","e","f","g"]').reason
    assert reason.count("is not of type") == 5
    assert reason.endswith("; and 2 more")


@needs
@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "nonsense"}, "this is no JSON schema"),
        ({"$ref": "http://localhost/schema.json"}, "this is no JSON schema"),
        ({"$ref": "#/nowhere"}, "this is no JSON schema"),
    ],
)
def test_no_schema(schema: dict[str, str], says: str) -> None:
    """What is no schema is an error where it is made; nothing is fetched from elsewhere."""
    with pytest.raises(ValueError, match=says):
        JSONSchema(schema)


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}```", "  ```JSON\n{}\n```\n"])
@needs
def test_fences(fence: str) -> None:
    """A code fence round the JSON passes only where that is allowed."""
    text = fence.replace("{}", '{"name": "Ann"}')
    assert not JSONSchema(SCHEMA).check(text).ok
    assert JSONSchema(SCHEMA, fenced=True).check(text).ok
    assert not Model(Person).check(text).ok
    assert Model(Person, fenced=True).check(text).ok


def test_model() -> None:
    """A pydantic model and any other type are forms; the reason names the problems, but no value."""
    assert Model(Person).check('{"name": "Ann", "age": "3"}') == Verdict.passed()
    assert not Model(Person, strict=True).check('{"name": "Ann", "age": "3"}').ok
    refused = Model(Person).check('{"age": "secret", "mood": "secret"}')
    assert refused.reason == (
        "it does not fit Person: name: Field required; age: Input should be a valid integer, unable to parse string "
        "as an integer; mood: Input should be 'good' or 'bad'"
    )
    assert not Model(Person).check("secret").ok
    assert "secret" not in Model(Person).check("secret").reason
    assert Model(list[int]).check("[1, 2]").ok
    assert not Model(dict[str, int]).check('{"a": "b"}').ok


@needs
def test_names_and_copies() -> None:
    """Each is called like its class, or as it was told, and goes to another process."""
    assert (JSONSchema(SCHEMA).name, Model(Person).name, Model(Person, name="person").name) == (
        *("json_schema", "model", "person"),
    )
    again = pickle.loads(pickle.dumps(Model(Person)))
    assert again.check('{"name": "Ann"}').ok
    assert JSONSchema(**JSONSchema(SCHEMA).model_dump()).check('{"name": "Ann"}').ok
