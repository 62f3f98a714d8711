"""A prompt: its messages, its variables, its errors, its id."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rxstage import Message
from rxstage.prompts import Example, MissingVariable, Prompt, PromptError
from rxstage.prompts.prompt import parse_reference


def test_messages() -> None:
    """The system message comes first, then the examples as turns; all are templates."""
    prompt = Prompt(
        system="You are {{ name }}. {% include 'tone' %}",
        examples=(Example(user="Hi, {{ name }}", assistant="Hello!"),),
        fragments={"tone": "Be {{ tone }}."},
        variables={"tone": "kind", "name": "Bob"},
    )
    assert prompt.render({"name": "Ann"}) == (
        Message.system("You are Ann. Be kind."),
        Message.user("Hi, Ann"),
        Message.assistant("Hello!"),
    )
    assert prompt.names == {"name", "tone"}


def test_an_empty_system_prompt_makes_no_message() -> None:
    """A system prompt that comes out blank is left out; the examples are not."""
    prompt = Prompt(system="{% if false %}x{% endif %} \n", examples=(Example(user="a", assistant=""),))
    assert prompt.render() == (Message.user("a"), Message.assistant(""))


def test_errors_name_prompt_and_part() -> None:
    """An error says which prompt it is, which part of it and which line."""
    prompt = Prompt(id="shop/help", version="2", examples=(Example(user="a", assistant="b\n{{ c }}"),))
    with pytest.raises(MissingVariable) as caught:
        prompt.render({"d": 1})
    error = caught.value
    assert (error.prompt, error.part, error.line, error.variable) == ("shop/help@2", "examples.0.assistant", 2, "c")
    assert str(error).startswith("prompt 'shop/help@2' (examples.0.assistant, line 2): the variable 'c' is not set")
    with pytest.raises(PromptError, match=r"prompt 'x' \(system, line 1\): the attribute '__class__' is private"):
        Prompt(id="x", system="{{ a.__class__ }}").render({"a": 1})


@pytest.mark.parametrize(
    "id", ["../x", "/x", "a/../b", "a/./b", "a//b", "a/", ".hidden", "a b", "a\n", "a\\b", "ä", "x" * 300]
)
def test_ids(id: str) -> None:
    """An id is names with slashes between: nothing that means another folder."""
    with pytest.raises(ValidationError):
        Prompt(id=id)
    with pytest.raises(PromptError, match="is no id of a prompt"):
        parse_reference(id)


def test_references() -> None:
    """An id may say its version; it cannot say two."""
    assert parse_reference("a/b.c-d") == ("a/b.c-d", None)
    assert parse_reference("a@1.2") == ("a", "1.2")
    assert parse_reference("a", "3") == ("a", "3")
    assert parse_reference("a@3", "3") == ("a", "3")
    with pytest.raises(PromptError, match="names another version"):
        parse_reference("a@1", "2")
    for wrong in ("a@", "@1", "a@../1", "a@1@2", ""):
        with pytest.raises(PromptError, match="is no id"):
            parse_reference(wrong)
    assert Prompt(id="a").reference == "a"
    assert Prompt(id="a", version="1").reference == "a@1"


def test_a_version_is_text() -> None:
    """A whole number is a version, a fraction is a question."""
    assert Prompt.model_validate({"id": "a", "version": 2}).version == "2"
    with pytest.raises(ValidationError, match="in quotes"):
        Prompt.model_validate({"id": "a", "version": 1.1})
