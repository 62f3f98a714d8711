"""A provider that is not waited for without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rxstage.ports.provider import ModelEvent, ModelRequest, Provider, ProviderTimeout
from rxstage.providers.called import called
from rxstage.providers.wrapper import ProviderWrapper

__all__ = ["TimedProvider"]


class TimedProvider(ProviderWrapper):
    """Gives a call up that does not begin to answer in time, or stops in the middle of its answer.

    Args:
        provider: what is called.
        first: seconds to the first token; None waits without limit.
        between: seconds between two tokens, likewise.
    """

    def __init__(self, provider: Provider, *, first: float | None = None, between: float | None = None) -> None:
        super().__init__(provider)
        self.first = first
        self.between = between

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer, or a `ProviderTimeout`, which is worth another try."""
        limit, where = self.first, "before its first token"
        async with called(self.provider, request) as events:
            while True:
                try:
                    async with asyncio.timeout(limit) as timer:
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    if not timer.expired():  # a time limit of the provider's own
                        raise
                    model = request.model or self.model
                    raise ProviderTimeout(
                        f"model {model!r} of provider {self.name!r} sent nothing for {limit} s {where}",
                        provider=self.name,
                        model=model,
                        retryable=True,
                    ) from error
                yield event
                limit, where = self.between, "in the middle of its answer"
