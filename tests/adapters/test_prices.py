"""What a call costs, by the prices of the installed table."""

from __future__ import annotations

import socket
import sys

import pytest

from rxstage import Usage
from rxstage.adapters.prices import cost_of, usage_of


@pytest.mark.needs("module:genai_prices")
def test_the_price_of_a_call() -> None:
    """Tokens out cost more than tokens in, and those that a cache had cost less."""
    plain = cost_of("gpt-5.2", provider="openai", input_tokens=1_000_000)
    cached = cost_of("gpt-5.2", provider="openai", input_tokens=1_000_000, cache_read_tokens=1_000_000)
    out = cost_of("gpt-5.2", provider="openai", output_tokens=1_000_000)
    assert 0.0 < cached < plain < out
    assert cost_of("gpt-5.2", url="https://api.openai.com/v1/", input_tokens=1_000_000) == plain


@pytest.mark.needs("module:genai_prices")
@pytest.mark.parametrize(
    ("model", "where"),
    [
        ("a-model-of-mine", {"provider": "openai"}),
        ("gpt-5.2", {"url": "http://localhost:11434/v1"}),
        ("gpt-5.2", {"provider": "a-provider-of-mine"}),
        ("", {}),
    ],
)
def test_what_is_not_known_costs_nothing(model: str, where: dict[str, str]) -> None:
    """A model, an address or a provider that stands in no table costs 0."""
    assert cost_of(model, input_tokens=1000, **where) == 0.0  # type: ignore[arg-type]


@pytest.mark.needs("module:genai_prices")
def test_counts_that_make_no_sense() -> None:
    """Counts that cannot be do not fail the call that they are of."""
    assert cost_of("gpt-5.2", provider="openai", input_tokens=-5) == 0.0


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library a call costs 0."""
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert cost_of("gpt-5.2", provider="openai", input_tokens=1000) == 0.0
    assert usage_of("gpt-5.2", 10, None, provider="openai") == Usage(10, 0, 0.0)


@pytest.mark.needs("module:genai_prices")
def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking a price up opens no connection."""

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert usage_of("gpt-5.2", 1000, 1000, provider="openai").cost > 0.0
