"""Messages in the form of OpenAI's chat completions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from rxstage.adapters._messages import MALFORMED, base64_text, calls_of, json_text, result_text, text_of, wav
from rxstage.content import Audio, Data, Image, Message, Text, ToolCall, ToolResult, Video
from rxstage.ports.provider import ProviderError

__all__ = ["messages_of"]

_SPEAKER: Final = re.compile(r"[^\s<|\\/>]{1,64}")


def messages_of(messages: Sequence[Message], provider: str, model: str) -> list[dict[str, Any]]:
    """The messages as the API wants them, in their order.

    Raises:
        ProviderError: one holds a part that the API does not take.
    """
    made: list[dict[str, Any]] = []
    for message in messages:
        role = message.role
        if role == "assistant":
            made.append(_named(_assistant(message, provider, model), message))
            continue
        parts = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                made.append(_result(part, provider, model))
            else:
                parts.append(part)
        if role == "tool":
            if parts:
                raise ProviderError(
                    f"a message of role 'tool' holds ToolResults only, got a {type(parts[0]).__name__}",
                    provider=provider,
                    model=model,
                )
        elif parts or not message.parts:
            content = (
                _text(parts, provider, model, role) if role == "system" else _content(parts, provider, model, role)
            )
            made.append(_named({"role": role, "content": content}, message))
    return made


def _named(made: dict[str, Any], message: Message) -> dict[str, Any]:
    if message.name is not None and _SPEAKER.fullmatch(message.name):
        made["name"] = message.name
    return made


def _assistant(message: Message, provider: str, model: str) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant"}
    calls = calls_of(message)
    text = _text([part for part in message.parts if not isinstance(part, ToolCall)], provider, model, "assistant")
    if text or not calls:
        made["content"] = text
    if calls:
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in calls
        ]
    return made


def _arguments(call: ToolCall) -> str:
    if MALFORMED in call.arguments:
        return str(call.arguments[MALFORMED])  # as the model wrote it
    return json_text(dict(call.arguments))


def _result(result: ToolResult, provider: str, model: str) -> dict[str, Any]:
    text = result_text(result, provider, model)
    return {"role": "tool", "tool_call_id": result.call_id, "content": f"Error: {text}" if result.is_error else text}


def _text(parts: Sequence[Any], provider: str, model: str, role: str) -> str:
    return "".join(text_of(part, provider, model, role) for part in parts)


def _content(parts: Sequence[Any], provider: str, model: str, role: str) -> Any:
    if all(isinstance(part, (Text, Data)) for part in parts):
        return _text(parts, provider, model, role)  # servers that know no lists of parts take it, too
    return [_part(part, provider, model, role) for part in parts]


def _part(part: Any, provider: str, model: str, role: str) -> dict[str, Any]:
    if isinstance(part, Image) or (isinstance(part, Video) and part.mime_type.startswith("image/")):
        return {"type": "image_url", "image_url": {"url": f"data:{part.mime_type};base64,{base64_text(part.data)}"}}
    if isinstance(part, Audio):
        return {"type": "input_audio", "input_audio": {"data": base64_text(wav(part)), "format": "wav"}}
    return {"type": "text", "text": text_of(part, provider, model, role)}
