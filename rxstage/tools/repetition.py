"""How often a model may ask for the very same thing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from rxstage.content import ToolCall

__all__ = ["Repetition"]


class Repetition:
    """Bounds how often the same call, of the same name with the same arguments, is done in one turn.

    Args:
        limit: how often, at least 1.
    """

    def __init__(self, limit: int = 3) -> None:
        if limit < 1:
            raise ValueError(f"a call must be allowed at least once, got limit={limit!r}")
        self.limit = limit
        self._seen: Counter[bytes] = Counter()

    def allows(self, call: ToolCall) -> bool:
        """Count the call; whether it may be done once more."""
        key = _key(call)
        self._seen[key] += 1
        return self._seen[key] <= self.limit


def _key(call: ToolCall) -> bytes:
    """The same for the same call, whatever the order of its arguments; short, whatever their size."""
    arguments: Any = call.arguments
    try:
        plain = dict(arguments) if isinstance(arguments, Mapping) else arguments
        text = msgspec.json.encode([call.name, plain], order="deterministic", enc_hook=repr)
    except Exception:  # nested too deep, or nothing that JSON has: refused as soon as it is looked at
        text = f"{call.name!r} with what is no JSON".encode()
    return hashlib.blake2b(text, digest_size=16).digest()
