"""Metrics and statistics as rows, and the rows as an html or a rich table."""

from __future__ import annotations

import html
import reprlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from rxstage.errors import require

if TYPE_CHECKING:
    from rxstage.element import StreamElement
    from rxstage.observe.metrics import Metrics, Statistics

__all__ = [
    "EDGE_HEADER",
    "ELEMENT_HEADER",
    "STAGE_HEADER",
    "edge_rows",
    "element_rows",
    "elements_html",
    "execution_html",
    "html_table",
    "readable",
    "rich_table",
    "stage_rows",
]

Row = tuple[str, ...]

STAGE_HEADER: Final = ("stage", "in", "out", "errors", "p50", "p99", "stalls", "peak")
EDGE_HEADER: Final = ("edge", "depth", "peak", "capacity", "dropped", "waiting")
ELEMENT_HEADER: Final = ("sequence", "timestamp", "source", "kind", "content")

_SHOWN: Final = 20  # rows of a table of elements
_WIDTH: Final = 80  # characters of a content

_NOTHING: Final = "–"
_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def readable(seconds: float | None) -> str:
    """A duration [s] in the unit that suits it, with three digits: `"1.25 ms"`; `"–"` for None."""
    if seconds is None:
        return _NOTHING
    if seconds >= 99.95:
        return f"{seconds:.0f} s"
    if seconds < 1e-9:
        return "0 s"
    unit, name = next(each for each in _UNITS if seconds >= each[0] * 0.9995)
    return f"{seconds / unit:.3g} {name}"


def stage_rows(metrics: Metrics, statistics: Statistics | None = None) -> list[Row]:
    """One row per stage, under `STAGE_HEADER`.

    Args:
        metrics: the stages.
        statistics: the edges, for the peak depth of the buffers before each stage; without them it stays blank.
    """
    peaks: dict[str, int] = {}
    for (_, target), edge in statistics.edges.items() if statistics is not None else ():
        if edge.capacity:
            peaks[target] = max(peaks.get(target, 0), edge.peak)
    return [
        (
            name,
            f"{stage.received:,}",
            f"{stage.emitted:,}",
            f"{stage.errors:,}",
            readable(stage.p50),
            readable(stage.p99),
            f"{stage.stalls:,} ({readable(stage.stalled)})" if stage.stalls else "0",
            str(peaks.get(name, _NOTHING)),
        )
        for name, stage in metrics.stages.items()
    ]


def edge_rows(statistics: Statistics) -> list[Row]:
    """One row per edge, under `EDGE_HEADER`; an edge without a buffer has only its name."""
    rows: list[Row] = []
    for (source, target), edge in statistics.edges.items():
        name = f"{source} → {target}"
        if edge.capacity:
            numbers = (f"{number:,}" for number in (edge.depth, edge.peak, edge.capacity, edge.dropped))
            rows.append((name, *numbers, "yes" if edge.waiting else "no"))
        else:
            rows.append((name, *(_NOTHING,) * (len(EDGE_HEADER) - 1)))
    return rows


def element_rows(elements: Sequence[StreamElement], limit: int = _SHOWN) -> list[Row]:
    """One row per element, under `ELEMENT_HEADER`; past `limit` one row says how many more there are."""
    rows: list[Row] = [
        (
            str(element.sequence),
            f"{element.timestamp:.3f}",
            element.source,
            type(element.content).__name__,
            _short(element.text if element.text is not None else element.content),
        )
        for element in elements[:limit]
    ]
    if len(elements) > limit:
        rows.append(("…", "", "", "", f"{len(elements) - limit:,} more"))
    return rows


def elements_html(elements: Sequence[StreamElement], error: BaseException | None = None) -> str:
    """What an execution emitted, and what it failed with, as an html table."""
    caption = f"{len(elements):,} elements"
    if error is not None:
        caption += f"; {type(error).__name__}: {error}"
    return html_table(ELEMENT_HEADER, element_rows(elements), caption)


def execution_html(execution: Any) -> str:
    """An execution as an html table of its stages.

    Args:
        execution: has `id`, `pipeline.name`, `state`, `error`, `metrics()` and `statistics()`.
    """
    metrics = execution.metrics()
    caption = f"{execution.pipeline.name} {execution.id}: {execution.state}"
    if metrics.duration:
        caption += f", {readable(metrics.duration)}"
    if execution.error is not None:
        caption += f"; {type(execution.error).__name__}: {execution.error}"
    return html_table(STAGE_HEADER, stage_rows(metrics, execution.statistics()), caption)


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """An html table, its texts escaped."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def rich_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Any:
    """A `rich.table.Table`; its first column is left-aligned, the numbers are right-aligned.

    Raises:
        MissingExtra: rich is not installed.
    """
    text = require("rich.text", "cli").Text  # plain: a stage named "[b]" is no markup
    table = require("rich.table", "cli").Table(title=title)
    for index, cell in enumerate(header):
        table.add_column(cell, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(text(cell) for cell in row))
    return table


def _short(value: object) -> str:
    if isinstance(value, Struct):  # field by field, so that no picture or sound is written out
        text = ", ".join(f"{name}={_short(getattr(value, name))}" for name in value.__struct_fields__)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        text = f"{len(value):,} bytes"
    else:
        text = value if isinstance(value, str) else reprlib.repr(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
