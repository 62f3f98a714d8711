"""OpenAI, and every server that speaks its chat completions: Ollama, vLLM, llama.cpp, LM Studio …"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from rxstage.adapters._errors import broke_off, retryable
from rxstage.adapters._messages import NAMES, NAMES_RULE, call_of, check_tools, json_text
from rxstage.adapters._openai_messages import messages_of
from rxstage.adapters._schema import strict_schema
from rxstage.adapters._sdk import Connection, SdkProvider, timeouts_of
from rxstage.adapters._sse import EventData, read_rest
from rxstage.adapters.prices import usage_of
from rxstage.content import ToolCall
from rxstage.errors import require
from rxstage.ports.provider import Finish, ModelEvent, ModelRequest, ProviderError, Thinking

__all__ = ["OpenAIProvider"]

_REASONS: Final = {"function_call": "tool_calls"}
_FINAL: Final = frozenset({"invalid_request_error", "authentication_error", "permission_error", "not_found_error"})


class OpenAIProvider(SdkProvider):
    """Models behind OpenAI's chat completions, through the official SDK (extra `openai`).

    The SDK makes the request, once; its own retries are off. What streams back is decoded here, which costs a tenth
    of what its models do.

    Args:
        model: the model that it asks where a request names none.
        base_url: of a compatible server.
        api_key: by default the environment's `OPENAI_API_KEY`, if no `base_url` is given. A server that wants no key
            needs none.
        timeout: seconds to wait for the next piece of an answer.
        name: what to call it in errors, events and metrics.
        client: what else `openai.AsyncOpenAI` takes: `organization`, `default_headers` …
    """

    name = "openai"
    extra: ClassVar[str] = "openai"
    variables: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)

    async def _open(self) -> Connection:
        key = self._key()
        openai = require("openai", self.extra)
        http = self._http(openai.DefaultAsyncHttpxClient)
        address: dict[str, Any] = {} if self.base_url is None else {"base_url": self.base_url}
        limits = timeouts_of(self.timeout, self.extra)
        client = openai.AsyncOpenAI(
            api_key=key, http_client=http, max_retries=0, timeout=limits, **address, **self._options
        )
        return Connection(client, http, str(client.base_url))

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Ask, and give what comes back as it comes; see `Provider`."""
        model = self._asked(request)
        with self._told(model):
            connection = await self._connections.get()
            body, apart = self._body(request, model, connection)
            events, answer = EventData(), _Answer(self, model)
            create = connection.client.chat.completions.with_streaming_response.create
            # the body goes past the SDK's own transformation, which takes 0.1 ms for each message
            async with create(messages=(), model=model, stream=True, extra_body=body, **apart) as response:
                async with aclosing(response.http_response.aiter_bytes()) as chunks:
                    async for chunk in chunks:
                        for data in events.feed(chunk):
                            if data == b"[DONE]":
                                answer.done = True
                                await read_rest(chunks)
                                break
                            for event in answer.take(data):
                                yield event
                        if answer.done:
                            break
            if not answer.done and answer.reason is None:
                raise broke_off(self.name, model, response.headers.get("content-type", ""))
            for call in answer.calls():
                yield call
            yield answer.finish(connection.address)

    def _body(self, request: ModelRequest, model: str, connection: Connection) -> tuple[dict[str, Any], dict[str, Any]]:
        check_tools(request.tools, NAMES, NAMES_RULE, self.name, model)
        parameters, apart = self._sent_apart(request.parameters)
        if "max_tokens" in parameters and _is_openai(connection.address):  # which calls the other name obsolete
            parameters["max_completion_tokens"] = parameters.pop("max_tokens")
        body: dict[str, Any] = {
            "messages": messages_of(request.messages, self.name, model),
            "stream_options": {"include_usage": True},
        }
        if request.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        **({"description": tool.description} if tool.description else {}),
                        "parameters": dict(tool.parameters),
                    },
                }
                for tool in request.tools
            ]
            choice = request.tool_choice
            if choice in ("none", "required"):
                body["tool_choice"] = choice
            elif choice != "auto":
                body["tool_choice"] = {"type": "function", "function": {"name": choice}}
        if (output := request.output) is not None:
            strict = strict_schema(output.schema)
            form: dict[str, Any] = {"name": output.name, "schema": strict or dict(output.schema)}
            if strict is not None:
                form["strict"] = True
            if output.description:
                form["description"] = output.description
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        merged = {**body, **parameters}
        return {name: value for name, value in merged.items() if value is not None}, apart


