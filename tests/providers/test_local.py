"""The partner without a network: what it remembers, what it refuses."""

from __future__ import annotations

import pytest
from calls import ask, text_of

from rxstage import Message, ToolCall
from rxstage.ports import ModelRequest, ToolSpec
from rxstage.providers import LocalProvider
from rxstage.testing import run_virtual


def talk(*texts: str) -> list[str]:
    provider = LocalProvider()
    history: list[Message] = []
    answers: list[str] = []

    async def one() -> str:
        request = ModelRequest(messages=tuple(history))
        return text_of([event async for event in provider.stream(request)])

    for text in texts:
        history.append(Message.user(text))
        answers.append(run_virtual(one()))
        history.append(Message.assistant(answers[-1]))
    return answers


def test_it_remembers() -> None:
    """What was said in the conversation is what it answers from."""
    answers = talk("My name is Ada", "what is my name?", "what did I say?", "how many messages?", "hello")
    assert answers[0] == "Nice to meet you, Ada. I will remember that."
    assert answers[1] == "Your name is Ada."
    assert answers[2] == "You said:\n\n- My name is Ada\n- what is my name?"
    assert answers[3] == "This is message 7 of our conversation."
    assert answers[4].startswith("Hello, Ada.")
    assert talk("what is my name?") == ["You have not told me yet. Say `my name is …`."]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("what is 6 * 7?", "6 * 7 = 42"),
        ("(1 + 2) * 3", "(1 + 2) * 3 = 9"),
        ("7 / 2", "7 / 2 = 3.5"),
        ("1 / 0", "I cannot calculate 1 / 0: division by zero."),
        ("2 ** 9999999", "I cannot calculate 2 ** 9999999: it has more in it than numbers, + - * / and %."),
        ("1+" * 200 + "1", None),
    ],
)
def test_sums(asked: str, answer: str | None) -> None:
    """Sums are calculated, without power and without Python."""
    got = talk(asked)[0]
    assert got == answer if answer is not None else got.endswith("it is too long.")


def test_it_uses_a_tool_that_is_offered() -> None:
    """With a tool called calculate it asks for that."""
    request = ModelRequest(messages=(Message.user("6 * 7"),), tools=(ToolSpec("calculate"),))

    async def all_of_it() -> list[object]:
        return [event async for event in LocalProvider().stream(request)]

    assert run_virtual(all_of_it())[0] == ToolCall("calculate", {"expression": "6 * 7"})


def test_it_says_what_it_is() -> None:
    """It never passes for a model."""
    assert "script" in talk("help")[0]
    assert "script without a model" in talk("tell me about Rome")[0]
    assert text_of(run_virtual(ask(LocalProvider(token_delay=1.0), "show markdown"))).startswith("# A heading")
