"""The end of a terminal's text: rows that stay, and below them rows that are still changing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

from msgspec import Struct

__all__ = ["Painter", "Row"]


class Row(Struct, frozen=True):
    """One row: what is written, escape sequences and all, and how many columns it fills."""

    text: str
    columns: int


class Painter:
    """Writes rows in place, and of those that change only what has changed, in one go: nothing flickers.

    Args:
        out: the terminal.
        size: gives its columns and rows.
    """

    def __init__(self, out: IO[str], size: Callable[[], tuple[int, int]]) -> None:
        self._out, self._size = out, size
        self._live: list[Row] = []  # the cursor stands behind the last of them
        self._width = 0
        self._cursor = True

    def cursor(self, shown: bool) -> None:
        """Show the cursor, or hide it."""
        if shown is not self._cursor:
            self._cursor = shown
            self._out.write("\x1b[?25h" if shown else "\x1b[?25l")
            self._out.flush()

    def paint(self, fixed: Sequence[Row] = (), live: Sequence[Row] = ()) -> None:
        """Replace the rows that were changing: `fixed` ones stay from now on, `live` ones may change again.

        Of live rows those are shown that fit, the newest.
        """
        width, height = self._size()
        live = list(live)[-max(height - 1, 1) :]
        rows = [*fixed, *live]
        old = self._live
        same = _common(old, rows) if width == self._width else 0
        # what was cut off at the edge while it was live is written again, in full
        same = next((index for index in range(min(same, len(fixed))) if fixed[index].columns > width), same)
        if len(rows) < len(old):
            same = min(same, max(len(rows) - 1, 0))  # the cursor has to end up behind the last row
        written: list[str] = []
        if same < len(old):
            written.append(self._back_to(old[same:], width))
            if len(rows) < len(old) or width != self._width:
                written.append("\x1b[J")
        elif old and len(rows) > same:
            written.append("\r\n")
        for index in range(same, len(rows)):
            # a live row that is wider than we believe must not become two, or we would lose count
            text = rows[index].text if index < len(fixed) else f"\x1b[?7l{rows[index].text}\x1b[?7h"
            written.append(f"\x1b[K{text}" + ("\r\n" if index < len(rows) - 1 else ""))
        if rows and not live:
            written.append("\r\n")
        self._live, self._width = live, width
        if written:
            self._out.write("".join(written))
            self._out.flush()

    def _back_to(self, rows: Sequence[Row], width: int) -> str:
        """The way up to the first of the rows that stand last."""
        taken = len(rows)
        if width != self._width:  # in a terminal that became narrower they take up more
            taken = sum(max(1, -(-row.columns // max(width, 1))) for row in rows)
        return "\r" + (f"\x1b[{taken - 1}A" if taken > 1 else "")


def _common(old: Sequence[Row], new: Sequence[Row]) -> int:
    """How many rows at the beginning are the same."""
    same = 0
    for before, after in zip(old, new, strict=False):
        if before != after:
            break
        same += 1
    return same
