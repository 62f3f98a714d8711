"""Every model that pydantic-ai knows: Groq, Mistral, Bedrock, OpenRouter, Azure and dozens more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from rxstage.adapters._errors import broke_off, told
from rxstage.adapters._messages import (
    NAMES,
    NAMES_RULE,
    Remembered,
    call_of,
    check_tools,
    json_text,
    new_call_id,
    stop_list,
)
from rxstage.adapters._pydantic_ai_messages import messages_of
from rxstage.adapters.prices import usage_of
from rxstage.content import ToolCall
from rxstage.errors import MissingExtra, require
from rxstage.ports.loopbound import LoopBound
from rxstage.ports.provider import Finish, ModelEvent, ModelRequest, Provider, ProviderError, Thinking

__all__ = ["PydanticAIProvider"]

_REASONS: Final = {"tool_call": "tool_calls"}
_NO_KEY: Final = "none"


class PydanticAIProvider(Provider):
    """Models through `pydantic_ai.direct` (extra `models`, and the package that pydantic-ai wants for each).

    It costs more for each piece of an answer than the providers of OpenAI, Anthropic and Google do. The library's own
    retries are off where it has them. Of an answer that is given up the connection is closed at once, but for Google
    Cloud, where that is left to the garbage collector.

    Args:
        model: `"groq:llama-3.3-70b-versatile"`, the prefix being pydantic-ai's name of the provider; or one of its
            `Model` objects, which is then used as it is, on every loop.
        base_url: address of the API, for providers that take one.
        api_key: by default the environment's variable for the provider, if no `base_url` is given.
        timeout: seconds to wait for the next piece of an answer.
        name: what to call it in errors, events and metrics; by default the prefix.
        options: what else pydantic-ai's class for the provider takes.
    """

    def __init__(
        self,
        model: Any,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 600.0,
        name: str | None = None,
        **options: Any,
    ) -> None:
        if timeout <= 0:
            raise ValueError(f"timeout must be above 0 s, got {timeout!r}")
        self._given = None if isinstance(model, str) else model
        text = model if isinstance(model, str) else f"{model.system}:{model.model_name}"
        self._prefix, colon, self.model = text.partition(":")
        if not colon:
            raise ValueError(f"the model must be written as 'provider:model', got {text!r}")
        self.name = name or self._prefix
        self.timeout = timeout
        self._secret = api_key or ""
        self._options = {
            **options,
            **({"base_url": base_url} if base_url is not None else {}),
            **({"api_key": api_key or _NO_KEY} if base_url is not None or api_key is not None else {}),
        }
        self._answers = Remembered()
        self._opened = LoopBound(self._open, self._close)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({f'{self._prefix}:{self.model}'!r})"

    async def _open(self) -> _Models:
        try:
            require("pydantic_ai.direct", "models")
            providers = require("pydantic_ai.providers", "models")
            made = _Models(self._given)
            if self._given is None:
                made.provider = providers.infer_provider_class(self._prefix)(**self._options)
                await made.provider.__aenter__()
                key = getattr(getattr(made.provider, "client", None), "api_key", None)  # perhaps of the environment
                self._secret = key if isinstance(key, str) and key != _NO_KEY else self._secret
            return made
        except MissingExtra:
            raise
        except ImportError as error:  # it says what to install
            raise MissingExtra(f"models of {self._prefix!r}: {error}") from error
        except Exception as error:
            if type(error).__name__ == "UserError":  # it says which variable of the environment is missing
                raise ProviderError(f"{self.name}: {error}", provider=self.name, model=self.model) from error
            raise

    async def _close(self, models: _Models) -> None:
        if models.provider is not None:
            await models.provider.__aexit__(None, None, None)

    async def prepare(self) -> None:
        """Import what the first call needs. Never raises."""
        with suppress(Exception):  # the call that follows will say what is wrong
            await self._opened.get()

    async def aclose(self) -> None:
        """Close the connections that are open on the running loop; the object can be used again."""
        await self._opened.aclose()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Ask, and give what comes back as it comes; see `Provider`."""
        asked = request.model or self.model
        with self._told(asked):
            models = await self._opened.get()
        with self._told(asked):  # which knows the key by now
            model = models.of(self._prefix, asked)
            direct = require("pydantic_ai.direct", "models")
            check_tools(request.tools, NAMES, NAMES_RULE, self.name, asked)
            messages = messages_of(request.messages, self._answers, self.name, asked)
            settings, parameters = self._settings(request), _parameters(request, model)
            output = parameters.output_tools[0].name if parameters.output_tools else None
            async with direct.model_request_stream(
                model, messages, model_settings=settings, model_request_parameters=parameters, instrument=False
            ) as stream:
                reader = _Reader(output)
                async for event in stream:
                    for found in reader.take(event):
                        yield found
                response = stream.get()
            reason = response.finish_reason or (response.provider_details or {}).get("finish_reason")
            if response.state != "complete" or (reason is None and self._given is None):
                raise broke_off(self.name, asked)
            if reader.calls:
                self._answers.keep(reader.calls[0], response)
            reason = reason or ("tool_calls" if reader.calls else "stop")
            reason = _REASONS.get(reason, reason)
            if output is not None and reason == "tool_calls" and not reader.calls:
                reason = "stop"  # the answer itself came as the call of a tool
            yield self._finish(response, reason)

    def _told(self, model: str) -> told:
        return told(self.name, model, secret=self._secret)

    def _settings(self, request: ModelRequest) -> dict[str, Any]:
        settings = {"timeout": self.timeout, "max_retries": 0, **request.parameters}
        if "stop" in settings:
            settings["stop_sequences"] = stop_list(settings)
            del settings["stop"]
        if request.tools and request.tool_choice != "auto":
            choice = request.tool_choice
            settings["tool_choice"] = choice if choice in ("none", "required") else [choice]
        return {name: value for name, value in settings.items() if value is not None}

    def _finish(self, response: Any, reason: str) -> Finish:
        used = response.usage
        usage = usage_of(
            response.model_name or self.model,
            used.input_tokens,
            used.output_tokens,
            url=response.provider_url or "",
            provider=response.provider_name or self._prefix,
            cache_read_tokens=used.cache_read_tokens,
            cache_write_tokens=used.cache_write_tokens,
        )
        return Finish(reason, usage, response.model_name or self.model)


