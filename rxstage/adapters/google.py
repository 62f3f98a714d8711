"""Google's Gemini models."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, ClassVar, Final

from rxstage.adapters._errors import broke_off
from rxstage.adapters._google_messages import messages_of
from rxstage.adapters._messages import Remembered, base64_text, check_tools, new_call_id, stop_list
from rxstage.adapters._sdk import Connection, SdkProvider
from rxstage.adapters.prices import usage_of
from rxstage.content import ToolCall
from rxstage.errors import require
from rxstage.ports.provider import Finish, ModelEvent, ModelRequest, ProviderError, Thinking

__all__ = ["GoogleProvider"]

_NAMES: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
_REASONS: Final = {"STOP": "stop", "FUNCTION_CALL": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
_FILTERED: Final = frozenset(
    {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "ESCALATION", "MODEL_ARMOR"}
)
_CLOUD: Final = ("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE")
_ADDRESS: Final = "https://generativelanguage.googleapis.com/"
_REPLACED: Final = "."  # in the place of the messages, which come with the rest of the body
_responses: ContextVar[list[Any]] = ContextVar("rxstage.google.responses")


class GoogleProvider(SdkProvider):
    """Google's Gemini models, through the official SDK (extra `google`).

    The SDK makes the request, once: it neither retries nor continues an answer by itself.

    Args:
        model: the model that it asks where a request names none.
        base_url: of another server.
        api_key: by default the environment's `GOOGLE_API_KEY` or `GEMINI_API_KEY`, if no `base_url` is given.
        timeout: seconds to wait for the next piece of an answer.
        name: what to call it in errors, events and metrics.
        client: what else `google.genai.Client` takes: `vertexai`, `project`, `location`, `credentials` …
    """

    name = "google"
    extra: ClassVar[str] = "google"
    variables: ClassVar[tuple[str, ...]] = ("GOOGLE_API_KEY", "GEMINI_API_KEY")

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__(model, **options)
        self._signatures = Remembered()

    async def _open(self) -> Connection:
        credentials: dict[str, Any] = {}
        if not ({"vertexai", "credentials", "enterprise"} & self._options.keys() or any(map(os.environ.get, _CLOUD))):
            credentials["api_key"] = self._key()
        elif self._api_key is not None:
            credentials["api_key"] = self._api_key
        genai = require("google.genai", self.extra)
        http = self._http(require("httpx2", self.extra).AsyncClient, event_hooks={"response": [_note]})
        options = {**self._options}
        given = options.pop("http_options", None) or {}
        transport = {
            "httpx_async_client": http,
            "timeout": int(self.timeout * 1000),
            **({"base_url": self.base_url} if self.base_url is not None else {}),
            **(given if isinstance(given, dict) else given.model_dump(exclude_none=True)),
        }
        client = genai.Client(http_options=genai.types.HttpOptions(**transport), **credentials, **options)
        return Connection(client, http, self.base_url or _ADDRESS)

    async def _close(self, connection: Connection) -> None:
        connection.client.close()
        await connection.http.aclose()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Ask, and give what comes back as it comes; see `Provider`."""
        model = self._asked(request)
        with self._told(model):
            connection = await self._connections.get()
            config = self._config(request, model)
            answer = _Answer(model, self._signatures)
            responses: list[Any] = []
            token = _responses.set(responses)
            try:
                stream = await connection.client.aio.models.generate_content_stream(
                    model=model, contents=_REPLACED, config=config
                )
                chunk = await anext(stream, None)
            finally:
                _responses.reset(token)
            try:
                while chunk is not None:
                    for event in answer.take(chunk):
                        yield event
                    chunk = await anext(stream, None)
            finally:
                for response in responses:
                    await response.aclose()  # the SDK leaves one that is not read to its end to the garbage collector
                await stream.aclose()
            if answer.reason is None:
                raise broke_off(self.name, model)
            yield answer.finish()

    def _config(self, request: ModelRequest, model: str) -> Any:
        check_tools(
            request.tools, _NAMES, "a letter or _, then letters, digits, _ . : and -, at most 64", self.name, model
        )
        types = require("google.genai.types", self.extra)
        parameters = dict(request.parameters)
        system, contents = messages_of(request.messages, self._signatures, self.name, model)
        transport = {
            "headers": parameters.pop("extra_headers", None),
            # past the SDK's own transformation, which takes 0.15 ms for each message
            "extra_body": {"contents": contents, **(parameters.pop("extra_body", None) or {})},
            "timeout": int(seconds * 1000) if (seconds := parameters.pop("timeout", None)) is not None else None,
        }
        if "stop" in parameters:
            parameters["stop_sequences"] = stop_list(parameters)
            del parameters["stop"]
        if "max_tokens" in parameters:
            parameters["max_output_tokens"] = parameters.pop("max_tokens")
        config: dict[str, Any] = {
            "automatic_function_calling": {"disable": True},
            "automatic_continuation": False,
            "http_options": {name: value for name, value in transport.items() if value is not None},
        }
        if system:
            config["system_instruction"] = {"parts": system}
        if request.tools:
            declared = [
                {
                    "name": tool.name,
                    **({"description": tool.description} if tool.description else {}),
                    "parameters_json_schema": dict(tool.parameters),
                }
                for tool in request.tools
            ]
            config["tools"] = [{"function_declarations": declared}]
            if request.tool_choice != "auto":
                config["tool_config"] = {"function_calling_config": _choice(request.tool_choice)}
        if request.output is not None:
            config["response_mime_type"] = "application/json"
            config["response_json_schema"] = dict(request.output.schema)
        known = types.GenerateContentConfig.model_fields
        config = {name: value for name, value in {**config, **parameters}.items() if value is not None}
        config = {name: value for name, value in config.items() if name in known or name in parameters}
        try:
            return types.GenerateContentConfig(**config)
        except ValueError as error:
            raise ProviderError(
                f"{self.name} does not take these parameters: {error}", provider=self.name, model=model
            ) from error


