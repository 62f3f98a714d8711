"""A provider that tries again where that may help."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from rxstage.config import Retry
from rxstage.ports.provider import Finish, ModelEvent, ModelRequest, Provider, ProviderError, Withdrawn
from rxstage.providers.called import called
from rxstage.providers.wrapper import ProviderWrapper

__all__ = ["RETRY", "RetryingProvider", "is_retryable"]

_LONGEST: Final = 60.0  # seconds that a provider may ask to wait before it is given up


def is_retryable(error: BaseException) -> bool:
    """Whether the provider says that another try may help."""
    return isinstance(error, ProviderError) and error.retryable


def _back_off(tries: int) -> float:
    return min(0.5 * 2.0 ** (tries - 1), 20.0)


RETRY: Final = Retry(attempts=4, wait=_back_off, jitter=0.25, retry_on=is_retryable)
"""What is done by default: three more tries, after 0.5, 1 and 2 s (and up to 0.25 s by chance)."""


class RetryingProvider(ProviderWrapper):
    """Tries a call again that failed, after the wait that the provider asks for or else that of the policy.

    What the provider says cannot succeed is not tried again.

    Where an answer breaks off in the middle, `Withdrawn` tells that what was streamed is void, and the answer begins
    again.

    Args:
        provider: what is called.
        retry: how often and when; `then` has no meaning here, the last error is raised.
        longest: a provider that asks for more seconds than this is given up.
    """

    def __init__(self, provider: Provider, retry: Retry = RETRY, *, longest: float = _LONGEST) -> None:
        super().__init__(provider)
        self.retry = retry
        self.longest = longest

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer, of as many tries as it takes."""
        tries = 0
        while True:
            tries += 1
            begun = False
            async with called(self.provider, request) as events:
                while True:
                    try:
                        event = await anext(events)
                    except StopAsyncIteration:
                        return
                    except Exception as error:
                        wait = self._wait(error, tries)
                        if wait is None:
                            raise
                        failed = error
                        break
                    begun = True
                    yield event
                    if event.__class__ is Finish:
                        return
            if begun:
                yield Withdrawn(failed)
            await asyncio.sleep(wait)

    def _wait(self, error: BaseException, tries: int) -> float | None:
        """Seconds before the next try; None where there is none."""
        final = isinstance(error, ProviderError) and not error.retryable  # whatever the policy says of its type
        if tries >= self.retry.attempts or final or not self.retry.applies(error):
            return None
        asked = getattr(error, "retry_after", None)
        if asked is None:
            return self.retry.delay(tries)
        return None if asked > self.longest else float(asked)
