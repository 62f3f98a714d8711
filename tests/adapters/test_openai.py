"""`OpenAIProvider`: what it sends and what it makes of the answers, against a server that speaks the API."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest
from aimock import Mock, running
from asking import TOOLS, WAIT, Answer, ask, failed, on_a_loop, request
from faults import error, events, serving, stream

from rxstage import Audio, Data, Image, Message, Text, ToolCall, ToolResult, Usage, Video
from rxstage.adapters.openai import OpenAIProvider
from rxstage.ports import OutputSpec, Thinking, ToolSpec

pytestmark = pytest.mark.needs("module:openai")

_PERSON: Final = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
_FIXTURES: Final[list[dict[str, Any]]] = [
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {
            "content": "Let me see.",
            "toolCalls": [
                {"id": "call_1", "name": "get_weather", "arguments": {"city": "Oslo", "note": "ä" * 60}},
                {"id": "call_2", "name": "get_time", "arguments": {}},
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
            "model": "gpt-5.2-2025-12-11",
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        },
    },
]


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mock]:
    """The server."""
    with running(_FIXTURES, tmp_path_factory.mktemp("aimock")) as server:
        yield server


def provider(mock: Mock, **options: Any) -> OpenAIProvider:
    """A provider of that server, whose journal is empty."""
    mock.forget()
    return OpenAIProvider("gpt-5.2", base_url=f"{mock.url}/v1", api_key=mock.key, **options)


def _sent_call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


async def asked(mock: Mock, *messages: Message | str, **options: Any) -> tuple[Answer, dict[str, Any]]:
    """The answer, and the body of the one request that was made for it."""
    async with provider(mock) as openai:
        answer = await ask(openai, *messages, **options)
    (entry,) = mock.journal("/v1/chat/completions")
    return answer, entry["body"]


@on_a_loop
async def test_text(mock: Mock) -> None:
    """Text streams in pieces; the end has the reason, the tokens, and the model that answered."""
    answer, body = await asked(mock, "hello")
    assert answer.text == "Hello there, how are you?"
    assert len(answer.events) > 2
    assert answer.finish.reason == "stop"
    assert answer.finish.usage == Usage(11, 7)
    assert answer.finish.model == "gpt-5.2-2025-12-11"
    assert (body["model"], body["stream"], body["stream_options"]) == ("gpt-5.2", True, {"include_usage": True})
    assert "tools" not in body
    assert "response_format" not in body


@on_a_loop
async def test_tool_calls(mock: Mock) -> None:
    """Calls that stream in pieces come whole, with their arguments decoded, before the end."""
    answer, body = await asked(mock, "weather?", tools=TOOLS)
    assert answer.text == "Let me see."
    assert answer.calls == [
        ToolCall("get_weather", {"city": "Oslo", "note": "ä" * 60}, "call_1"),
        ToolCall("get_time", {}, "call_2"),
    ]
    assert answer.finish.reason == "tool_calls"
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather of a place.",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        },
        {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert "tool_choice" not in body


@on_a_loop
async def test_a_conversation_with_results(mock: Mock) -> None:
    """Messages keep their places: system messages, calls, one message for each result; an error is told as one."""
    calls = (ToolCall("get_weather", {"city": "Oslo"}, "call_1"), ToolCall("get_time", {}, "call_2"))
    answer, body = await asked(
        mock,
        Message.system("Be brief."),
        Message("user", (Text("weather?"),), name="ann"),
        Message.assistant("Let me see.", tool_calls=calls),
        Message("tool", (ToolResult("call_1", {"t": -3}), ToolResult("call_2", "no clock", is_error=True))),
        Message.system("Be kind."),
        tools=TOOLS,
    )
    assert answer.text == "It is cold."
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "weather?", "name": "ann"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'},
                },
                {"id": "call_2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"t":-3}'},
        {"role": "tool", "tool_call_id": "call_2", "content": "Error: no clock"},
        {"role": "system", "content": "Be kind."},
    ]


@on_a_loop
async def test_the_order_of_tools(mock: Mock) -> None:
    """Over 100 calls the tools are sent in the same order, and each call is one request."""
    tools = tuple(ToolSpec(f"tool_{number * 7 % 10}") for number in range(10))
    async with provider(mock) as openai:
        for _ in range(100):
            await ask(openai, "hello", tools=tools)
    journal = mock.journal("/v1/chat/completions")
    orders = {tuple(tool["function"]["name"] for tool in entry["body"]["tools"]) for entry in journal}
    assert len(journal) == 100
    assert orders == {tuple(tool.name for tool in tools)}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("none", "none"),
        ("required", "required"),
        ("get_time", {"type": "function", "function": {"name": "get_time"}}),
    ],
)
@on_a_loop
async def test_the_choice_of_tools(mock: Mock, choice: str, sent: object) -> None:
    """What may be called is told as the API has it."""
    _, body = await asked(mock, "hello", tools=TOOLS, tool_choice=choice)
    assert body["tool_choice"] == sent


@on_a_loop
async def test_media(mock: Mock) -> None:
    """Images, audio and data go along with the text; a frame of video is an image."""
    frame = Video(b"frame", "image/jpeg")
    audio = Audio(b"\x01\x00\x02\x00", 8000)
    answer, body = await asked(
        mock, Message.user("what is on the picture?", Image(b"png", "image/png"), frame, audio, Data({"hint": 1}))
    )
    assert answer.text == "A cat."
    (message,) = body["messages"]
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["text", "image_url", "image_url", "input_audio", "text"]
    assert message["content"][1]["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(b'png').decode()}"
    assert message["content"][2]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert message["content"][3]["input_audio"]["format"] == "wav"
    assert base64.b64decode(message["content"][3]["input_audio"]["data"])[:4] == b"RIFF"
    assert message["content"][4]["text"] == '{"hint":1}'


@on_a_loop
async def test_text_and_data_alone_are_a_string(mock: Mock) -> None:
    """Without media, the content is one string, which every compatible server takes."""
    _, body = await asked(mock, Message.user("hello ", Data([1, 2])))
    assert body["messages"] == [{"role": "user", "content": "hello [1,2]"}]


@on_a_loop
async def test_structured_output(mock: Mock) -> None:
    """The schema goes along in the strict form, and the answer is the JSON text."""
    answer, body = await asked(mock, "person?", output=OutputSpec("person", _PERSON, "Somebody."))
    assert json.loads(answer.text) == {"name": "Ann", "age": 7}
    assert len(answer.events) > 3
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "person",
            "description": "Somebody.",
            "strict": True,
            "schema": {**_PERSON, "additionalProperties": False},
        },
    }


@on_a_loop
async def test_a_schema_that_cannot_be_strict(mock: Mock) -> None:
    """A schema with a property that may be left out goes along as it is."""
    schema = {**_PERSON, "required": ["name"]}
    _, body = await asked(mock, "person?", output=OutputSpec("person", schema))
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}


@on_a_loop
async def test_parameters(mock: Mock) -> None:
    """Parameters go along by their names, known or not; headers and what a server has of its own, too."""
    parameters = {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 30,
        "stop": ["END"],
        "seed": 7,
        "repetition_penalty": 1.1,
        "stream_options": None,
        "extra_body": {"top_k": 5},
        "extra_headers": {"x-mine": "yes"},
        "timeout": 20.0,
    }
    _, body = await asked(mock, "hello", parameters=parameters)
    sent = {name: body[name] for name in body if name not in ("messages", "model", "stream", "_endpointType")}
    assert sent == {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 30,
        "stop": ["END"],
        "seed": 7,
        "repetition_penalty": 1.1,
        "top_k": 5,
    }
    (entry,) = mock.journal("/v1/chat/completions")
    assert entry["headers"]["x-mine"] == "yes"
    assert entry["headers"]["x-stainless-read-timeout"] == "20.0"


@on_a_loop
async def test_max_tokens_of_openai_itself() -> None:
    """OpenAI's own server gets the limit by the name that its newer models want."""
    openai = OpenAIProvider("gpt-5.2", api_key="none")
    connection = await openai._connections.get()
    body, _ = openai._body(request("hello", parameters={"max_tokens": 30}), "gpt-5.2", connection)
    await openai.aclose()
    assert body["max_completion_tokens"] == 30
    assert "max_tokens" not in body


