"""`GoogleProvider`: what it sends and what it makes of the answers, against a server that speaks the API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from aimock import Mock, running
from asking import TOOLS, Answer, ask, failed, on_a_loop
from faults import error, events, serving, stream

from rxstage import Audio, Data, Image, Message, Text, ToolCall, ToolResult, Usage, Video
from rxstage.adapters.google import GoogleProvider
from rxstage.ports import OutputSpec, Thinking, ToolSpec

pytestmark = [
    pytest.mark.needs("module:google.genai"),
    pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid FinishReason"),  # which aimock sends
]

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
    },
    {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": "It is cold."}},
    {"match": {"userMessage": "person"}, "response": {"content": {"name": "Ann", "age": 7}}, "chunkSize": 4},
    {"match": {"userMessage": "picture"}, "response": {"content": "A cat."}},
    {"match": {"userMessage": "think"}, "response": {"content": "42", "reasoning": "six times seven"}},
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


def provider(mock: Mock, **options: Any) -> GoogleProvider:
    """A provider of that server, whose journal is empty."""
    mock.forget()
    version = {"api_version": "v1beta"}  # the one that aimock speaks
    return GoogleProvider("gemini-3-flash", base_url=mock.url, api_key=mock.key, http_options=version, **options)


async def asked(mock: Mock, *messages: Message | str, **options: Any) -> tuple[Answer, dict[str, Any]]:
    """The answer, and the body of a request for it, as it was sent."""
    async with provider(mock) as google:
        answer = await ask(google, *messages, **options)
    assert len(mock.journal("streamGenerateContent")) == 1
    return answer, await sent(*messages, **options)


async def sent(*messages: Message | str, **options: Any) -> dict[str, Any]:
    """The body of a request, byte for byte; the journal of aimock has it in OpenAI's form."""
    async with serving(stream(*_done())) as server, GoogleProvider("gemini-3-flash", base_url=server.url) as google:
        await ask(google, *messages, **options)
        (one,) = server.asked
        assert one.path.endswith("/models/gemini-3-flash:streamGenerateContent?alt=sse")
        return dict(one.body)


def _named(sent: dict[str, Any], name: str) -> Any:
    """A field under either of the names that the API has for it; the SDK sends both forms."""
    first, *words = name.split("_")
    return sent.get(name, sent.get(first + "".join(map(str.capitalize, words))))


def _chunk(*parts: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], **more}


def _done(*before: object, reason: str = "STOP") -> list[bytes]:
    return events(*before, _chunk(reason=reason))


async def scripted(*before: object, reason: str = "STOP") -> Answer:
    """The answer of a server that sends this before the end."""
    async with serving(stream(*_done(*before, reason=reason))) as server:
        async with GoogleProvider("gemini-3-flash", base_url=server.url) as google:
            return await ask(google, "hello")


@on_a_loop
async def test_text(mock: Mock) -> None:
    """Text streams in pieces; the end has the reason, the tokens, and the model that answered."""
    answer, body = await asked(mock, "hello")
    assert answer.text == "Hello there, how are you?"
    assert len(answer.events) > 2
    assert answer.finish.reason == "stop"
    usage = answer.finish.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (11, 7)
    assert answer.finish.model == "gemini-3-flash"
    assert body["contents"] == [{"role": "user", "parts": [{"text": "hello"}]}]
    assert not {"tools", "systemInstruction"} & body.keys()


@on_a_loop
async def test_tool_calls(mock: Mock) -> None:
    """Calls come with their arguments, before the end, which says that there were some."""
    answer, body = await asked(mock, "weather?", tools=TOOLS)
    assert answer.text == "Let me see."
    assert answer.calls == [
        ToolCall("get_weather", {"city": "Oslo", "note": "ä" * 60}, "call_1"),
        ToolCall("get_time", {}, "call_2"),
    ]
    assert answer.finish.reason == "tool_calls"
    (offered,) = body["tools"]
    first, second = offered["functionDeclarations"]
    assert (first["name"], first["description"]) == ("get_weather", "The weather of a place.")
    assert _named(first, "parameters_json_schema") == {"type": "object", "properties": {"city": {"type": "string"}}}
    assert second["name"] == "get_time"
    assert "toolConfig" not in body


