"""`PydanticAIProvider`: every other model, against a server that speaks the API and against pydantic-ai's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from aimock import Mock, running
from asking import TOOLS, Answer, ask, failed, on_a_loop
from faults import error, events, serving, stream

from rxstage import Audio, Data, Image, Message, Text, ToolCall, ToolResult
from rxstage.adapters.pydantic_ai import PydanticAIProvider
from rxstage.errors import MissingExtra
from rxstage.ports import OutputSpec, Thinking, ToolSpec

pytestmark = pytest.mark.needs("module:pydantic_ai", "module:openai")

_SCHEMA: Final = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
_FIXTURES: Final[list[dict[str, Any]]] = [
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {
            "content": "Let me see.",
            "toolCalls": [
                {"id": "call_1", "name": "get_weather", "arguments": {"city": "Oslo", "note": "ä" * 60}},
                {"id": "call_2", "name": "get_time", "arguments": {}},
            ],
            "reasoning": "who knows",
        },
        "chunkSize": 7,
    },
    {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": "It is cold."}},
    {"match": {"userMessage": "person"}, "response": {"content": {"age": 7}}, "chunkSize": 4},
    {"match": {"userMessage": "bad"}, "response": {"error": {"message": "no such thing"}, "status": 400}},
    {
        "match": {"userMessage": "hello"},
        "response": {
            "content": "Hello there, how are you?",
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        },
    },
]


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mock]:
    """The server."""
    with running(_FIXTURES, tmp_path_factory.mktemp("aimock")) as server:
        yield server


def provider(mock: Mock, **options: Any) -> PydanticAIProvider:
    """A provider of that server, whose journal is empty."""
    mock.forget()
    return PydanticAIProvider("openai-chat:gpt-5.2", base_url=f"{mock.url}/v1", api_key=mock.key, **options)


async def asked(mock: Mock, *messages: Message | str, **options: Any) -> tuple[Answer, dict[str, Any]]:
    """The answer, and the body of the one request that was made for it."""
    async with provider(mock) as models:
        answer = await ask(models, *messages, **options)
    (entry,) = mock.journal("/v1/chat/completions")
    return answer, entry["body"]


@on_a_loop
async def test_text(mock: Mock) -> None:
    """Text streams in pieces; the end has the reason, the tokens, and the model that answered."""
    answer, body = await asked(mock, "hello")
    assert answer.text == "Hello there, how are you?"
    assert len(answer.events) > 2
    usage = answer.finish.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (11, 7)
    assert (answer.finish.reason, answer.finish.model) == ("stop", "gpt-5.2")
    assert body["messages"] == [{"role": "user", "content": "hello"}]


@on_a_loop
async def test_tool_calls(mock: Mock) -> None:
    """Calls that stream in pieces come whole, with their arguments decoded, before the end; thinking comes apart."""
    answer, body = await asked(mock, "weather?", tools=TOOLS)
    assert answer.text == "Let me see."
    assert answer.calls == [
        ToolCall("get_weather", {"city": "Oslo", "note": "ä" * 60}, "call_1"),
        ToolCall("get_time", {}, "call_2"),
    ]
    assert (answer.finish.reason, answer.thoughts) == ("tool_calls", "who knows")
    assert isinstance(answer.events[0], Thinking)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather", "get_time"]


@on_a_loop
async def test_a_conversation_with_results(mock: Mock) -> None:
    """Messages keep their places; the answer before is sent as the library had it, if nothing of it was changed."""
    async with provider(mock) as models:
        first = await ask(models, "weather?", tools=TOOLS)
        calls = tuple(first.calls)
        told = Message("tool", (ToolResult("call_1", {"t": -3}), ToolResult("call_2", "no clock", is_error=True)))
        conversation = (Message.system("Be brief."), Message.user("weather?"))
        second = await ask(models, *conversation, Message.assistant(first.text, tool_calls=calls), told, tools=TOOLS)
        await ask(models, *conversation, Message.assistant("…", tool_calls=calls), told, tools=TOOLS)
    assert second.text == "It is cold."
    _, known, changed = (entry["body"]["messages"] for entry in mock.journal("/v1/chat/completions"))
    assert [message["role"] for message in known] == ["system", "user", "assistant", "tool", "tool"]
    assert [message["content"] for message in known[:3]] == ["Be brief.", "weather?", "Let me see."]
    assert known[3]["content"] == '{"t":-3}'
    assert "no clock" in known[4]["content"]
    assert known[2]["reasoning_content"] == "who knows"
    assert changed[2]["content"] == "…"
    assert "reasoning_content" not in changed[2]


@on_a_loop
async def test_parameters(mock: Mock) -> None:
    """Parameters go along; one call is one request."""
    parameters = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 30, "stop": "END", "seed": 7}
    _, body = await asked(mock, "hello", tools=TOOLS, tool_choice="required", parameters=parameters)
    assert (body["seed"], body["stop"], body["tool_choice"]) == (7, ["END"], "required")
    assert body["max_completion_tokens"] == 30


@on_a_loop
async def test_structured_output(mock: Mock) -> None:
    """The schema goes along where the model takes one, and the answer is the JSON text."""
    answer, body = await asked(mock, "person?", output=OutputSpec("person", _SCHEMA))
    assert json.loads(answer.text) == {"age": 7}
    assert answer.finish.reason == "stop"
    assert body["response_format"]["json_schema"]["name"] == "person"


@on_a_loop
async def test_media(mock: Mock) -> None:
    """Images and audio go along with the text."""
    _, body = await asked(mock, Message.user("hello", Image(b"png"), Audio(b"\0\0", 8000), Data({"a": 1})))
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["text", "image_url", "input_audio", "text"]


@on_a_loop
async def test_an_error_of_the_server(mock: Mock) -> None:
    """What the server says is in the error."""
    async with provider(mock) as models:
        caught = await failed(models, "bad")
    assert str(caught) == "openai-chat answered 400 for model 'gpt-5.2': no such thing"
    assert not caught.retryable


@on_a_loop
async def test_the_order_of_tools(mock: Mock) -> None:
    """Over 100 calls the tools are sent in the same order, and each call is one request."""
    tools = tuple(ToolSpec(f"tool_{number * 7 % 10}") for number in range(10))
    async with provider(mock) as models:
        for _ in range(100):
            await ask(models, "hello", tools=tools)
    journal = mock.journal("/v1/chat/completions")
    assert len(journal) == 100
    orders = {tuple(tool["function"]["name"] for tool in entry["body"]["tools"]) for entry in journal}
    assert orders == {tuple(tool.name for tool in tools)}


@on_a_loop
async def test_a_model_object() -> None:
    """A model of pydantic-ai is taken as it is; a structured answer may come as the call of a tool."""
    from pydantic_ai import ModelProfile
    from pydantic_ai.models.function import DeltaToolCall, FunctionModel

    async def answer(messages: Any, info: Any) -> Any:
        if info.output_tools:
            yield {0: DeltaToolCall(info.output_tools[0].name, '{"age"', tool_call_id="o")}
            yield {0: DeltaToolCall(json_args=": 7}")}
        else:
            yield "it is "
            yield {0: DeltaToolCall("get_time", '{"x": ', tool_call_id="a")}

    models = PydanticAIProvider(FunctionModel(stream_function=answer))
    said = await ask(models, "hello", tools=TOOLS)
    assert (said.text, said.calls) == ("it is ", [ToolCall("get_time", {"": '{"x": '}, "a")])
    assert said.finish.reason == "tool_calls"
    profile = ModelProfile(supports_json_schema_output=False)
    models = PydanticAIProvider(FunctionModel(stream_function=answer, profile=profile))
    said = await ask(models, "hello", output=OutputSpec("person", _SCHEMA))
    assert json.loads(said.text) == {"age": 7}
    assert said.finish.reason == "stop"
    assert said.calls == []


def test_several_loops() -> None:
    """Each loop has connections of its own; the object serves the next."""
    models: list[PydanticAIProvider] = []
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]

    async def once() -> int:
        async with serving(stream(*events({**chunk, "choices": choices}, "[DONE]"))) as server:
            models.append(PydanticAIProvider("openai-chat:m", base_url=f"{server.url}/v1"))
            await asyncio.gather(*(ask(models[0], "hello") for _ in range(3)))
            return len(server.asked)

    async def again() -> None:
        assert (await failed(models[0])).retryable  # the server is gone, the loop another

    assert asyncio.run(once()) == 3
    asyncio.run(again())


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Message.user(ToolCall("f")), "openai-chat takes no ToolCall in a message of role 'user'"),
        (Message.assistant(Image(b"")), "openai-chat takes no Image in a message of role 'assistant'"),
        (Message("tool", (Text("text"),)), "a message of role 'tool' holds ToolResults only, got a Text"),
    ],
)
@on_a_loop
async def test_parts_that_it_does_not_take(message: Message, told: str) -> None:
    """A part that there is no place for is an error, and no other try will help."""
    async with PydanticAIProvider("openai-chat:m", base_url="http://localhost:9") as models:
        caught = await failed(models, message)
    assert (str(caught), caught.retryable) == (told, False)


@on_a_loop
async def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the first call says which variable of the environment it comes from."""
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    caught = await failed(PydanticAIProvider("deepseek:deepseek-chat"))
    assert not caught.retryable
    assert "DEEPSEEK_API_KEY" in str(caught)