class _Models:
    """The models of one event loop, which share their connections."""

    __slots__ = ("_given", "_made", "provider")

    def __init__(self, given: Any) -> None:
        self._given = given
        self._made: dict[str, Any] = {}
        self.provider: Any = None

    def of(self, prefix: str, name: str) -> Any:
        if self._given is not None:
            return self._given
        if name not in self._made:
            infer = require("pydantic_ai.models", "models").infer_model
            self._made[name] = infer(f"{prefix}:{name}", provider_factory=lambda _: self.provider)
        return self._made[name]


def _parameters(request: ModelRequest, model: Any) -> Any:
    tools = require("pydantic_ai.tools", "models")
    models = require("pydantic_ai.models", "models")
    offered: dict[str, Any] = {
        "function_tools": [
            tools.ToolDefinition(
                name=tool.name, description=tool.description or None, parameters_json_schema=dict(tool.parameters)
            )
            for tool in request.tools
        ]
    }
    if (output := request.output) is not None:
        schema, description = dict(output.schema), output.description or None
        if model.profile.get("supports_json_schema_output", False):
            form = require("pydantic_ai.output", "models").OutputObjectDefinition
            offered["output_mode"] = "native"
            offered["output_object"] = form(json_schema=schema, name=output.name, description=description)
        else:  # the answer is then the arguments of a call
            offered["output_mode"] = "tool"
            offered["allow_text_output"] = False
            offered["output_tools"] = [
                tools.ToolDefinition(
                    name=output.name, description=description, parameters_json_schema=schema, kind="output"
                )
            ]
    return models.ModelRequestParameters(**offered)


class _Reader:
    """What the events of one answer come to.

    Args:
        output: name of the tool whose arguments are the answer, where there is one.
    """

    __slots__ = ("_output", "_streamed", "calls")

    def __init__(self, output: str | None) -> None:
        self._output = output
        self.calls: list[ToolCall] = []
        self._streamed: set[int] = set()  # parts whose arguments have been given as text

    def take(self, event: Any) -> list[ModelEvent]:
        kind = event.event_kind
        if kind == "part_delta":
            delta = event.delta
            piece = delta.part_delta_kind
            if piece == "text":
                return [delta.content_delta] if delta.content_delta else []
            if piece == "thinking":
                return [Thinking(delta.content_delta)] if delta.content_delta else []
            if piece == "tool_call" and event.index in self._streamed:
                return [delta.args_delta] if delta.args_delta else []
        elif kind == "part_start":
            return self._begin(event.index, event.part)
        elif kind == "part_end" and event.part.part_kind == "tool-call" and event.index not in self._streamed:
            return [self._call(event.part)]
        return []

    def _begin(self, index: int, part: Any) -> list[ModelEvent]:
        kind = part.part_kind
        if kind == "text":
            return [part.content] if part.content else []
        if kind == "thinking":
            return [Thinking(part.content)] if part.content else []
        if kind == "tool-call" and part.tool_name == self._output and not isinstance(part.args, dict):
            self._streamed.add(index)
            return [part.args] if part.args else []
        return []

    def _call(self, part: Any) -> ModelEvent:
        if part.tool_name == self._output:
            return json_text(part.args)
        if isinstance(part.args, str):
            call = call_of(part.tool_name, part.args, part.tool_call_id)
        else:
            call = ToolCall(part.tool_name, dict(part.args or {}), part.tool_call_id or new_call_id())
        self.calls.append(call)
        return call
