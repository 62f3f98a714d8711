"""Work counted in calls, which is the same on every machine, however busy: time is for benchmarks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from itertools import count

__all__ = ["calls"]


def calls(work: Callable[[], object]) -> int:
    """How many functions it calls, those in C too, on this thread and on those that it starts."""
    counter = count()

    def counted(_: object, event: str, __: object) -> None:
        if event in ("call", "c_call"):
            next(counter)

    before = sys.getprofile()
    threading.setprofile(counted)
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return next(counter)
