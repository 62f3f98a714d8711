"""What providers round another provider have in common."""

from __future__ import annotations

from rxstage.ports.provider import Provider

__all__ = ["ProviderWrapper"]


class ProviderWrapper(Provider):
    """A provider round another one, whose name and model it has."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.name = provider.name
        self.model = provider.model

    async def prepare(self) -> None:
        """Open a connection early, as the provider inside does."""
        await self.provider.prepare()

    async def aclose(self) -> None:
        """Close the connections of the provider inside."""
        await self.provider.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.provider!r})"
