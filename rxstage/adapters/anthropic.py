"""Anthropic's models."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct

from rxstage.adapters._anthropic_messages import messages_of
from rxstage.adapters._errors import broke_off
from rxstage.adapters._messages import Remembered, call_of, check_tools, stop_list
from rxstage.adapters._sdk import Connection, SdkProvider, timeouts_of
from rxstage.adapters._sse import EventData, read_rest
from rxstage.adapters.prices import usage_of
from rxstage.errors import require
from rxstage.ports.provider import Finish, ModelEvent, ModelRequest, ProviderError, Thinking

__all__ = ["AnthropicProvider"]

_NAMES: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_MAX_TOKENS: Final = 8192
_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STATUS: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_CHOICES: Final = {"none": "none", "required": "any"}


class AnthropicProvider(SdkProvider):
    """Anthropic's models, through the official SDK (extra `anthropic`).

    The SDK makes the request, once; its own retries are off. What streams back is decoded here, which costs half of
    what its models do. The API wants `max_tokens`: where a request has none, it is 8192. It has no `seed`: one is
    left out.

    Args:
        model: the model that it asks where a request names none.
        base_url: of a compatible server.
        api_key: by default the environment's `ANTHROPIC_API_KEY`, if no `base_url` is given.
        timeout: seconds to wait for the next piece of an answer.
        name: what to call it in errors, events and metrics.
        client: what else `anthropic.AsyncAnthropic` takes: `auth_token`, `default_headers` …
    """

    name = "anthropic"
    extra: ClassVar[str] = "anthropic"
    variables: ClassVar[tuple[str, ...]] = ("ANTHROPIC_API_KEY",)

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__(model, **options)
        self._thoughts = Remembered()

    async def _open(self) -> Connection:
        credentials: dict[str, Any] = {}
        if not {"auth_token", "credentials", "config", "profile"} & self._options.keys():
            credentials["api_key"] = self._key()
        anthropic = require("anthropic", self.extra)
        http = self._http(anthropic.DefaultAsyncHttpxClient)
        if self.base_url is not None:
            credentials["base_url"] = self.base_url
        limits = timeouts_of(self.timeout, self.extra)
        client = anthropic.AsyncAnthropic(
            http_client=http, max_retries=0, timeout=limits, **credentials, **self._options
        )
        return Connection(client, http, str(client.base_url))

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Ask, and give what comes back as it comes; see `Provider`."""
        model = self._asked(request)
        with self._told(model):
            connection = await self._connections.get()
            body, apart = self._body(request, model)
            events, answer = EventData(), _Answer(self.name, model, self._thoughts)
            messages = connection.client.messages.with_streaming_response
            async with messages.create(
                messages=(),
                model=model,
                max_tokens=body.pop("max_tokens", _MAX_TOKENS),
                stream=True,
                extra_body=body,
                **apart,
            ) as response:
                async with aclosing(response.http_response.aiter_bytes()) as chunks:
                    async for chunk in chunks:
                        for data in events.feed(chunk):
                            for event in answer.take(data):
                                yield event
                        if answer.done:
                            await read_rest(chunks)
                            break
            if answer.reason is None:
                raise broke_off(self.name, model, response.headers.get("content-type", ""))
            yield answer.finish()

    def _body(self, request: ModelRequest, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
        check_tools(request.tools, _NAMES, "letters, digits, _ and -, at most 128", self.name, model)
        parameters, apart = self._sent_apart(request.parameters)
        parameters.pop("seed", None)
        if "stop" in parameters:
            parameters["stop_sequences"] = stop_list(parameters)
            del parameters["stop"]
        system, messages = messages_of(request.messages, self._thoughts, self.name, model)
        body: dict[str, Any] = {"max_tokens": _MAX_TOKENS, "messages": messages}
        if system:
            body["system"] = system
        if request.tools:
            body["tools"] = [
                {
                    "name": tool.name,
                    **({"description": tool.description} if tool.description else {}),
                    "input_schema": dict(tool.parameters),
                }
                for tool in request.tools
            ]
            choice = request.tool_choice
            if choice in _CHOICES:
                body["tool_choice"] = {"type": _CHOICES[choice]}
            elif choice != "auto":
                body["tool_choice"] = {"type": "tool", "name": choice}
        if (output := request.output) is not None:
            schema = require("anthropic", self.extra).transform_schema(dict(output.schema))
            config = parameters.pop("output_config", None) or {}
            body["output_config"] = {**config, "format": {"type": "json_schema", "schema": schema}}
        merged = {**body, **parameters}
        return {name: value for name, value in merged.items() if value is not None}, apart


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Message(Struct):
    model: str | None = None
    usage: _Usage | None = None


class _Block(Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""
    thinking: str = ""
    data: str = ""
    input: Any = None


class _Delta(Struct):
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None


class _Error(Struct):
    type: str = ""
    message: str = ""


class _Event(Struct):
    type: str = ""
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: _Usage | None = None
    error: _Error | None = None


_decode: Final = msgspec.json.Decoder(_Event).decode


class _Answer:
    """What has come of one answer, and what it makes of the next event."""

    __slots__ = ("_block", "_keep", "_model", "_pieces", "_provider", "_thoughts", "_usage", "done", "reason")

    def __init__(self, provider: str, model: str, keep: Remembered) -> None:
        self._provider = provider
        self._model = model
        self._keep = keep
        self._thoughts: list[dict[str, Any]] = []
        self._block = _Block()  # the one that streams
        self._pieces: list[str] = []
        self._usage = _Usage()
        self.reason: str | None = None
        self.done = False

    def take(self, data: bytes) -> tuple[ModelEvent, ...]:
        event = _decode(data)
        delta = event.delta
        if event.type == "content_block_delta" and delta is not None:
            if delta.text:
                return (delta.text,)
            if delta.partial_json:
                self._pieces.append(delta.partial_json)
            elif delta.thinking:
                self._thoughts[-1]["thinking"] += delta.thinking
                return (Thinking(delta.thinking),)
            elif delta.signature:
                self._thoughts[-1]["signature"] = delta.signature
            return ()
        return self._other(event)

    def _other(self, event: _Event) -> tuple[ModelEvent, ...]:
        match event.type:
            case "content_block_start" if event.content_block is not None:
                return self._begin(event.content_block)
            case "content_block_stop" if self._block.type == "tool_use":
                return self._call()
            case "message_start" if event.message is not None:
                self._model = event.message.model or self._model
                self._usage = event.message.usage or self._usage
            case "message_delta":
                if event.delta is not None and event.delta.stop_reason is not None:
                    self.reason = event.delta.stop_reason
                if event.usage is not None:
                    self._count(event.usage)
            case "message_stop":
                self.done = True
            case "error":
                raise self._failed(event.error or _Error())
        return ()

    def _begin(self, block: _Block) -> tuple[ModelEvent, ...]:
        self._block, self._pieces = block, []
        if block.type == "thinking":
            self._thoughts.append({"type": "thinking", "thinking": block.thinking, "signature": ""})
            return (Thinking(block.thinking),) if block.thinking else ()
        if block.type == "redacted_thinking":
            self._thoughts.append({"type": "redacted_thinking", "data": block.data})
        return (block.text,) if block.text else ()

    def _call(self) -> tuple[ModelEvent, ...]:
        block = self._block
        written = "".join(self._pieces) or (msgspec.json.encode(block.input).decode() if block.input else "")
        call = call_of(block.name, written, block.id)
        self._block = _Block()
        if self._thoughts:
            self._keep.keep(call, tuple(self._thoughts))
        return (call,)

    def _count(self, usage: _Usage) -> None:
        counted = {name: count for name in usage.__struct_fields__ if (count := getattr(usage, name)) is not None}
        self._usage = msgspec.structs.replace(self._usage, **counted)

    def finish(self) -> Finish:
        reason = self.reason or "stop"
        told = self._usage
        cached, stored = told.cache_read_input_tokens or 0, told.cache_creation_input_tokens or 0
        usage = usage_of(
            self._model,
            (told.input_tokens or 0) + cached + stored,
            told.output_tokens,
            provider="anthropic",
            cache_read_tokens=cached,
            cache_write_tokens=stored,
        )
        return Finish(_REASONS.get(reason, reason), usage, self._model)

    def _failed(self, error: _Error) -> ProviderError:
        status = _STATUS.get(error.type)
        return ProviderError(
            f"{self._provider} gave up in the middle of the answer: {error.message or error.type}"[:500],
            provider=self._provider,
            model=self._model,
            status=status,
            retryable=status is None or status in (409, 429) or status >= 500,
        )
