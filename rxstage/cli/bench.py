"""`rxstage bench`: the benchmark table, measured on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rxstage.cli.command import command, console

if TYPE_CHECKING:
    from rxstage.bench import Row

__all__ = ["bench"]


@command
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds: seconds instead of minutes.")] = False,
) -> None:
    """Measure what the library costs against plain calls, and print the table."""
    from rxstage.bench import run_table  # only here: it brings measuring code that nothing else needs

    header = ("what", "figure", "bar", "moonshot", "notes")
    console().table_out(header, map(_cells, run_table(quick)))


def _cells(row: Row) -> tuple[str, ...]:
    met = "" if row.bar is None else " ✓" if row.value <= row.bar else " ✗"
    limits = ("–" if limit is None else f"{limit:g}" for limit in (row.bar, row.moonshot))
    return row.what, f"{row.value:.3g} {row.unit}{met}", *limits, row.notes
