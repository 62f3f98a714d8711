"""`AnthropicProvider`: what it sends and what it makes of the answers, against a server that speaks the API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from aimock import Mock, running
from asking import TOOLS, Answer, ask, failed, on_a_loop
from faults import events, serving, stream

from rxstage import Audio, Data, Image, Message, Text, ToolCall, ToolResult, Usage, Video
from rxstage.adapters.anthropic import AnthropicProvider
from rxstage.ports import OutputSpec, Thinking, ToolSpec

pytestmark = pytest.mark.needs("module:anthropic")

_FIXTURES: Final[list[dict[str, Any]]] = [
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {
            "content": "Let me see.",
            "toolCalls": [
                {"id": "toolu_1", "name": "get_weather", "arguments": {"city": "Oslo", "note": "ä" * 60}},
                {"id": "toolu_2", "name": "get_time", "arguments": {}},
            ],
        },
        "chunkSize": 7,
    },
    {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": "It is cold."}},
    {"match": {"userMessage": "person"}, "response": {"content": {"name": "Ann", "age": 7}}, "chunkSize": 4},
    {"match": {"userMessage": "picture"}, "response": {"content": "A cat."}},
    {"match": {"userMessage": "think"}, "response": {"content": "42", "reasoning": "six times seven"}},
    {"match": {"userMessage": "long"}, "response": {"content": "and so on", "finishReason": "length"}},
    {"match": {"userMessage": "bad"}, "response": {"error": {"message": "no such thing"}, "status": 400}},
    {
        "match": {"userMessage": "hello"},
        "response": {
            "content": "Hello there, how are you?",
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        },
    },
]
_START: Final = {
    "type": "message_start",
    "message": {
        "model": "claude-x",
        "usage": {
            "input_tokens": 5,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 20,
            "output_tokens": 1,
        },
    },
}
_STOP: Final = {"type": "message_stop"}


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mock]:
    """The server."""
    with running(_FIXTURES, tmp_path_factory.mktemp("aimock")) as server:
        yield server


def provider(mock: Mock, **options: Any) -> AnthropicProvider:
    """A provider of that server, whose journal is empty."""
    mock.forget()
    return AnthropicProvider("claude-sonnet-5-5", base_url=mock.url, api_key=mock.key, **options)


async def asked(mock: Mock, *messages: Message | str, **options: Any) -> tuple[Answer, dict[str, Any]]:
    """The answer, and the body of the one request that was made for it, as it was sent."""
    async with provider(mock) as anthropic:
        answer = await ask(anthropic, *messages, **options)
    assert len(mock.journal("/v1/messages")) == 1
    return answer, await sent(*messages, **options)


async def sent(*messages: Message | str, **options: Any) -> dict[str, Any]:
    """The body of a request, byte for byte; the journal of aimock has it in OpenAI's form."""
    async with serving(stream(*_done())) as server, AnthropicProvider("m", base_url=server.url) as anthropic:
        await ask(anthropic, *messages, **options)
        (one,) = server.asked
        assert one.path == "/v1/messages"
        body = dict(one.body)
        assert (body.pop("model"), body.pop("stream")) == (options.get("model", "m"), True)
        return body


def _done(*between: object, reason: str = "end_turn") -> list[bytes]:
    last = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 9}}
    return events(_START, *between, last, _STOP)


def _block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


async def scripted(*between: object, reason: str = "end_turn") -> Answer:
    """The answer of a server that sends this between the start and the end."""
    async with serving(stream(*_done(*between, reason=reason))) as server:
        async with AnthropicProvider("m", base_url=server.url) as anthropic:
            return await ask(anthropic, "hello")