@on_a_loop
async def test_a_conversation_with_results(mock: Mock) -> None:
    """System messages become the instruction; results of tools one content, by name; an error is told as one."""
    calls = (ToolCall("get_weather", {"city": "Oslo"}, "call_1"), ToolCall("get_time", {}, "call_2"))
    answer, body = await asked(
        mock,
        Message.system("Be brief."),
        Message.user("weather?"),
        Message.assistant("Let me see.", tool_calls=calls),
        Message("tool", (ToolResult("call_1", {"t": -3}),)),
        Message("tool", (ToolResult("call_2", "no clock", "get_time", is_error=True),)),
        Message.assistant(),
        Message.system("Be kind."),
        tools=TOOLS,
    )
    assert answer.text == "It is cold."
    assert body["systemInstruction"]["parts"] == [{"text": "Be brief."}, {"text": "Be kind."}]
    unknown = base64.b64encode(b"skip_thought_signature_validator").decode()
    user, model, tool = body["contents"]
    assert user == {"role": "user", "parts": [{"text": "weather?"}]}
    assert model["role"] == "model"
    assert model["parts"] == [
        {"text": "Let me see."},
        {
            "functionCall": {"id": "call_1", "name": "get_weather", "args": {"city": "Oslo"}},
            "thoughtSignature": unknown,
        },
        {"functionCall": {"id": "call_2", "name": "get_time", "args": {}}},
    ]
    assert tool == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "call_1", "name": "get_weather", "response": {"output": '{"t":-3}'}}},
            {"functionResponse": {"id": "call_2", "name": "get_time", "response": {"error": "no clock"}}},
        ],
    }


@on_a_loop
async def test_a_result_of_an_unknown_tool() -> None:
    """A result whose tool nobody has named is an error that says so."""
    google = GoogleProvider("m", base_url="http://localhost:9")
    caught = await failed(google, Message("tool", (ToolResult("call_9", 1),)))
    await google.aclose()
    assert "wants the name of the tool with its result: the ToolResult for call 'call_9' has none" in str(caught)


@on_a_loop
async def test_the_order_of_tools(mock: Mock) -> None:
    """Over 100 calls the tools are sent in the same order, and each call is one request."""
    tools = tuple(ToolSpec(f"tool_{number * 7 % 10}") for number in range(10))
    async with provider(mock) as google:
        for _ in range(100):
            await ask(google, "hello", tools=tools)
    journal = mock.journal("streamGenerateContent")
    orders = {tuple(tool["function"]["name"] for tool in entry["body"]["tools"]) for entry in journal}
    assert len(journal) == 100
    assert orders == {tuple(tool.name for tool in tools)}


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("get_time", {"mode": "ANY", "allowedFunctionNames": ["get_time"]}),
    ],
)
@on_a_loop
async def test_the_choice_of_tools(choice: str, told: object) -> None:
    """What may be called is told as the API has it."""
    body = await sent("hello", tools=TOOLS, tool_choice=choice)
    assert body["toolConfig"]["functionCallingConfig"] == told


@on_a_loop
async def test_media(mock: Mock) -> None:
    """Images, audio and video go along with the text."""
    message = Message.user("what is on the picture?", Image(b"png"), Audio(b"\0\0", 8000), Video(b"mp4"), Data([1]))
    answer, body = await asked(mock, message)
    assert answer.text == "A cat."
    parts = body["contents"][0]["parts"]
    kinds = [part.get("text") or part["inlineData"]["mimeType"] for part in parts]
    assert kinds == ["what is on the picture?", "image/png", "audio/wav", "video/mp4", "[1]"]
    assert base64.b64decode(parts[1]["inlineData"]["data"]) == b"png"
    assert base64.b64decode(parts[2]["inlineData"]["data"])[:4] == b"RIFF"


@on_a_loop
async def test_structured_output(mock: Mock) -> None:
    """The schema goes along, and the answer is the JSON text."""
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    answer, body = await asked(mock, "person?", output=OutputSpec("person", schema))
    assert json.loads(answer.text) == {"name": "Ann", "age": 7}
    assert len(answer.events) > 3
    config = body["generationConfig"]
    assert (config["responseMimeType"], config["responseJsonSchema"]) == ("application/json", schema)


@on_a_loop
async def test_parameters() -> None:
    """Parameters go along by the names that the API has for them."""
    parameters = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 30, "stop": "END", "seed": 7, "top_k": 5}
    more = {"extra_headers": {"x-mine": "yes"}, "extra_body": {"labels": {"a": "b"}}, "timeout": 20.0}
    async with serving(stream(*_done())) as server, GoogleProvider("gemini-3-flash", base_url=server.url) as google:
        await ask(google, "hello", parameters={**parameters, **more, "presence_penalty": None})
        (one,) = server.asked
    config = one.body["generationConfig"]
    assert config == {
        "temperature": 0.5,
        "topP": 0.9,
        "maxOutputTokens": 30,
        "stopSequences": ["END"],
        "seed": 7,
        "topK": 5,
    }
    assert one.headers["x-mine"] == "yes"
    assert one.body["labels"] == {"a": "b"}


@on_a_loop
async def test_a_parameter_that_it_does_not_have() -> None:
    """A parameter that the API does not have is an error before anything is sent."""
    async with serving(error(500, {})) as server, GoogleProvider("m", base_url=server.url) as google:
        caught = await failed(google, parameters={"repetition_penalty": 1.1})
        assert "google does not take these parameters" in str(caught)
        assert "repetition_penalty" in str(caught)
        assert not caught.retryable
        assert server.asked == []