async def _note(response: Any) -> None:
    """Have the call that a response is for know it."""
    if (responses := _responses.get(None)) is not None:
        responses.append(response)


def _choice(choice: str) -> dict[str, Any]:
    modes = {"none": "NONE", "required": "ANY"}
    return {"mode": modes[choice]} if choice in modes else {"mode": "ANY", "allowed_function_names": [choice]}


class _Answer:
    """What has come of one answer, and what it makes of the next chunk."""

    __slots__ = ("_called", "_keep", "_model", "_usage", "reason")

    def __init__(self, model: str, keep: Remembered) -> None:
        self._model = model
        self._keep = keep
        self._usage: Any = None
        self._called = False
        self.reason: str | None = None

    def take(self, chunk: Any) -> list[ModelEvent]:
        if chunk.usage_metadata is not None:
            self._usage = chunk.usage_metadata
        if chunk.model_version:
            self._model = chunk.model_version
        if not chunk.candidates:
            if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
                self.reason = "content_filter"
            return []
        candidate = chunk.candidates[0]
        if candidate.finish_reason is not None:
            name = candidate.finish_reason.value
            self.reason = "content_filter" if name in _FILTERED else _REASONS.get(name, name.lower())
        found: list[ModelEvent] = []
        parts = candidate.content.parts if candidate.content is not None else None
        for part in parts or ():
            if part.text:
                found.append(Thinking(part.text) if part.thought else part.text)
            elif part.function_call is not None:
                found.append(self._call(part))
        return found

    def _call(self, part: Any) -> ToolCall:
        self._called = True
        wanted = part.function_call
        call = ToolCall(wanted.name or "", dict(wanted.args or {}), wanted.id or new_call_id())
        if part.thought_signature:
            self._keep.keep(call, base64_text(part.thought_signature))
        return call

    def finish(self) -> Finish:
        reason = "tool_calls" if self._called and self.reason == "stop" else self.reason or "stop"
        usage = None
        if (told := self._usage) is not None:
            usage = usage_of(
                self._model,
                (told.prompt_token_count or 0) + (told.tool_use_prompt_token_count or 0),
                (told.candidates_token_count or 0) + (told.thoughts_token_count or 0),
                provider="google",
                cache_read_tokens=told.cached_content_token_count,
            )
        return Finish(reason, usage, self._model)
