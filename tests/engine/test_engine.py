"""The engine itself, through the official SDK: what the other tests here rest on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from lessons import ANSWERS, CITIES, COMPARISON, TOOL

if TYPE_CHECKING:
    import openai
    from engine_fixture import Engine

pytest_plugins = ["engine_fixture"]
pytestmark = pytest.mark.needs("module:openai")


@contextmanager
def client(engine: Engine) -> Iterator[openai.OpenAI]:
    """The SDK, which asks once."""
    import openai

    with openai.OpenAI(base_url=engine.base_url, api_key="none", max_retries=0, timeout=30.0) as sdk:
        yield sdk


def streamed(engine: Engine, question: str, **options: Any) -> list[Any]:
    """The chunks of an answer."""
    with client(engine) as sdk:
        messages: Any = [{"role": "user", "content": question}]
        return list(
            sdk.chat.completions.create(**{"model": engine.model, "messages": messages, "stream": True, **options})
        )


@pytest.mark.parametrize(("question", "answer"), ANSWERS.items(), ids=ANSWERS.keys())
def test_answer(engine: Engine, question: str, answer: str) -> None:
    """What the model was taught streams in pieces, with the tokens counted at the end."""
    chunks = streamed(engine, question)
    pieces = [text for chunk in chunks if (text := chunk.choices[0].delta.content)]
    assert "".join(pieces) == answer
    assert len(pieces) > 5
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens >= len(pieces)


def test_tool_calls(engine: Engine) -> None:
    """The server takes two calls out of what the model says."""
    chunks = streamed(engine, COMPARISON, tools=[{"type": "function", "function": TOOL}])
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.function.name, call.function.arguments) for call in calls] == [
        (index, TOOL["name"], f'{{"city": "{city}"}}') for index, city in enumerate(CITIES)
    ]
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_unknown_model(engine: Engine) -> None:
    """The server has one model and says so."""
    import openai

    with client(engine) as sdk:
        assert [model.id for model in sdk.models.list()] == [engine.model]
    with pytest.raises(openai.BadRequestError) as raised:
        streamed(engine, "Hello!", model="nobody")
    assert raised.value.response.json() == {"detail": f"Server is pinned to '{engine.model}'; requested 'nobody'."}
