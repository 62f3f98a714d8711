"""Messages in the form of Google's API."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from rxstage.adapters._messages import (
    Remembered,
    arguments_of,
    base64_text,
    calls_of,
    media_of,
    result_text,
    text_of,
    unsupported,
)
from rxstage.content import Message, Text, ToolCall, ToolResult
from rxstage.ports.provider import ProviderError

__all__ = ["messages_of"]

_UNSIGNED: Final = re.compile(r"(.*/)?gemini-[12]\b.*")  # models that sign no calls
_SIGNATURE: Final = base64_text(
    b"skip_thought_signature_validator"
)  # what the API takes for a call that is none of its own


def messages_of(
    messages: Sequence[Message], signatures: Remembered, provider: str, model: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The parts of the system instruction, and the contents, as the API wants them.

    System messages become the system instruction, wherever they stand. Results of tools that follow each other become
    one content.

    Args:
        messages: the conversation.
        signatures: those of the calls of tools, which the API wants back with them.
        provider: the provider's name.
        model: the model that is asked.

    Raises:
        ProviderError: one holds a part that the API does not take.
    """
    system: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the tools, by the ids of the calls
    for message in messages:
        if message.role == "system":
            system += _texts(message.parts, provider, model)
            continue
        calls = calls_of(message)
        names.update((call.id, call.name) for call in calls)
        parts = [
            _result(part, names, provider, model)
            if isinstance(part, ToolResult)
            else _part(part, message.role, provider, model)
            for part in message.parts
            if not isinstance(part, ToolCall) and not (isinstance(part, Text) and not part.text)
        ]
        if calls:
            if message.role != "assistant":
                raise unsupported(calls[0], provider, model, message.role)
            parts += _calls(calls, signatures, not _UNSIGNED.fullmatch(model))
        if not parts:
            continue
        results = "functionResponse" in parts[0]
        if results and made and "functionResponse" in made[-1]["parts"][-1]:
            made[-1]["parts"] += parts
        else:
            made.append({"role": "model" if message.role == "assistant" else "user", "parts": parts})
    return system, made


def _texts(parts: Sequence[Any], provider: str, model: str) -> list[dict[str, Any]]:
    texts = (text_of(part, provider, model, "system") for part in parts)
    return [{"text": text} for text in texts if text]


def _part(part: Any, role: str, provider: str, model: str) -> dict[str, Any]:
    if role == "tool":
        raise ProviderError(
            f"a message of role 'tool' holds ToolResults only, got a {type(part).__name__}",
            provider=provider,
            model=model,
        )
    if (media := media_of(part)) is not None:
        return {"inlineData": {"data": base64_text(media[0]), "mimeType": media[1]}}
    return {"text": text_of(part, provider, model, role)}


def _calls(calls: Sequence[ToolCall], signatures: Remembered, signed: bool) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        part: dict[str, Any] = {"functionCall": {"id": call.id, "name": call.name, "args": arguments_of(call)}}
        signature = signatures.of((call,))
        if signature is None and signed and index == 0:
            signature = _SIGNATURE
        if signature is not None:
            part["thoughtSignature"] = signature
        made.append(part)
    return made


def _result(result: ToolResult, names: dict[str, str], provider: str, model: str) -> dict[str, Any]:
    name = result.name or names.get(result.call_id, "")
    if not name:
        raise ProviderError(
            f"{provider} wants the name of the tool with its result: the ToolResult for call {result.call_id!r} has "
            f"none, and no message before it holds the call",
            provider=provider,
            model=model,
        )
    value = result_text(result, provider, model)
    response = {"error" if result.is_error else "output": value}
    return {"functionResponse": {"id": result.call_id, "name": name, "response": response}}
