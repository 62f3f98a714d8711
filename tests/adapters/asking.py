"""What the tests of the providers have in common."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

import pytest

from rxstage import Message, ToolCall
from rxstage.ports import Finish, ModelEvent, ModelRequest, Provider, ProviderError, Thinking, ToolSpec
from rxstage.testing import assert_no_leaks

__all__ = ["TOOLS", "WAIT", "Answer", "ask", "failed", "on_a_loop", "request"]

WAIT: Final = 60.0
"""Real seconds for one test."""

TOOLS: Final = (
    ToolSpec("get_weather", "The weather of a place.", {"type": "object", "properties": {"city": {"type": "string"}}}),
    ToolSpec("get_time"),
)


class Answer(NamedTuple):
    """What a model has answered."""

    events: list[ModelEvent]

    @property
    def text(self) -> str:
        """Its text."""
        return "".join(event for event in self.events if isinstance(event, str))

    @property
    def thoughts(self) -> str:
        """Its thinking."""
        return "".join(event.text for event in self.events if isinstance(event, Thinking))

    @property
    def calls(self) -> list[ToolCall]:
        """Its calls of tools."""
        return [event for event in self.events if isinstance(event, ToolCall)]

    @property
    def finish(self) -> Finish:
        """Its end, which is there once, at the end; no piece of text before it is empty."""
        assert [event for event in self.events if isinstance(event, Finish)] == self.events[-1:]
        assert "" not in self.events
        last = self.events[-1]
        assert isinstance(last, Finish)
        return last


def request(*messages: Message | str, **options: Any) -> ModelRequest:
    """A request with these messages; a string is one of the user."""
    made = tuple(Message.user(each) if isinstance(each, str) else each for each in messages)
    return ModelRequest(messages=made, **options)


async def ask(provider: Provider, *messages: Message | str, **options: Any) -> Answer:
    """Ask, and take the whole answer."""
    return Answer([event async for event in provider.stream(request(*messages, **options))])


async def failed(provider: Provider, *messages: Message | str, **options: Any) -> ProviderError:
    """Ask, and take the error that must come."""
    with pytest.raises(ProviderError) as caught:
        await ask(provider, *(messages or ("hello",)), **options)
    return caught.value


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a loop in real time, and look for what it leaves behind."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with assert_no_leaks():
            asyncio.run(asyncio.wait_for(test(*args, **kwargs), WAIT))

    return run
