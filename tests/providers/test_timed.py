"""Time limits of a call."""

from __future__ import annotations

import asyncio

import pytest
from calls import ask, asking, text_of

from rxstage.ports import ProviderTimeout
from rxstage.providers import Reply, RetryingProvider, ScriptedProvider, TimedProvider
from rxstage.testing import run_virtual


def test_the_first_token_comes_in_time_or_not() -> None:
    """A call that does not begin in time fails with an error that names model, provider and limit."""
    script = ScriptedProvider(Reply(text="late", delay=3.0), Reply(text="in time", delay=1.0))
    provider = TimedProvider(script, first=2.0)
    with pytest.raises(
        ProviderTimeout, match=r"'script' of provider 'scripted' sent nothing for 2\.0 s before its first"
    ):
        run_virtual(ask(provider, "x"))
    assert text_of(run_virtual(ask(provider, "x"))) == "in time"


def test_a_stall_between_tokens() -> None:
    """An answer that stops in the middle is given up, and is worth another try."""
    script = ScriptedProvider(Reply(text="a b", stalls=True), "a b c")
    provider = RetryingProvider(TimedProvider(script, first=1.0, between=5.0))
    assert text_of(run_virtual(ask(provider, "x"))) == "a ba b c"


def test_no_limit() -> None:
    """Without limits it waits as long as it takes."""
    assert text_of(run_virtual(ask(TimedProvider(ScriptedProvider("a", delay=9999.0)), "x"))) == "a"


def test_a_time_limit_of_somebody_else_goes_through() -> None:
    """A `TimeoutError` that the provider itself raises is not taken for ours."""
    provider = TimedProvider(ScriptedProvider(TimeoutError("theirs")), first=5.0)
    with pytest.raises(TimeoutError, match="theirs"):
        run_virtual(ask(provider, "x"))


def test_closing_it_early_closes_the_call() -> None:
    """Who stops reading closes the stream inside."""
    closed = []

    class Watched(ScriptedProvider):
        async def stream(self, request):  # type: ignore[no-untyped-def]
            try:
                async for event in super().stream(request):
                    yield event
            finally:
                closed.append(True)

    async def first() -> None:
        stream = TimedProvider(RetryingProvider(Watched("a b c")), first=1.0).stream(asking("x"))
        assert await anext(stream) == "a"
        await stream.aclose()  # type: ignore[attr-defined]
        assert closed == [True]
        await asyncio.sleep(0)

    run_virtual(first())
    assert closed == [True]
