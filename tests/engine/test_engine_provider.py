"""`OpenAIProvider` on a server that is not OpenAI's, with a real model behind it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from forms import WAIT
from lessons import (
    ANSWERS,
    ASKED,
    CITIES,
    COMPARISON,
    ENDLESS,
    FORECASTS,
    FRENCH,
    HELPFUL,
    NAMES,
    STORY,
    THOUGHT,
    TOOL,
    UNTOLD,
    WITHOUT_TOOL,
    compared,
    introduction,
    named,
    question,
    weather,
)

from rxstage.adapters.openai import OpenAIProvider
from rxstage.content import Message, ToolCall, ToolResult
from rxstage.ports import Finish, ModelEvent, ModelRequest, Provider, ProviderError, Thinking, ToolSpec

if TYPE_CHECKING:
    from engine_fixture import Engine

pytest_plugins = ["engine_fixture"]
pytestmark = pytest.mark.needs("module:openai")

TOOLS = (ToolSpec(**TOOL),)


async def events(
    provider: Provider, *messages: Message, tools: tuple[ToolSpec, ...] = (), **parameters: Any
) -> list[ModelEvent]:
    """All that comes back."""
    request = ModelRequest(messages=messages, tools=tools, parameters=parameters)
    async with asyncio.timeout(WAIT):
        return [event async for event in provider.stream(request)]


def ask(engine: Engine, *messages: Message, **options: Any) -> list[ModelEvent]:
    """All that comes back, with a provider for this call alone."""

    async def main() -> list[ModelEvent]:
        async with OpenAIProvider(engine.model, base_url=engine.base_url) as provider:
            return await events(provider, *messages, **options)

    return asyncio.run(main())


def text(events: list[ModelEvent]) -> str:
    """The answer in these, which end as they should."""
    *pieces, end = events
    assert isinstance(end, Finish)
    assert end.reason == "stop"
    return "".join(piece for piece in pieces if isinstance(piece, str))


@pytest.mark.parametrize(("asked", "answer"), ANSWERS.items(), ids=ANSWERS.keys())
def test_answer(engine: Engine, asked: str, answer: str) -> None:
    """The answer comes in pieces, then its end with the tokens and the model."""
    *pieces, end = ask(engine, Message.user(asked))
    assert {type(piece) for piece in pieces} == {str}
    assert "".join(map(str, pieces)) == answer
    assert len(pieces) > 5
    assert isinstance(end, Finish)
    assert (end.reason, end.model) == ("stop", engine.model)
    assert end.usage is not None
    assert end.usage.input_tokens > 0
    assert end.usage.output_tokens >= len(pieces)


def test_thinking(engine: Engine) -> None:
    """What the model thinks comes apart from what it says."""
    asked, thought, answer = THOUGHT
    came = ask(engine, Message.user(asked))
    assert "".join(event.text for event in came if isinstance(event, Thinking)) == thought
    assert text(came) == answer


def test_system_prompt(engine: Engine) -> None:
    """The system prompt reaches the model."""
    instruction, asked, answer = FRENCH
    assert text(ask(engine, Message.system(instruction), Message.user(asked))) == answer
    assert text(ask(engine, Message.system(HELPFUL), Message.user(asked))) == ANSWERS[asked]


@pytest.mark.parametrize("name", NAMES)
def test_history(engine: Engine, name: str) -> None:
    """What was said before reaches the model."""
    told, answer = introduction(name)
    history = Message.user(told), Message.assistant(answer)
    assert text(ask(engine, *history, Message.user(ASKED))) == named(name)
    assert text(ask(engine, Message.user(ASKED))) == UNTOLD


@pytest.mark.parametrize("forecast", FORECASTS)
@pytest.mark.parametrize("city", CITIES)
def test_tool(engine: Engine, city: str, forecast: str) -> None:
    """A tool is called, and what it gave is in the answer."""
    asked = Message.user(question(city))
    call, end = ask(engine, asked, tools=TOOLS)
    assert isinstance(call, ToolCall)
    assert isinstance(end, Finish)
    assert (call.name, call.arguments, end.reason) == (TOOL["name"], {"city": city}, "tool_calls")
    used = Message.assistant(tool_calls=(call,)), Message("tool", (ToolResult(call.id, forecast, call.name),))
    assert text(ask(engine, asked, *used, tools=TOOLS)) == weather(city, forecast)


def test_two_tool_calls(engine: Engine) -> None:
    """Two calls of one answer have ids of their own, and get both results."""
    asked = Message.user(COMPARISON)
    *calls, end = ask(engine, asked, tools=TOOLS)
    assert isinstance(end, Finish)
    assert end.reason == "tool_calls"
    made = [call for call in calls if isinstance(call, ToolCall)]
    assert [(call.name, call.arguments) for call in made] == [(TOOL["name"], {"city": city}) for city in CITIES]
    assert len({call.id for call in made}) == len(calls) == 2
    results = tuple(ToolResult(call.id, given) for call, given in zip(made, FORECASTS, strict=True))
    used = Message.assistant(tool_calls=tuple(made)), Message("tool", results)
    assert text(ask(engine, asked, *used, tools=TOOLS)) == compared(*FORECASTS)


def test_no_tool(engine: Engine) -> None:
    """A model that is offered no tool calls none."""
    assert text(ask(engine, Message.user(question("Paris")))) == WITHOUT_TOOL


def test_length(engine: Engine) -> None:
    """An answer that is cut says so."""
    *pieces, end = ask(engine, Message.user(STORY), max_tokens=6)
    assert isinstance(end, Finish)
    assert end.usage is not None
    assert (end.reason, end.usage.output_tokens) == ("length", 6)
    assert ANSWERS[STORY].startswith("".join(map(str, pieces)))


@pytest.mark.parametrize(
    ("parameters", "status", "retryable", "told"),
    [
        ({"temperament": "sunny"}, 422, False, "temperament"),
        ({"model": "nobody"}, 400, False, "nobody"),
        ({"generation_config": "{"}, 500, True, "500"),
        ({"frequency_penalty": -1.0}, None, True, "penalty"),
    ],
    ids=["unknown parameter", "unknown model", "broken server", "failed in mid-stream"],
)
def test_error(engine: Engine, parameters: dict[str, Any], status: int | None, retryable: bool, told: str) -> None:
    """An error says who failed, whether another try may help, and what the server told."""
    with pytest.raises(ProviderError, match=told) as raised:
        ask(engine, Message.user("Hello!"), **parameters)
    error = raised.value
    assert (error.provider, error.status, error.retryable) == ("openai", status, retryable)


def test_cancel(engine: Engine) -> None:
    """Closing the iterator ends the call on the server too, which has one answer at a time and is free for the next."""

    async def main() -> str:
        async with OpenAIProvider(engine.model, base_url=engine.base_url) as provider:
            request = ModelRequest(messages=(Message.user(STORY),), parameters=ENDLESS)
            async with asyncio.timeout(WAIT), aclosing(provider.stream(request)) as answer:  # type: ignore[type-var]
                first = [await anext(answer) for _ in range(3)]
            assert ANSWERS[STORY].startswith("".join(map(str, first)))
            return text(await events(provider, Message.user("Hello!")))

    assert asyncio.run(main()) == ANSWERS["Hello!"]


def test_at_once(engine: Engine) -> None:
    """Calls of one provider at the same time get an answer each, on one event loop and on the next."""
    provider = OpenAIProvider(engine.model, base_url=engine.base_url)

    async def main() -> list[str]:
        async with provider:
            came = await asyncio.gather(*(events(provider, Message.user(asked)) for asked in ANSWERS))
        return [text(events) for events in came]

    assert asyncio.run(main()) == list(ANSWERS.values())
    assert asyncio.run(main()) == list(ANSWERS.values())
