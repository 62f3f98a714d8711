"""How fast an end may send, how a secret is compared, how much of a reason fits."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable
from typing import Final

from rxstage.websocket.protocol import Limits

__all__ = ["Bucket", "buckets", "known_secret", "reason_of"]

_REASON: Final = 123  # bytes that fit into a close frame


class Bucket:
    """Allows so much per second, and what was not used in the last seconds on top.

    Args:
        rate: units per second; None allows everything.
        seconds: of the rate that can be saved up.
        now: the time [s].
    """

    __slots__ = ("_level", "_most", "_rate", "_then")

    def __init__(self, rate: float | None, seconds: float, now: float) -> None:
        self._rate = rate
        self._most = self._level = 0.0 if rate is None else rate * seconds
        self._then = now

    def take(self, units: float, now: float) -> float:
        """Take so many units; gives the seconds by which that is too early, 0 where it is allowed."""
        rate = self._rate
        if rate is None:
            return 0.0
        self._level = min(self._most, self._level + (now - self._then) * rate) - units
        self._then = now
        return 0.0 if self._level >= 0 else -self._level / rate


def known_secret(given: str, secrets: Iterable[str]) -> int | None:
    """Which of the secrets was given; None: none of them. The time it takes does not tell how much of it was right."""
    wanted, found = given.encode("utf-8", "surrogatepass"), None
    for index, secret in enumerate(secrets):
        if hmac.compare_digest(wanted, secret.encode("utf-8", "surrogatepass")):
            found = index
    return found


def buckets(limits: Limits | None, share: float, seconds: float) -> tuple[Bucket, Bucket] | None:
    """For messages and for bytes; None where nothing is limited.

    Args:
        limits: how much there may be per second.
        share: of that which is allowed.
        seconds: that can be saved up.
    """
    if limits is None or (limits.messages_per_second is None and limits.bytes_per_second is None):
        return None
    now = asyncio.get_running_loop().time()
    rates = (limits.messages_per_second, limits.bytes_per_second)
    messages, size = (Bucket(None if rate is None else rate * share, seconds, now) for rate in rates)
    return messages, size


def reason_of(text: str) -> str:
    """As much of a reason as fits into a close frame."""
    return text.encode("utf-8", "replace")[:_REASON].decode("utf-8", "ignore")
