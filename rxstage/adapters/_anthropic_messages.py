"""Messages in the form of Anthropic's API."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from rxstage.adapters._messages import (
    Remembered,
    arguments_of,
    base64_text,
    calls_of,
    result_text,
    text_of,
    unsupported,
)
from rxstage.content import Image, Message, Parts, ToolCall, ToolResult, Video
from rxstage.ports.provider import ProviderError

__all__ = ["messages_of"]

_NO_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")


def messages_of(
    messages: Sequence[Message], thoughts: Remembered, provider: str, model: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system prompt and the messages as the API wants them.

    System messages become the system prompt, wherever they stand. Neighbours of one role become one message, and in
    it the results of tools come first.

    Args:
        messages: the conversation.
        thoughts: the thinking that came with calls of tools, which the API wants back with them.
        provider: the provider's name.
        model: the model that is asked.

    Raises:
        ProviderError: one holds a part that the API does not take.
    """
    system: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            system += _texts(message.parts, provider, model, "system")
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if role == "assistant":
            blocks = _assistant(message, thoughts, provider, model)
        else:
            found = (_block(part, message.role, provider, model) for part in message.parts)
            blocks = [block for block in found if block is not None]
        if not blocks:
            continue  # the API takes no message without content
        if made and made[-1]["role"] == role:
            made[-1]["content"] += blocks
        else:
            made.append({"role": role, "content": blocks})
    for each in made:
        if each["role"] == "user":
            each["content"].sort(key=lambda block: block["type"] != "tool_result")
    return system, made


def _assistant(message: Message, thoughts: Remembered, provider: str, model: str) -> list[dict[str, Any]]:
    calls = calls_of(message)
    blocks = list(thoughts.of(calls) or ())
    blocks += _texts([part for part in message.parts if not isinstance(part, ToolCall)], provider, model, "assistant")
    blocks += [
        {"type": "tool_use", "id": _NO_ID.sub("_", call.id), "name": call.name, "input": arguments_of(call)}
        for call in calls
    ]
    return blocks


def _texts(parts: Sequence[Any], provider: str, model: str, role: str) -> list[dict[str, Any]]:
    texts = (text_of(part, provider, model, role) for part in parts)
    return [{"type": "text", "text": text} for text in texts if text.strip()]  # blank ones are refused


def _block(part: Any, role: str, provider: str, model: str) -> dict[str, Any] | None:
    if isinstance(part, ToolResult):
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": _NO_ID.sub("_", part.call_id)}
        if isinstance(part.value, Parts) and any(isinstance(each, Image) for each in part.value.parts):
            block["content"] = [_block(each, "user", provider, model) for each in part.value.parts]
        elif (text := result_text(part, provider, model)).strip():
            block["content"] = text
        if part.is_error:
            block["is_error"] = True
        return block
    if role == "tool":
        raise ProviderError(
            f"a message of role 'tool' holds ToolResults only, got a {type(part).__name__}",
            provider=provider,
            model=model,
        )
    if isinstance(part, Image) or (isinstance(part, Video) and part.mime_type.startswith("image/")):
        source = {"type": "base64", "media_type": part.mime_type, "data": base64_text(part.data)}
        return {"type": "image", "source": source}
    if isinstance(part, ToolCall):
        raise unsupported(part, provider, model, role)
    text = text_of(part, provider, model, role)
    return {"type": "text", "text": text} if text.strip() else None
