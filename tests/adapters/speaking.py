"""How each API streams an answer, for servers that are scripted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from faults import events

from rxstage.adapters.anthropic import AnthropicProvider
from rxstage.adapters.google import GoogleProvider
from rxstage.adapters.openai import OpenAIProvider
from rxstage.adapters.pydantic_ai import PydanticAIProvider
from rxstage.ports import Provider

__all__ = ["APIS", "KEY", "Api"]

KEY: Final = "sk-very-secret-0123456789"


class Api(NamedTuple):
    """One API: who speaks it, and what its streams look like."""

    name: str
    provider: Callable[..., Provider]
    begin: list[bytes]
    delta: Callable[[str], list[bytes]]
    end: list[bytes]

    def answer(self, *texts: str) -> list[bytes]:
        """A whole answer in these pieces."""
        return [*self.begin, *(piece for text in texts for piece in self.delta(text)), *self.end]


def _chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [choice]}


def _part(text: str, reason: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "modelVersion": "m-1"}


def _openai(url: str, **options: Any) -> Provider:
    return OpenAIProvider("m", base_url=f"{url}/v1", api_key=KEY, **options)


def _anthropic(url: str, **options: Any) -> Provider:
    return AnthropicProvider("m", base_url=url, api_key=KEY, **options)


def _google(url: str, **options: Any) -> Provider:
    return GoogleProvider("m", base_url=url, api_key=KEY, **options)


def _pydantic_ai(url: str, **options: Any) -> Provider:
    return PydanticAIProvider("openai-chat:m", base_url=f"{url}/v1", api_key=KEY, **options)


_OPENAI: Final = (
    events(_chunk({"role": "assistant", "content": ""})),
    lambda text: events(_chunk({"content": text})),
    events(_chunk({}, "stop"), "[DONE]"),
)

APIS: Final = (
    Api("openai", _openai, *_OPENAI),
    Api(
        "anthropic",
        _anthropic,
        events(
            {
                "type": "message_start",
                "message": {
                    "id": "1",
                    "type": "message",
                    "role": "assistant",
                    "content": [],
                    "model": "m-1",
                    "stop_reason": None,
                    "stop_sequence": None,
                    "usage": {"input_tokens": 1, "output_tokens": 1},
                },
            },
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        ),
        lambda text: events({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        events(
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ),
    ),
    Api("google", _google, [], lambda text: events(_part(text)), events(_part(".", "STOP"))),
    Api("pydantic_ai", _pydantic_ai, *_OPENAI),
)
