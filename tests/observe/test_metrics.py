"""Snapshots of stages and edges, and the tables made of them."""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

import msgspec
import pytest

from rxstage.config import PipelineConfig
from rxstage.element import StreamElement
from rxstage.errors import MissingExtra
from rxstage.flow.buffer import Buffer, BufferStatistics
from rxstage.flow.scope import Scope
from rxstage.observe import table
from rxstage.observe.metrics import Metrics, StageMetrics, Statistics, metrics_of, statistics_of


def scope(*names: str, metrics: bool = False) -> Scope:
    config = PipelineConfig.model_validate({"metrics": metrics})
    made = Scope(config=config, clock=lambda: 0.0, on_fail=lambda error: None)
    made.names = names
    return made


def test_counters() -> None:
    """A snapshot has what the meters count, brought up to date, and does not change afterwards."""
    execution = scope("a", "b")
    meter = execution.meters["a"]
    execution.readers.append(lambda: setattr(meter, "received", 7))
    meter.emitted, meter.errors, meter.stalls, meter.stalled, meter.abandoned = 5, 1, 2, 0.5, 3
    execution.unrouted["b"] = 4
    metrics = metrics_of(execution, duration=1.5)
    meter.emitted = 99
    assert metrics.duration == 1.5
    assert metrics.stages == {
        "a": StageMetrics(received=7, emitted=5, errors=1, stalls=2, stalled=0.5, abandoned=3),
        "b": StageMetrics(unrouted=4),
    }


def test_quantiles_only_where_times_are_measured() -> None:
    """p50 and p99 are seconds with `metrics=True`, within the histogram's precision, else None."""
    execution = scope("a", "b", metrics=True)
    times = execution.meters["a"].times
    assert times is not None
    for _ in range(98):
        times.add(0.001)
    for _ in range(2):
        times.add(1.0)
    stages = metrics_of(execution).stages
    assert stages["a"].p50 == pytest.approx(0.001, rel=0.05)
    assert stages["a"].p99 == pytest.approx(1.0, rel=0.05)
    assert stages["b"].p50 is None
    assert metrics_of(scope("a")).stages["a"].p99 is None
    assert metrics_of(scope()).stages == {}


def test_edges() -> None:
    """Every edge of the graph is there, in its order: with its buffer's numbers, or all zero without a buffer."""
    execution = scope()
    execution.links = (("b", "c"), ("a", "b"))
    buffer = execution.edges["a", "b"] = Buffer(2, "drop_oldest")
    for text in "abc":
        buffer.push(StreamElement.of(text))
    edges = statistics_of(execution).edges
    assert list(edges) == [("b", "c"), ("a", "b")]
    assert edges["a", "b"] == BufferStatistics(depth=2, peak=2, capacity=2, dropped=1, waiting=False)
    assert edges["b", "c"] == BufferStatistics()


@pytest.mark.parametrize("snapshot", [Metrics(), Statistics()])
def test_snapshots_are_frozen(snapshot: Any) -> None:
    """A snapshot cannot be assigned to."""
    with pytest.raises(AttributeError):
        setattr(snapshot, snapshot.__struct_fields__[0], {})


def test_snapshots_travel() -> None:
    """Metrics pickle and go to JSON and back, for results that come from another process."""
    metrics = Metrics({"a": StageMetrics(received=1, p50=0.5)}, 2.0)
    assert pickle.loads(pickle.dumps(metrics)) == metrics
    assert msgspec.json.decode(msgspec.json.encode(metrics), type=Metrics) == metrics


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "–"),
        (0.0, "0 s"),
        (5e-9, "5 ns"),
        (3.4e-7, "340 ns"),
        (1.25e-5, "12.5 µs"),
        (0.00125, "1.25 ms"),
        (0.9999, "1 s"),
        (1.0, "1 s"),
        (99.9, "99.9 s"),
        (12345.6, "12346 s"),
    ],
)
def test_readable(seconds: float | None, expected: str) -> None:
    """A duration is written in the unit that suits it."""
    assert table.readable(seconds) == expected


METRICS = Metrics(
    {
        "<src>": StageMetrics(received=1200, emitted=1200, p50=1e-6, p99=0.002),
        "b": StageMetrics(received=1200, emitted=3, errors=2, stalls=4, stalled=0.5),
    },
    1.5,
)
STATISTICS = Statistics(
    {
        ("<src>", "b"): BufferStatistics(depth=1, peak=9, capacity=16, dropped=0, waiting=True),
        ("x", "b"): BufferStatistics(peak=12, capacity=16),
        ("b", "c"): BufferStatistics(),
    }
)


def test_stage_rows() -> None:
    """A row has the counts, the quantiles in readable units, the stalls and the peak of the buffers before it."""
    assert table.stage_rows(METRICS, STATISTICS) == [
        ("<src>", "1,200", "1,200", "0", "1 µs", "2 ms", "0", "–"),
        ("b", "1,200", "3", "2", "–", "–", "4 (500 ms)", "12"),
    ]
    assert [row[-1] for row in table.stage_rows(METRICS)] == ["–", "–"]


def test_edge_rows() -> None:
    """An edge with a buffer has its numbers, one without has none."""
    assert table.edge_rows(STATISTICS) == [
        ("<src> → b", "1", "9", "16", "0", "yes"),
        ("x → b", "0", "12", "16", "0", "no"),
        ("b → c", "–", "–", "–", "–", "–"),
    ]


def test_html() -> None:
    """In a notebook they are tables, and names are escaped."""
    page = METRICS._repr_html_()
    assert page.count("<tr>") == 3
    assert "<td>&lt;src&gt;</td>" in page
    assert "1.5 s" in page
    assert "&lt;src&gt; → b" in STATISTICS._repr_html_()
    assert "<caption>" not in STATISTICS._repr_html_()


def test_elements_html_is_short_and_escaped() -> None:
    """A table of elements shows the first ones, cuts what is long, and writes out no bytes."""
    elements = [StreamElement.of("<b>" * 100), *(StreamElement.of(index) for index in range(30))]
    page = table.elements_html(elements, ValueError("<no>"))
    assert page.count("<tr>") == 22
    assert "11 more" in page
    assert "ValueError: &lt;no&gt;" in page
    assert "<b>" not in page
    assert len(page) < 4000


def test_execution_html() -> None:
    """An execution shows its stages under its name and state."""

    class Execution:
        id = "e-1"
        state = "failed"
        error = ValueError("no")
        pipeline = type("Pipeline", (), {"name": "p"})
        metrics = staticmethod(lambda: METRICS)
        statistics = staticmethod(lambda: STATISTICS)

    page = table.execution_html(Execution())
    assert "p e-1: failed, 1.5 s; ValueError: no" in page
    assert "<td>12</td>" in page


def test_rich() -> None:
    """The same rows make a rich table, in which a name is text and not markup."""
    console = pytest.importorskip("rich.console")
    output = console.Console(width=120, record=True, file=io.StringIO())
    output.print(table.rich_table(("stage", "in"), [("[bold]a", "1,200")], title="now"))
    text = output.export_text()
    assert "[bold]a" in text
    assert "1,200" in text


def test_rich_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rich the error names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "rich.text", None)
    with pytest.raises(MissingExtra, match=r"rxstage\[cli\]"):
        table.rich_table(("a",), [])
