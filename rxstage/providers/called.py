"""A call of a provider that is closed when it is left, however the provider makes its stream."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

from rxstage.ports.provider import ModelEvent, ModelRequest, Provider

__all__ = ["called"]


class called:
    """Call a provider, iterate what comes back, and close it on leaving the block.

    An iterator without `aclose` is fine: there is nothing to close then.

    Args:
        provider: what is called.
        request: what it is asked.

    Raises:
        TypeError: on entering the block: `stream` gave something that `async for` cannot iterate.
    """

    def __init__(self, provider: Provider, request: ModelRequest) -> None:
        self._provider, self._request = provider, request
        self._events: Any = None

    async def __aenter__(self) -> AsyncIterator[ModelEvent]:
        stream: Any = self._provider.stream(self._request)
        if not hasattr(stream, "__aiter__"):
            if inspect.iscoroutine(stream):
                stream.close()  # nobody awaits it
            raise TypeError(
                f"stream() of provider {self._provider.name!r} ({type(self._provider).__name__}) has to give an "
                f"asynchronous iterator, got {stream!r:.80}; write it as an `async def` function with `yield`"
            )
        self._events = aiter(stream)
        return self._events  # type: ignore[no-any-return]

    async def __aexit__(self, *_: object) -> None:
        if (close := getattr(self._events, "aclose", None)) is not None:
            await close()
