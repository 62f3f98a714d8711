"""What a stage counts of itself, and the histogram of its processing times."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["FIRST_TIMED", "TIMED_EVERY", "Histogram", "Meter", "due"]

FIRST_TIMED: Final = 64
"""So many elements of an execution are timed, each of them."""

TIMED_EVERY: Final = 256
"""And after those one in so many: timing costs more than many a stage."""

_RESOLUTION = 8  # buckets per doubling: a quantile is right within 4.5 %


class Histogram:
    """Durations in buckets that grow by a constant factor: bounded memory, relative precision of 4.5 %."""

    __slots__ = ("buckets", "count", "total")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration [s]."""
        bucket = math.floor(math.log2(seconds) * _RESOLUTION) if seconds > 1e-9 else -30 * _RESOLUTION
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.total += seconds

    def quantile(self, q: float) -> float | None:
        """The duration [s] below which the share `q` of all lies, or None where nothing was counted."""
        if not self.count:
            return None
        rank = q * self.count
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                break
        return float(2.0 ** ((bucket + 0.5) / _RESOLUTION))


class Meter:
    """The counters of one stage in one execution; content counts, controls do not.

    Attributes:
        received: elements that reached the stage.
        emitted: elements that left it.
        errors: callbacks that raised, each try counted.
        times: processing times, where they are measured. They are sampled: each of the first 64 elements,
            then every 256th.
        abandoned: calls that were left running when their time was up.
        stalls: how often it had to wait for a full buffer behind it, and `stalled` for how long [s] in all.
    """

    __slots__ = ("abandoned", "emitted", "errors", "received", "stalled", "stalls", "times")

    def __init__(self, timed: bool = False) -> None:
        self.received = 0
        self.emitted = 0
        self.errors = 0
        self.abandoned = 0
        self.stalls = 0
        self.stalled = 0.0
        self.times: Histogram | None = Histogram() if timed else None


def due(count: int) -> bool:
    """Whether the element with this number is one of those that are timed."""
    return count <= FIRST_TIMED or not count % TIMED_EVERY
