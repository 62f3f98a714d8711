"""Counters and histograms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxstage.flow.meter import Histogram, Meter


def test_nothing() -> None:
    """Of nothing there is no quantile."""
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    assert histogram.count == 0


@given(st.lists(st.floats(1e-8, 1e4), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_precision(seconds: list[float], q: float) -> None:
    """A quantile is that of the sorted list within 4.5 %, in bounded memory."""
    histogram = Histogram()
    for each in seconds:
        histogram.add(each)
    exact = sorted(seconds)[max(0, math.ceil(q * len(seconds)) - 1)]
    found = histogram.quantile(q)
    assert found is not None
    assert found == pytest.approx(exact, rel=0.046)
    assert histogram.count == len(seconds)
    assert histogram.total == pytest.approx(sum(seconds))
    assert len(histogram.buckets) <= 8 * 41


def test_no_time_at_all() -> None:
    """A clock that does not move, or goes back, counts as next to nothing."""
    histogram = Histogram()
    histogram.add(0.0)
    histogram.add(-1.0)
    quantile = histogram.quantile(0.99)
    assert quantile is not None
    assert quantile < 1e-8


def test_meter() -> None:
    """A meter has a histogram only where times are wanted."""
    assert Meter().times is None
    assert isinstance(Meter(timed=True).times, Histogram)
