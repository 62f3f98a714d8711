"""What the tests of providers have in common: requests, and what comes back from them."""

from __future__ import annotations

from collections.abc import Sequence

from rxstage import Message
from rxstage.ports import ModelEvent, ModelRequest, Provider

__all__ = ["ask", "asking", "text_of"]


def asking(*texts: str, model: str = "") -> ModelRequest:
    """A request whose messages are the user's."""
    return ModelRequest(messages=tuple(map(Message.user, texts)), model=model)


async def ask(provider: Provider, *texts: str, model: str = "") -> list[ModelEvent]:
    """All that comes back."""
    return [event async for event in provider.stream(asking(*texts, model=model))]


def text_of(events: Sequence[ModelEvent]) -> str:
    """The answer in it."""
    return "".join(event for event in events if isinstance(event, str))