@on_a_loop
async def test_a_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that comes from the environment is not shown, either, though the server repeats it."""
    refusal = error(401, {"error": {"message": "the key sk-hidden is not known"}})
    async with serving(refusal) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        async with PydanticAIProvider("openai-chat:m") as models:
            caught = await failed(models)
        assert server.asked[0].headers["authorization"] == "Bearer sk-hidden"
    assert "the key … is not known" in str(caught)
    assert caught.__cause__ is None


@on_a_loop
async def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package of a provider is missing, the first call says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "cohere", None)  # so that importing it fails
    monkeypatch.delitem(sys.modules, "pydantic_ai.providers.cohere", raising=False)
    with pytest.raises(MissingExtra, match="pip install"):
        await ask(PydanticAIProvider("cohere:command-r"), "hello")


def test_options_are_checked() -> None:
    """The string must name a provider, and a timeout must be positive; a key is not shown."""
    with pytest.raises(ValueError, match="written as 'provider:model', got 'gpt'"):
        PydanticAIProvider("gpt")
    with pytest.raises(ValueError, match="timeout must be above 0 s"):
        PydanticAIProvider("groq:m", timeout=-1)
    models = PydanticAIProvider("groq:llama", api_key="secret", name="mine")
    assert (models.name, models.model, repr(models)) == ("mine", "llama", "PydanticAIProvider('groq:llama')")