@on_a_loop
async def test_the_model_of_a_request(mock: Mock) -> None:
    """A request may ask another model than the provider's; with neither, the error says so."""
    _, body = await asked(mock, "hello", model="gpt-5.2-mini")
    assert body["model"] == "gpt-5.2-mini"
    caught = await failed(OpenAIProvider(base_url=mock.url))
    assert "which model of openai?" in str(caught)


@on_a_loop
async def test_thinking(mock: Mock) -> None:
    """What a model thinks comes apart from its answer."""
    answer, _ = await asked(mock, "think")
    assert (answer.thoughts, answer.text) == ("six times seven", "42")
    assert isinstance(answer.events[0], Thinking)


@on_a_loop
async def test_the_reason_of_the_end(mock: Mock) -> None:
    """An answer that hit the limit says so."""
    answer, _ = await asked(mock, "a long one")
    assert answer.finish.reason == "length"


@on_a_loop
async def test_an_error_of_the_server(mock: Mock) -> None:
    """What the server says is in the error."""
    async with provider(mock) as openai:
        caught = await failed(openai, "bad")
    assert str(caught) == "openai answered 400 for model 'gpt-5.2': no such thing"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Message.user(Video(b"", "video/mp4")), "openai takes no Video in a message of role 'user'"),
        (Message.assistant(Image(b"")), "openai takes no Image in a message of role 'assistant'"),
        (Message.system(Image(b"")), "openai takes no Image in a message of role 'system'"),
        (Message("tool", (Text("text"),)), "a message of role 'tool' holds ToolResults only, got a Text"),
        (Message.user(Data(object())), "openai: a object has no JSON form for a model"),
    ],
)
@on_a_loop
async def test_parts_that_it_does_not_take(message: Message, told: str) -> None:
    """A part that the API has no place for is an error before anything is sent, and no other try will help."""
    async with serving(error(500, {})) as server:
        async with OpenAIProvider("m", base_url=server.url) as openai:
            caught = await failed(openai, message)
        assert told in str(caught)
        assert not caught.retryable
        assert server.asked == []


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("get weather",), "tool 'get weather' has a name that openai does not take: letters, digits, _ and -"),
        (("twice", "twice"), "tool 'twice' is offered twice"),
    ],
)
@on_a_loop
async def test_names_of_tools(names: tuple[str, ...], told: str) -> None:
    """A tool whose name the API would refuse is an error that says what fits."""
    openai = OpenAIProvider("m", base_url="http://localhost:9")
    caught = await failed(openai, "hello", tools=tuple(map(ToolSpec, names)))
    await openai.aclose()
    assert told in str(caught)


