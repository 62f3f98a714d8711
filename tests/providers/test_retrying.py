"""Retries: what is tried again, when, and what is told of an answer that broke off."""

from __future__ import annotations

import asyncio

import pytest
from calls import ask, text_of

from rxstage import Retry
from rxstage.ports import ModelEvent, ProviderError, Withdrawn
from rxstage.providers import RETRY, Reply, RetryingProvider, ScriptedProvider, is_retryable
from rxstage.testing import run_virtual

BUSY = ProviderError("busy", status=429, retryable=True)


async def timed(provider: RetryingProvider) -> tuple[list[ModelEvent], float]:
    return await ask(provider, "x"), asyncio.get_running_loop().time()


def test_429_429_200() -> None:
    """Two refusals and an answer are three calls."""
    script = ScriptedProvider(BUSY, BUSY, "Here.")
    events, took = run_virtual(timed(RetryingProvider(script)))
    assert text_of(events) == "Here."
    assert len(script.calls) == 3
    assert 1.5 <= took <= 2.0  # 0.5 s and 1 s, and up to 0.25 s each by chance


def test_401_is_one_call() -> None:
    """What another try cannot mend is not tried again."""
    script = ScriptedProvider(ProviderError("no such key", status=401), "never")
    with pytest.raises(ProviderError, match="no such key"):
        run_virtual(ask(RetryingProvider(script), "x"))
    assert len(script.calls) == 1


def test_retry_after_is_obeyed() -> None:
    """The wait that the provider asks for takes the place of the policy's."""
    script = ScriptedProvider(ProviderError("busy", retryable=True, retry_after=7.0), "Here.")
    events, took = run_virtual(timed(RetryingProvider(script)))
    assert (text_of(events), took) == ("Here.", 7.0)


def test_too_long_a_wait_is_not_waited_for() -> None:
    """A provider that asks for more than `longest` seconds is given up at once."""
    script = ScriptedProvider(ProviderError("busy", retryable=True, retry_after=3600.0), "never")
    with pytest.raises(ProviderError, match="busy"):
        run_virtual(ask(RetryingProvider(script, longest=60.0), "x"))
    assert len(script.calls) == 1


def test_an_answer_that_breaks_off_is_withdrawn() -> None:
    """A break in mid-answer is told by `Withdrawn`, and the answer begins again."""
    cut = ProviderError("cut", retryable=True)
    script = ScriptedProvider(Reply(text="The answer is 4", error=cut, error_after=3), "The answer is 42")
    events = run_virtual(ask(RetryingProvider(script), "x"))
    assert events[:4] == ["The", " answer", " is", Withdrawn(cut)]
    assert text_of(events[4:]) == "The answer is 42"


def test_a_break_before_the_first_token_is_not_told() -> None:
    """Nothing was streamed, so nothing is withdrawn."""
    events = run_virtual(ask(RetryingProvider(ScriptedProvider(BUSY, "a")), "x"))
    assert not any(isinstance(event, Withdrawn) for event in events)


def test_attempts_end() -> None:
    """After the last attempt its error is raised."""
    script = ScriptedProvider(*[BUSY] * 5, "never")
    with pytest.raises(ProviderError, match="busy"):
        run_virtual(ask(RetryingProvider(script, Retry(attempts=5, wait=1.0, retry_on=is_retryable)), "x"))
    assert len(script.calls) == 5
    assert RETRY.attempts == 4


def test_a_cancelled_call_is_not_tried_again() -> None:
    """A cancellation while it waits ends it."""
    script = ScriptedProvider(BUSY, "never")
    with pytest.raises(TimeoutError):
        run_virtual(asyncio.wait_for(ask(RetryingProvider(script), "x"), 0.1))
    assert len(script.calls) == 1


def test_a_policy_of_the_users_own_does_not_retry_what_is_final() -> None:
    """`Retry(attempts=3)` is about any exception, but a refused key stays refused."""
    script = ScriptedProvider(ProviderError("no such key", status=401), "never")
    with pytest.raises(ProviderError, match="no such key"):
        run_virtual(ask(RetryingProvider(script, Retry(attempts=3)), "x"))
    assert len(script.calls) == 1
