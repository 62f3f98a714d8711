"""A call of a provider, whatever the provider makes its stream of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from calls import ask, asking, text_of

from rxstage.ports import Finish, ModelEvent, ModelRequest, Provider, ProviderError
from rxstage.providers import FallbackProvider, LimitedProvider, RetryingProvider, ScriptedProvider, TimedProvider
from rxstage.providers.called import called
from rxstage.testing import run_virtual


class Streaming(Provider):
    """Streams whatever a function gives."""

    name = "mine"

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        return self._make()  # type: ignore[no-any-return]


class Bare:
    """An iterator that cannot be closed."""

    def __init__(self) -> None:
        self._events = iter(("It ", "works.", Finish()))

    def __aiter__(self) -> Bare:
        return self

    async def __anext__(self) -> Any:
        event = next(self._events, None)
        if event is None:
            raise StopAsyncIteration
        return event


class Iterable:
    """Can be iterated, and is no iterator."""

    def __aiter__(self) -> Bare:
        return Bare()


WRAPPERS: list[Callable[[Provider], Provider]] = [
    RetryingProvider,
    TimedProvider,
    FallbackProvider,
    lambda provider: LimitedProvider(provider, concurrency=1),
]


async def nothing() -> None:
    """A coroutine, where an iterator is due."""


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("make", [Bare, Iterable])
def test_a_stream_need_not_be_a_generator(wrap: Callable[[Provider], Provider], make: Callable[[], Any]) -> None:
    """The port asks for an iterator; one without `aclose` is one."""
    assert text_of(run_virtual(ask(wrap(Streaming(make)), "?"))) == "It works."


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("make", [lambda: (word for word in "ab"), nothing, lambda: ["a"], lambda: None])
def test_what_is_no_stream_is_named(wrap: Callable[[Provider], Provider], make: Callable[[], Any]) -> None:
    """A plain generator, a coroutine or a list: the error says whose it is and how it is written."""
    with pytest.raises(TypeError, match=r"stream\(\) of provider 'mine' \(Streaming\) .* `async def` .* `yield`"):
        run_virtual(ask(wrap(Streaming(make)), "?"))


def test_leaving_closes_the_call() -> None:
    """A call that is left early is closed before the block has ended."""
    closed: list[str] = []

    async def events() -> AsyncIterator[ModelEvent]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append("closed")

    async def main() -> None:
        async with called(Streaming(events), asking("?")) as stream:
            assert await anext(stream) == "a"
        assert closed == ["closed"]

    run_virtual(main())


def test_an_answer_without_its_end_is_an_answer() -> None:
    """A provider that has recovered is asked first again, even if it never says that it has finished."""

    async def unfinished() -> AsyncIterator[ModelEvent]:
        calls.append("first")
        if len(calls) == 1:
            raise ProviderError("busy")
        yield "here"

    async def main() -> None:
        for _ in range(2):
            await ask(provider, "?")
            await asyncio.sleep(31)
        first, second = await asyncio.gather(ask(provider, "?"), ask(provider, "?"))
        assert (text_of(first), text_of(second)) == ("here", "here")

    calls: list[str] = []
    provider = FallbackProvider(Streaming(unfinished), ScriptedProvider(default="other"), recover_after=30)
    run_virtual(main())
    assert calls == ["first"] * 4