class _Function(Struct):
    name: str | None = None
    arguments: Any = None


class _Call(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct):
    content: Any = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Details(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Chunk).decode


class _Answer:
    """What has come of one answer, and what it makes of the next chunk."""

    __slots__ = ("_calls", "_model", "_provider", "_refused", "_usage", "done", "reason")

    def __init__(self, provider: OpenAIProvider, model: str) -> None:
        self._provider = provider
        self._model = model
        self._calls: list[tuple[int | None, str, str, list[str]]] = []  # index, id, name, pieces of the arguments
        self._usage: _Usage | None = None
        self._refused = False
        self.reason: str | None = None
        self.done = False

    def take(self, data: bytes) -> list[ModelEvent]:
        chunk = _decode(data)
        if chunk.error is not None:
            raise self._failed(chunk.error)
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.model:
            self._model = chunk.model
        if not chunk.choices:
            return []
        choice = chunk.choices[0]
        if choice.finish_reason is not None:
            self.reason = choice.finish_reason
        delta = choice.delta
        if delta is None:
            return []
        content = delta.content
        if content.__class__ is str and content and delta.tool_calls is None:
            return [content]
        return self._rest(delta)

    def _rest(self, delta: _Delta) -> list[ModelEvent]:
        found: list[ModelEvent] = []
        thought = delta.reasoning_content or delta.reasoning
        if isinstance(thought, str) and thought:
            found.append(Thinking(thought))
        parts = delta.content if isinstance(delta.content, list) else [delta.content]
        for part in parts:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str) and text:
                found.append(text)
        if delta.refusal:
            self._refused = True
            found.append(delta.refusal)
        for piece in delta.tool_calls or ():
            self._add(piece)
        return found

    def _add(self, piece: _Call) -> None:
        function = piece.function or _Function()
        arguments = "" if function.arguments is None else json_text(function.arguments)
        known = next((call for call in reversed(self._calls) if call[0] == piece.index), None)
        whole = piece.index is None and function.name  # some servers send no pieces
        if known is not None and piece.id in (None, "", known[1]) and not whole:
            known[3].append(arguments)
        else:
            self._calls.append((piece.index, piece.id or "", function.name or "", [arguments]))

    def calls(self) -> list[ToolCall]:
        return [call_of(name, "".join(pieces), id) for _, id, name, pieces in self._calls]

    def finish(self, address: str) -> Finish:
        reason = _REASONS.get(self.reason or "stop", self.reason or "stop")
        if reason == "stop" and self._calls:
            reason = "tool_calls"  # some servers say "stop" there
        elif reason == "stop" and self._refused:
            reason = "content_filter"
        usage = None
        if (told := self._usage) is not None:
            cached = told.prompt_tokens_details.cached_tokens if told.prompt_tokens_details is not None else 0
            usage = usage_of(
                self._model, told.prompt_tokens, told.completion_tokens, url=address, cache_read_tokens=cached
            )
        return Finish(reason, usage, self._model)

    def _failed(self, error: Any) -> ProviderError:
        details = error if isinstance(error, dict) else {"message": str(error)}
        code = details.get("code")
        status = code if isinstance(code, int) else None
        again = retryable(status) if status is not None else details.get("type") not in _FINAL
        message = str(details.get("message") or details)
        return ProviderError(
            f"{self._provider.name} gave up in the middle of the answer: {message[:500]}",
            provider=self._provider.name,
            model=self._model,
            status=status,
            retryable=again,
        )


def _is_openai(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")