def _chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"delta": delta, "finish_reason": reason}], **more}


def _piece(**piece: Any) -> dict[str, Any]:
    function = {name: piece.pop(name) for name in ("name", "arguments") if name in piece}
    return _chunk({"tool_calls": [{**piece, "function": function}]})


async def scripted(*data: object) -> Answer:
    """The answer of a server that sends this."""
    async with serving(stream(*events(*data))) as server, OpenAIProvider("m", base_url=server.url) as openai:
        return await ask(openai, "hello")


@on_a_loop
async def test_malformed_arguments() -> None:
    """Arguments that are no JSON object come as they were written, under a name that no tool has."""
    answer = await scripted(
        _piece(index=0, id="a", name="f", arguments='{"x": '),
        _piece(index=1, id="b", name="g", arguments="[1]"),
        "[DONE]",
    )
    assert answer.calls == [ToolCall("f", {"": '{"x": '}, "a"), ToolCall("g", {"": "[1]"}, "b")]


@on_a_loop
async def test_malformed_arguments_go_back_as_they_were(mock: Mock) -> None:
    """The model gets to see what it wrote."""
    call = ToolCall("get_time", {"": '{"x": '}, "a")
    _, body = await asked(
        mock, "hello", Message.assistant(tool_calls=(call,)), Message("tool", (ToolResult("a", "bad"),))
    )
    assert body["messages"][1] == {
        "role": "assistant",
        "tool_calls": [_sent_call("a", "get_time", '{"x": ')],
    }


