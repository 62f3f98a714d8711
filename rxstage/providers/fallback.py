"""A provider with others behind it, for when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from msgspec.structs import replace

from rxstage.ports.provider import Finish, ModelEvent, ModelRequest, Provider, ProviderError, Withdrawn
from rxstage.providers.called import called
from rxstage.providers.wrapper import ProviderWrapper

__all__ = ["FallbackProvider"]

_LONGEST: Final = 600.0  # seconds between two looks at whether a provider has recovered


class _Health:
    """Whether one provider is believed to work; shared by all executions that use it."""

    __slots__ = ("failures", "probing", "retry_at")

    def __init__(self) -> None:
        self.failures = 0
        self.retry_at = 0.0
        self.probing = False

    def allows(self, now: float) -> bool:
        """Whether it is to be called; after its pause, one call at a time finds out whether it has recovered."""
        return not self.failures or (now >= self.retry_at and not self.probing)


class FallbackProvider(ProviderWrapper):
    """Asks the first of several providers that works.

    One that fails is passed over for `recover_after` seconds. Then one call tries it again, while others still go to
    the next; if it fails again, the pause doubles, to ten minutes at most. Only the first is asked for the model that
    a request names: the others have models of their own.

    Args:
        provider: asked first.
        *others: asked in this order where those before have failed.
        recover_after: seconds until a provider that failed is tried again.
    """

    def __init__(self, provider: Provider, *others: Provider, recover_after: float = 30.0) -> None:
        super().__init__(provider)
        self.providers = (provider, *others)
        self.recover_after = recover_after
        self._health = [_Health() for _ in self.providers]

    async def prepare(self) -> None:
        """Open a connection to the provider that would be asked now."""
        now = asyncio.get_running_loop().time()
        for provider, health in zip(self.providers, self._health, strict=True):
            if health.allows(now):
                await provider.prepare()
                return

    async def aclose(self) -> None:
        """Close the connections of all of them."""
        for provider in self.providers:
            await provider.aclose()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer of the first provider that gives one."""
        clock = asyncio.get_running_loop().time
        errors: list[Exception] = []
        begun = False
        allowed = [index for index, health in enumerate(self._health) if health.allows(clock())]
        for index in allowed or range(len(self.providers)):  # where all have failed, they are all that there is
            provider, health = self.providers[index], self._health[index]
            if begun:
                yield Withdrawn(errors[-1])
                begun = False
            asked = request if index == 0 else _for_its_own_model(request)
            health.probing = True
            try:
                async with called(provider, asked) as events:
                    while True:
                        try:
                            event = await anext(events)
                        except StopAsyncIteration:
                            health.failures = 0
                            return
                        except ProviderError as error:
                            errors.append(error)
                            self._failed(health, clock())
                            break
                        if event.__class__ is Finish:
                            health.failures = 0
                            yield event
                            return
                        begun = True
                        yield event
            finally:
                health.probing = False
        self._give_up(errors)

    def _failed(self, health: _Health, now: float) -> None:
        health.failures += 1
        health.retry_at = now + min(self.recover_after * 2.0 ** (health.failures - 1), _LONGEST)

    def _give_up(self, errors: list[Exception]) -> None:
        if len(errors) == 1:
            raise errors[0]
        told = "; ".join(str(error) for error in errors)
        raise ProviderError(f"all {len(errors)} providers failed: {told}", provider=self.name) from errors[0]


def _for_its_own_model(request: ModelRequest) -> ModelRequest:
    return replace(request, model="") if request.model else request
