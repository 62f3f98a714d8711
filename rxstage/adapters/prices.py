"""What a call of a model cost, by the table that the library `genai-prices` brings along (extra `prices`)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

__all__ = ["cost_of", "usage_of"]

from rxstage.content import Usage


def cost_of(
    model: str,
    *,
    provider: str = "",
    url: str = "",
    input_tokens: int = 0,
    output_tokens: int = 0,
    cache_read_tokens: int = 0,
    cache_write_tokens: int = 0,
) -> float:
    """The price of a call in US dollars; 0.0 where it is not known, or the library is not installed.

    Nothing is fetched: the prices are those of the installed version.

    Args:
        model: the model that answered.
        provider: the provider's name: `"openai"`.
        url: address of its API, which goes before the name.
        input_tokens: all tokens that went in, those of a cache too.
        output_tokens: all that came out, those of its reasoning too.
        cache_read_tokens: how many of the input a cache had.
        cache_write_tokens: how many of the input were put into a cache.
    """
    try:
        import genai_prices
    except ImportError:
        return 0.0
    where: dict[str, Any] = {"provider_api_url": url} if url else {"provider_id": provider or None}
    with suppress(LookupError, ValueError):  # an unknown model, or counts that make no sense
        usage = genai_prices.Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
        )
        return float(genai_prices.calc_price(usage, model, **where).total_price)
    return 0.0


def usage_of(
    model: str,
    input_tokens: int | None,
    output_tokens: int | None,
    *,
    provider: str = "",
    url: str = "",
    cache_read_tokens: int | None = None,
    cache_write_tokens: int | None = None,
) -> Usage:
    """The `Usage` of a call with its cost; the arguments are those of `cost_of`, and None is 0."""
    tokens_in, tokens_out = input_tokens or 0, output_tokens or 0
    cost = cost_of(
        model,
        provider=provider,
        url=url,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cache_read_tokens=cache_read_tokens or 0,
        cache_write_tokens=cache_write_tokens or 0,
    )
    return Usage(tokens_in, tokens_out, cost)