@pytest.mark.parametrize(
    "pieces",
    [
        [{"index": 0, "id": "a", "name": "f", "arguments": ""}, {"index": 0, "arguments": "{}"}]
        + [{"index": 1, "id": "b", "name": "g"}, {"index": 1, "arguments": '{"x":1}'}],
        [
            {"index": 0, "id": "a", "name": "f", "arguments": "{}"},
            {"index": 0, "id": "b", "name": "g", "arguments": {"x": 1}},
        ],
        [{"id": "a", "name": "f"}, {"id": "b", "name": "g", "arguments": '{"x":1}'}],
        [{"index": 0, "id": "a", "name": "f"}, {"index": 1, "id": "b", "name": "g", "arguments": '{"x":'}]
        + [{"index": 0, "id": "a", "arguments": "{}"}, {"index": 1, "arguments": "1}"}],
    ],
    ids=["in order", "one index for all", "no index", "interleaved"],
)
@on_a_loop
async def test_how_servers_send_calls(pieces: list[dict[str, Any]]) -> None:
    """Calls are put together whatever a server makes of their indices, and the end says that there were some."""
    answer = await scripted(*(_piece(**piece) for piece in pieces), _chunk({}, "stop"), "[DONE]")
    assert answer.calls == [ToolCall("f", {}, "a"), ToolCall("g", {"x": 1}, "b")]
    assert answer.finish.reason == "tool_calls"


@on_a_loop
async def test_a_call_without_an_id() -> None:
    """A call that has no id gets one, so that its result can refer to it."""
    answer = await scripted(_piece(index=0, name="f"), _piece(index=1, name="g"), _chunk({}, "tool_calls"))
    first, second = answer.calls
    assert first.id.startswith("call_")
    assert first.id != second.id


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@on_a_loop
async def test_thinking_of_compatible_servers(field: str) -> None:
    """Both names that servers have for it are known; text as a list of parts is text."""
    answer = await scripted(
        _chunk({field: "hm"}), _chunk({"content": [{"type": "text", "text": "ok"}]}), _chunk(None, "stop")
    )
    assert answer.events[:2] == [Thinking("hm"), "ok"]


@on_a_loop
async def test_a_refusal() -> None:
    """A refusal is text, and the end says that it is one."""
    answer = await scripted(_chunk({"refusal": "I cannot"}), _chunk({}, "stop"), "[DONE]")
    assert (answer.text, answer.finish.reason) == ("I cannot", "content_filter")


@on_a_loop
async def test_an_end_without_a_reason() -> None:
    """A server that only says that it is done has stopped."""
    answer = await scripted(_chunk({"content": "ok"}), "[DONE]")
    assert answer.finish.reason == "stop"
    assert answer.finish.usage is None


@pytest.mark.parametrize(
    ("told", "again"),
    [
        ({"message": "overloaded", "type": "server_error"}, True),
        ({"message": "overloaded", "code": 503}, True),
        ({"message": "no", "code": 400}, False),
        ({"message": "no", "type": "invalid_request_error"}, False),
        ("overloaded", True),
    ],
)
@on_a_loop
async def test_an_error_in_mid_stream(told: object, again: bool) -> None:
    """An error among the chunks ends the call, and says whether another try may help."""
    sent = stream(*events(_chunk({"content": "first"}), {"error": told}))
    async with serving(sent) as server, OpenAIProvider("m", base_url=server.url) as openai:
        caught = await failed(openai)
    assert caught.retryable is again
    assert "gave up in the middle of the answer" in str(caught)