@on_a_loop
async def test_text(mock: Mock) -> None:
    """Text streams in pieces; the end has the reason, the tokens and their cost, and the model that answered."""
    answer, body = await asked(mock, "hello")
    assert answer.text == "Hello there, how are you?"
    assert len(answer.events) > 2
    assert answer.finish.reason == "stop"
    usage = answer.finish.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (11, 7)
    assert answer.finish.model == "claude-sonnet-5-5"
    assert body == {"max_tokens": 8192, "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}


@on_a_loop
async def test_tool_calls(mock: Mock) -> None:
    """Calls that stream in pieces come whole, with their arguments decoded, before the end."""
    answer, body = await asked(mock, "weather?", tools=TOOLS)
    assert answer.text == "Let me see."
    assert answer.calls == [
        ToolCall("get_weather", {"city": "Oslo", "note": "ä" * 60}, "toolu_1"),
        ToolCall("get_time", {}, "toolu_2"),
    ]
    assert answer.finish.reason == "tool_calls"
    assert body["tools"] == [
        {
            "name": "get_weather",
            "description": "The weather of a place.",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
        {"name": "get_time", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert "tool_choice" not in body


@on_a_loop
async def test_a_conversation_with_results(mock: Mock) -> None:
    """System messages become the prompt, results one user message and first in it; neighbours are merged."""
    calls = (ToolCall("get_weather", {"city": "Oslo"}, "call|1"), ToolCall("get_time", {}, "call_2"))
    answer, body = await asked(
        mock,
        Message.system("Be brief."),
        Message.user("hi"),
        Message.user("weather?"),
        Message.assistant("Let me see.", tool_calls=calls),
        Message("tool", (ToolResult("call|1", {"t": -3}),)),
        Message("tool", (ToolResult("call_2", "no clock", is_error=True),)),
        Message.user("hello again", ""),
        Message.assistant(),
        Message.system("Be kind."),
        tools=TOOLS,
    )
    assert answer.text == "Hello there, how are you?"
    assert body["system"] == [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "weather?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "call_2", "name": "get_time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": '{"t":-3}'},
                {"type": "tool_result", "tool_use_id": "call_2", "content": "no clock", "is_error": True},
                {"type": "text", "text": "hello again"},
            ],
        },
    ]


@on_a_loop
async def test_a_second_call_with_the_results(mock: Mock) -> None:
    """The model goes on with what the tools gave."""
    async with provider(mock) as anthropic:
        first = await ask(anthropic, "weather?", tools=TOOLS)
        said = Message.assistant(first.text, tool_calls=tuple(first.calls))
        told = Message("tool", tuple(ToolResult(call.id, -3, call.name) for call in first.calls))
        second = await ask(anthropic, "weather?", said, told, tools=TOOLS)
    assert (second.text, second.finish.reason) == ("It is cold.", "stop")


@on_a_loop
async def test_results_come_first() -> None:
    """In a user message the results of tools stand before what the user says, whatever came first."""
    call = ToolCall("get_time", {}, "a")
    body = await sent("hi", Message.assistant(tool_calls=(call,)), "hurry up", Message("tool", (ToolResult("a", ""),)))
    assert [block["type"] for block in body["messages"][-1]["content"]] == ["tool_result", "text"]
    assert "content" not in body["messages"][-1]["content"][0]


@on_a_loop
async def test_the_order_of_tools(mock: Mock) -> None:
    """Over 100 calls the tools are sent in the same order, and each call is one request."""
    tools = tuple(ToolSpec(f"tool_{number * 7 % 10}") for number in range(10))
    async with provider(mock) as anthropic:
        for _ in range(100):
            await ask(anthropic, "hello", tools=tools)
    journal = mock.journal("/v1/messages")
    orders = {tuple(tool["function"]["name"] for tool in entry["body"]["tools"]) for entry in journal}
    assert len(journal) == 100
    assert orders == {tuple(tool.name for tool in tools)}


@pytest.mark.parametrize(
    ("choice", "told"),
    [("none", {"type": "none"}), ("required", {"type": "any"}), ("get_time", {"type": "tool", "name": "get_time"})],
)
@on_a_loop
async def test_the_choice_of_tools(choice: str, told: object) -> None:
    """What may be called is told as the API has it."""
    assert (await sent("hello", tools=TOOLS, tool_choice=choice))["tool_choice"] == told


@on_a_loop
async def test_images(mock: Mock) -> None:
    """Images go along with the text, a frame of video as one."""
    frame = Video(b"frame", "image/jpeg")
    answer, body = await asked(mock, Message.user("what is on the picture?", Image(b"png"), frame, Data({"hint": 1})))
    assert answer.text == "A cat."
    encoded = base64.b64encode(b"png").decode()
    assert body["messages"][0]["content"][1] == {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": encoded},
    }
    assert body["messages"][0]["content"][2]["source"]["media_type"] == "image/jpeg"
    assert body["messages"][0]["content"][3] == {"type": "text", "text": '{"hint":1}'}


@on_a_loop
async def test_structured_output(mock: Mock) -> None:
    """The schema goes along as the API wants it, and the answer is the JSON text."""
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 1}}, "required": ["age"]}
    spec = OutputSpec("person", schema)
    answer, body = await asked(mock, "person?", output=spec, parameters={"output_config": {"effort": "low"}})
    assert json.loads(answer.text) == {"name": "Ann", "age": 7}
    assert len(answer.events) > 3
    config = body["output_config"]
    assert (config["effort"], config["format"]["type"]) == ("low", "json_schema")
    assert config["format"]["schema"]["additionalProperties"] is False
    assert "minimum" not in config["format"]["schema"]["properties"]["age"]


