"""Fallbacks: who is asked when, and how a provider that failed is given another chance."""

from __future__ import annotations

import asyncio

import pytest
from calls import ask, text_of

from rxstage.ports import ProviderError, Withdrawn
from rxstage.providers import FallbackProvider, Reply, ScriptedProvider
from rxstage.testing import run_virtual

DOWN = ProviderError("down", status=503, retryable=True)


def test_the_next_one_answers() -> None:
    """Where the first fails the second answers, with a model of its own."""
    first, second = ScriptedProvider(DOWN), ScriptedProvider("second")
    assert text_of(run_virtual(ask(FallbackProvider(first, second), "x", model="big"))) == "second"
    assert first.calls[0].model == "big"
    assert second.calls[0].model == ""


def test_a_broken_answer_is_withdrawn() -> None:
    """What the first streamed before it broke is told to be void."""
    first = ScriptedProvider(Reply(text="a b c", error=DOWN, error_after=1))
    events = run_virtual(ask(FallbackProvider(first, ScriptedProvider("z")), "x"))
    assert events[:3] == ["a", Withdrawn(DOWN), "z"]


def test_recovery() -> None:
    """One that failed is passed over till its pause is over, then tried by one call; a second failure doubles it."""
    first = ScriptedProvider(DOWN, DOWN, "recovered", "still here")
    second = ScriptedProvider(default="second")
    provider = FallbackProvider(first, second, recover_after=30.0)

    async def at(*times: float) -> list[str]:
        loop = asyncio.get_running_loop()
        answers = []
        for time in times:
            await asyncio.sleep(time - loop.time())
            answers.append(text_of(await ask(provider, "x")))
        return answers

    asked = run_virtual(at(0, 29, 31, 60, 90, 92, 93))
    assert asked == ["second"] * 5 + ["recovered", "still here"]
    assert len(first.calls) == 4


def test_only_one_call_probes() -> None:
    """While one call finds out whether the first works again, others go to the next at once."""
    first = ScriptedProvider(DOWN, Reply(text="slow", delay=10.0))
    second = ScriptedProvider(default="second")
    provider = FallbackProvider(first, second, recover_after=5.0)

    async def main() -> list[str]:
        await ask(provider, "x")
        await asyncio.sleep(6.0)
        return [text_of(events) for events in await asyncio.gather(ask(provider, "probe"), ask(provider, "other"))]

    assert run_virtual(main()) == ["slow", "second"]


def test_all_fail() -> None:
    """Where nobody answers the error tells what each said; it is no cause to leave the next call out."""
    first, second = ScriptedProvider(DOWN, "up again"), ScriptedProvider(ProviderError("no key", status=401))
    provider = FallbackProvider(first, second)
    with pytest.raises(ProviderError, match="all 2 providers failed: down; no key"):
        run_virtual(ask(provider, "x"))
    assert text_of(run_virtual(ask(provider, "x"))) == "up again"


def test_an_error_of_another_kind_is_raised() -> None:
    """A bug in a provider is no reason to ask another one."""
    provider = FallbackProvider(ScriptedProvider(ValueError("a bug")), ScriptedProvider("never"))
    with pytest.raises(ValueError, match="a bug"):
        run_virtual(ask(provider, "x"))
