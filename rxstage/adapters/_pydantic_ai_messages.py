"""Messages in the form of pydantic-ai, which has one for all its models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rxstage.adapters._messages import (
    Remembered,
    arguments_of,
    calls_of,
    media_of,
    result_text,
    text_of,
    unsupported,
)
from rxstage.content import Message, ToolCall, ToolResult
from rxstage.errors import require
from rxstage.ports.provider import ProviderError

__all__ = ["messages_of"]


def messages_of(messages: Sequence[Message], answers: Remembered, provider: str, model: str) -> list[Any]:
    """The messages as pydantic-ai wants them.

    Args:
        messages: the conversation.
        answers: earlier answers that called tools: they hold what some APIs want back with a call.
        provider: the provider's name.
        model: the model that is asked.

    Raises:
        ProviderError: one holds a part that it has no place for.
    """
    kinds = require("pydantic_ai.messages", "models")
    made: list[Any] = []
    names: dict[str, str] = {}  # of the tools, by the ids of the calls
    for message in messages:
        if message.role == "assistant":
            calls = calls_of(message)
            names.update((call.id, call.name) for call in calls)
            known = answers.of(calls)
            same = known is not None and (known.text or "") == message.text  # nothing was taken out of it since
            made.append(known if same else _answer(message, calls, kinds, provider, model))
            continue
        if message.role == "system":
            parts = [kinds.SystemPromptPart("".join(text_of(part, provider, model) for part in message.parts))]
        else:
            parts = _asked(message, names, kinds, provider, model)
        if made and isinstance(made[-1], kinds.ModelRequest):
            made[-1] = kinds.ModelRequest(parts=[*made[-1].parts, *parts])
        else:
            made.append(kinds.ModelRequest(parts=parts))
    return made


def _answer(message: Message, calls: Sequence[ToolCall], kinds: Any, provider: str, model: str) -> Any:
    texts = (text_of(part, provider, model, "assistant") for part in message.parts if not isinstance(part, ToolCall))
    parts = [kinds.TextPart(text) for text in texts if text]
    parts += [kinds.ToolCallPart(call.name, arguments_of(call), tool_call_id=call.id) for call in calls]
    return kinds.ModelResponse(parts=parts)


def _asked(message: Message, names: dict[str, str], kinds: Any, provider: str, model: str) -> list[Any]:
    parts: list[Any] = []
    content: list[Any] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            parts.append(
                kinds.ToolReturnPart(
                    part.name or names.get(part.call_id, ""),
                    result_text(part, provider, model),
                    tool_call_id=part.call_id,
                    outcome="failed" if part.is_error else "success",
                )
            )
        elif message.role == "tool":
            raise ProviderError(
                f"a message of role 'tool' holds ToolResults only, got a {type(part).__name__}",
                provider=provider,
                model=model,
            )
        elif isinstance(part, ToolCall):
            raise unsupported(part, provider, model, message.role)
        elif (media := media_of(part)) is not None:
            content.append(kinds.BinaryContent(media[0], media_type=media[1]))
        else:
            content.append(text_of(part, provider, model, message.role))
    if content or not parts:
        alone = len(content) == 1 and isinstance(content[0], str)
        parts.append(kinds.UserPromptPart(content[0] if alone else content))
    return parts