@on_a_loop
async def test_a_quota_that_is_used_up() -> None:
    """A 429 that no waiting will help against says so."""
    body = {"error": {"message": "pay first", "code": "insufficient_quota"}}
    async with serving(error(429, body)) as server, OpenAIProvider("m", base_url=server.url) as openai:
        caught = await failed(openai)
    assert (caught.status, caught.retryable) == (429, False)


@on_a_loop
async def test_a_server_that_says_what_to_do() -> None:
    """A server's own word on whether to retry goes before the status."""
    refusals = [error(429, {}, "x-should-retry: false\r\n"), error(400, {}, "x-should-retry: true\r\n")]
    async with serving(*refusals) as server, OpenAIProvider("m", base_url=server.url) as openai:
        assert [(await failed(openai)).retryable for _ in refusals] == [False, True]


@on_a_loop
async def test_preparing() -> None:
    """Preparing opens the connection that the call then uses, once in 30 seconds, and never raises."""
    sent = stream(*events(_chunk({"content": "ok"}, "stop"), "[DONE]"))
    async with serving(sent) as server, OpenAIProvider("m", base_url=server.url) as openai:
        await openai.prepare()
        await openai.prepare()
        assert (len(server.early), server.connections) == (1, 1)
        assert "authorization" not in server.early[0].headers
        await ask(openai, "hello")
        assert (len(server.asked), server.connections) == (1, 1)
    await OpenAIProvider("m", base_url="http://localhost:9").prepare()
    await OpenAIProvider("m", base_url="nonsense").prepare()


@on_a_loop
async def test_preparing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was prepared too long ago is prepared again."""
    monkeypatch.setattr("rxstage.adapters._sdk._FRESH", 0.0)
    async with serving(error(500, {})) as server, OpenAIProvider("m", base_url=server.url) as openai:
        await openai.prepare()
        await openai.prepare()
        assert len(server.early) == 2


@on_a_loop
async def test_preparing_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a connection and says nothing does not hold up who prepares."""
    monkeypatch.setattr("rxstage.adapters._sdk._PREPARE", 0.1)
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client has gone away
        writer.close()
        asked.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with OpenAIProvider("m", base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as openai:
        await openai.prepare()
        await asyncio.wait_for(asked.wait(), WAIT)
    server.close()
    await server.wait_closed()


@on_a_loop
async def test_preparing_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing does not raise where a key is missing, either; the call does."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    openai = OpenAIProvider("m")
    await openai.prepare()
    assert "set OPENAI_API_KEY" in str(await failed(openai))


def test_several_loops() -> None:
    """Each loop has connections of its own, which end with it; the object serves the next."""
    openai: list[OpenAIProvider] = []

    async def once() -> int:
        sent = stream(*events(_chunk({"content": "ok"}, "stop"), "[DONE]"))
        async with serving(sent) as server:
            provider = OpenAIProvider("m", base_url=server.url)
            openai.append(provider)
            await asyncio.gather(*(ask(provider, "hello") for _ in range(3)))
            return len(server.asked)

    async def again() -> None:
        provider = openai[0]
        assert (await failed(provider)).retryable  # the server is gone, the loop another

    assert asyncio.run(once()) == 3
    asyncio.run(again())


def test_nothing_is_imported_before_it_is_used() -> None:
    """The module of a provider does not import the SDK."""
    late = {"openai", "anthropic", "google.genai", "pydantic_ai", "httpx2", "genai_prices"}
    code = f"import sys, rxstage.adapters.models; print(sorted({late} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_options_are_checked() -> None:
    """A timeout must be positive; a name and an address are shown, credentials in it are not."""
    with pytest.raises(ValueError, match="timeout must be above 0 s, got 0"):
        OpenAIProvider("m", timeout=0)
    openai = OpenAIProvider("m", base_url="http://ann:secret@localhost:1/v1", name="mine")
    assert openai.name == "mine"
    assert repr(openai) == "OpenAIProvider('m', base_url='http://localhost:1/v1')"