@on_a_loop
async def test_parameters() -> None:
    """Parameters go along by the names that the API has for them; it has no seed."""
    parameters = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 30, "stop": "END", "seed": 7, "top_k": 5}
    body = await sent("hello", parameters={**parameters, "thinking": None, "extra_body": {"speed": "fast"}})
    assert {name: body[name] for name in body if name != "messages"} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 30,
        "stop_sequences": ["END"],
        "top_k": 5,
        "speed": "fast",
    }


@on_a_loop
async def test_thinking(mock: Mock) -> None:
    """What a model thinks comes apart from its answer."""
    answer, _ = await asked(mock, "think")
    assert (answer.thoughts, answer.text) == ("six times seven", "42")
    assert isinstance(answer.events[0], Thinking)


@on_a_loop
async def test_thinking_goes_back_with_a_call() -> None:
    """What the model thought before it called a tool goes back with the call, signed, and with no other one."""
    thinking = _block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "let "},
        {"type": "thinking_delta", "thinking": "me see"},
        {"type": "signature_delta", "signature": "signed"},
    )
    hidden = _block(1, {"type": "redacted_thinking", "data": "secret"})
    call = _block(2, {"type": "tool_use", "id": "a", "name": "get_time", "input": {}})
    sent = stream(*_done(*thinking, *hidden, *call, reason="tool_use"))
    async with serving(sent) as server, AnthropicProvider("m", base_url=server.url) as anthropic:
        answer = await ask(anthropic, "hello")
        assert (answer.thoughts, answer.calls) == ("let me see", [ToolCall("get_time", {}, "a")])
        told = Message("tool", (ToolResult("a", "noon"),))
        await ask(anthropic, "hello", Message.assistant(tool_calls=tuple(answer.calls)), told)
        other = ToolCall("get_time", {"zone": "UTC"}, "a")
        await ask(anthropic, "hello", Message.assistant(tool_calls=(other,)), told)
        kinds = [[block["type"] for block in each.body["messages"][1]["content"]] for each in server.asked[1:]]
        assert kinds == [["thinking", "redacted_thinking", "tool_use"], ["tool_use"]]
        first, second, _ = server.asked[1].body["messages"][1]["content"]
        assert first == {"type": "thinking", "thinking": "let me see", "signature": "signed"}
        assert second == {"type": "redacted_thinking", "data": "secret"}


@on_a_loop
async def test_tokens_of_the_cache_count() -> None:
    """What a cache had and what was put into it are tokens that went in, too."""
    answer = await scripted(*_block(0, {"type": "text", "text": "o"}, {"type": "text_delta", "text": "k"}))
    assert answer.text == "ok"
    assert answer.finish.usage == Usage(125, 9)
    assert answer.finish.model == "claude-x"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