@on_a_loop
async def test_thinking(mock: Mock) -> None:
    """What a model thinks comes apart from its answer."""
    answer, _ = await asked(mock, "think")
    assert (answer.thoughts, answer.text) == ("six times seven", "42")
    assert isinstance(answer.events[0], Thinking)


@on_a_loop
async def test_signatures_go_back_with_their_calls() -> None:
    """The signature of a call goes back with it, on every later request; older models need none."""
    signed = base64.b64encode(b"signed").decode()
    call = {"functionCall": {"name": "get_time", "args": {"zone": "UTC"}}, "thoughtSignature": signed}
    async with serving(stream(*_done(_chunk(call)))) as server:
        async with GoogleProvider("gemini-3-flash", base_url=server.url) as google:
            answer = await ask(google, "hello")
            (made,) = answer.calls
            assert made.id.startswith("call_")
            told = Message("tool", (ToolResult(made.id, "noon"),))
            await ask(google, "hello", Message.assistant(tool_calls=(made,)), told)
            other = ToolCall("get_time", {}, "x")
            result = Message("tool", (ToolResult("x", "noon"),))
            await ask(google, "hello", Message.assistant(tool_calls=(other,)), result, model="gemini-2.5-flash")
        first, second = (each.body["contents"][1]["parts"][0] for each in server.asked[1:])
        assert base64.b64decode(first["thoughtSignature"]) == b"signed"
        assert "thoughtSignature" not in second


@on_a_loop
async def test_tokens_of_thinking_count() -> None:
    """What a model thinks counts as tokens that came out."""
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 3, "thoughtsTokenCount": 20, "toolUsePromptTokenCount": 2}
    answer = await scripted(_chunk({"text": "ok"}, usageMetadata=usage, modelVersion="gemini-x"))
    assert answer.finish.usage == Usage(12, 23)
    assert answer.finish.model == "gemini-x"


@pytest.mark.parametrize(
    ("reason", "told"),
    [("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("MALFORMED_FUNCTION_CALL", "malformed_function_call")],
)
@on_a_loop
async def test_the_reason_of_the_end(reason: str, told: str) -> None:
    """The reasons of the API are told by the names of the port, or as the API calls them."""
    assert (await scripted(_chunk({"text": "a"}), reason=reason)).finish.reason == told


@on_a_loop
async def test_a_prompt_that_is_blocked() -> None:
    """A prompt that the filter stops is an empty answer that says so."""
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}}
    async with serving(stream(*events(blocked))) as server, GoogleProvider("m", base_url=server.url) as google:
        answer = await ask(google, "hello")
    assert (answer.text, answer.finish.reason) == ("", "content_filter")


@on_a_loop
async def test_when_to_try_again() -> None:
    """Google says in the body how long to wait."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    body = {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED", "details": [info]}}
    async with serving(error(429, body)) as server, GoogleProvider("m", base_url=server.url) as google:
        caught = await failed(google)
    assert (caught.status, caught.retryable, caught.retry_after) == (429, True, 34.5)
    assert str(caught) == "google answered 429 for model 'm': slow down"


@on_a_loop
async def test_an_error_of_the_server(mock: Mock) -> None:
    """What the server says is in the error."""
    async with provider(mock) as google:
        caught = await failed(google, "bad")
    assert str(caught) == "google answered 400 for model 'gemini-3-flash': no such thing"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Message.system(Image(b"")), "google takes no Image in a message of role 'system'"),
        (Message.user(ToolCall("f")), "google takes no ToolCall in a message of role 'user'"),
        (Message("tool", (Text("text"),)), "a message of role 'tool' holds ToolResults only, got a Text"),
    ],
)
@on_a_loop
async def test_parts_that_it_does_not_take(message: Message, told: str) -> None:
    """A part that the API has no place for is an error, and no other try will help."""
    google = GoogleProvider("m", base_url="http://localhost:9")
    caught = await failed(google, message)
    await google.aclose()
    assert (str(caught), caught.retryable) == (told, False)


@pytest.mark.parametrize("name", ["get weather", "1st"])
@on_a_loop
async def test_names_of_tools(name: str) -> None:
    """A tool whose name the API would refuse is an error that says what fits."""
    google = GoogleProvider("m", base_url="http://localhost:9")
    caught = await failed(google, "hello", tools=(ToolSpec(name),))
    await google.aclose()
    assert "a letter or _, then letters, digits" in str(caught)


@on_a_loop
async def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the first call says which variables of the environment it comes from; either will do."""
    for variable in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"):
        monkeypatch.delenv(variable, raising=False)
    caught = await failed(GoogleProvider("m"))
    assert not caught.retryable
    assert "set GOOGLE_API_KEY or GEMINI_API_KEY in the environment" in str(caught)
    monkeypatch.setenv("GEMINI_API_KEY", "one")
    assert GoogleProvider("m")._key() == "one"