@on_a_loop
async def test_the_reason_of_the_end(reason: str, told: str) -> None:
    """The reasons of the API are told by the names of the port."""
    assert (await scripted(reason=reason)).finish.reason == told


@on_a_loop
async def test_malformed_arguments() -> None:
    """Arguments that are no JSON object come as they were written; going back, they are an object."""
    written = {"type": "input_json_delta", "partial_json": '{"x": '}
    answer = await scripted(*_block(0, {"type": "tool_use", "id": "a", "name": "get_time", "input": {}}, written))
    assert answer.calls == [ToolCall("get_time", {"": '{"x": '}, "a")]
    body = await sent("hello", Message.assistant(tool_calls=tuple(answer.calls)))
    assert body["messages"][1]["content"][0]["input"] == {"malformed": '{"x": '}


@on_a_loop
async def test_what_servers_run_themselves_is_left_out() -> None:
    """Tools that the API runs by itself are no calls."""
    written = {"type": "input_json_delta", "partial_json": '{"query": "x"}'}
    block = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    answer = await scripted({"type": "ping"}, *_block(0, block, written), *_block(1, {"type": "text", "text": "ok"}))
    assert (answer.calls, answer.text) == ([], "ok")


@pytest.mark.parametrize(
    ("kind", "status", "again"),
    [
        ("overloaded_error", 529, True),
        ("rate_limit_error", 429, True),
        ("api_error", 500, True),
        ("invalid_request_error", 400, False),
        ("something_new", None, True),
    ],
)
@on_a_loop
async def test_an_error_in_mid_stream(kind: str, status: int | None, again: bool) -> None:
    """An error among the events ends the call, and says whether another try may help."""
    told = {"type": "error", "error": {"type": kind, "message": "no"}}
    async with serving(stream(*events(_START, told))) as server:
        async with AnthropicProvider("m", base_url=server.url) as anthropic:
            caught = await failed(anthropic)
    assert (caught.status, caught.retryable) == (status, again)
    assert str(caught) == "anthropic gave up in the middle of the answer: no"


@on_a_loop
async def test_an_error_of_the_server(mock: Mock) -> None:
    """What the server says is in the error."""
    async with provider(mock) as anthropic:
        caught = await failed(anthropic, "bad")
    assert str(caught) == "anthropic answered 400 for model 'claude-sonnet-5-5': no such thing"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Message.user(Audio(b"", 8000)), "anthropic takes no Audio in a message of role 'user'"),
        (Message.user(Video(b"", "video/mp4")), "anthropic takes no Video in a message of role 'user'"),
        (Message.assistant(Image(b"")), "anthropic takes no Image in a message of role 'assistant'"),
        (Message("tool", (Text("text"),)), "a message of role 'tool' holds ToolResults only, got a Text"),
    ],
)
@on_a_loop
async def test_parts_that_it_does_not_take(message: Message, told: str) -> None:
    """A part that the API has no place for is an error, and no other try will help."""
    anthropic = AnthropicProvider("m", base_url="http://localhost:9")
    caught = await failed(anthropic, message)
    await anthropic.aclose()
    assert (str(caught), caught.retryable) == (told, False)


@on_a_loop
async def test_names_of_tools() -> None:
    """A tool whose name the API would refuse is an error that says what fits."""
    anthropic = AnthropicProvider("m", base_url="http://localhost:9")
    caught = await failed(anthropic, "hello", tools=(ToolSpec("get weather"),))
    await anthropic.aclose()
    assert "letters, digits, _ and -, at most 128" in str(caught)


@on_a_loop
async def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the first call says which variable of the environment it comes from."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    caught = await failed(AnthropicProvider("m"))
    assert not caught.retryable
    assert "set ANTHROPIC_API_KEY in the environment" in str(caught)


@on_a_loop
async def test_another_way_to_say_who_one_is() -> None:
    """What the SDK takes instead of a key does, too."""
    async with serving(stream(*_done())) as server:
        async with AnthropicProvider("m", base_url=server.url, auth_token="token-1") as anthropic:
            await ask(anthropic, "hello")
        assert server.asked[0].headers["authorization"] == "Bearer token-1"
