"""A conversation as Markdown that is drawn while it streams."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from rxstage.cli.chat_markdown import Block, Blocks
from rxstage.cli.chat_painter import Painter, Row
from rxstage.cli.chat_screen import LONGEST, NARROWEST, Screen
from rxstage.cli.chat_text import clean, one_line

__all__ = ["MarkdownScreen"]

_FRAME: Final = 0.06  # seconds between two drawings
_SHARE: Final = 4  # times what a drawing took is the least time till the next: at most a fifth goes into drawing
_NARROWEST: Final = 8  # columns that anything is drawn in
_THEME: Final = Theme({"markdown.code": "bold cyan", "markdown.code_block": "none"})


class MarkdownScreen(Screen):
    """Draws Markdown while it comes. Complete blocks are drawn once, the one that is still open again and again.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ink = Console(  # makes rows of what is drawn, and writes nothing
            file=io.StringIO(),
            force_terminal=True,
            color_system=console.color_system,  # type: ignore[arg-type]  # one of the names that it takes
            no_color=console.no_color,
            highlight=False,
            theme=_THEME,
        )
        self._painter = Painter(console.file, lambda: console.size)
        self._blocks = Blocks()
        self._waiting = False
        self._gap = False  # whether something stands above that a block needs to be apart from
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0  # loop time before which nothing is drawn
        self._error: Exception | None = None

    def begin(self) -> None:
        self._blocks, self._gap, self._waiting = Blocks(), False, True
        self._painter.cursor(False)
        self._painter.paint(live=self._waits())

    def text(self, piece: str) -> None:
        if self._error is not None:
            raise self._error
        self._waiting = False
        self._blocks.feed(clean(piece))
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(self._next - loop.time(), 0.0), self._draw)

    def void(self, why: str) -> None:
        self._blocks = Blocks()
        self._waiting = True
        self.note(f"what stands above of this answer is void, it begins again: {why}", "yellow")

    def finish(self) -> None:
        self._waiting = False
        self._painter.cursor(True)
        self._stop()
        self._painter.paint(self._rows(self._blocks.finish()))

    def note(self, message: str, style: str = "dim") -> None:
        self._beside(self._told(message, style))

    def glance(self, message: str, style: str = "dim") -> None:
        self.note(one_line(message, max(self._console.width - 1, NARROWEST)), style)

    def markdown(self, *sources: str) -> None:
        self.finish()
        self._gap = False
        for source in sources:
            self._blocks = Blocks()
            self._blocks.feed(clean(source))
            self.finish()

    def verbatim(self, text: str) -> None:
        self._beside(self._drawn(Text(clean(text))))

    def pairs(self, rows: Mapping[str, str]) -> None:
        table = Table.grid(padding=(0, 2, 0, 0))
        for name, what in rows.items():
            table.add_row(Text(clean(name), "bold"), Text(clean(what)))
        self._beside(self._drawn(table))

    # ---------------------------------------------------------------- drawing

    def _draw(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            fixed = self._rows(self._blocks.take())
            gap = self._gap
            live = self._rows([self._blocks.open()])
            self._gap = gap
            self._painter.paint(fixed, live)
        except Exception as error:  # told to whoever brings the next piece, not to the loop
            self._error = error
        now = loop.time()
        self._next = now + max(_FRAME, _SHARE * (now - begin))

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._error is not None:
            raise self._error

    def _rows(self, blocks: Iterable[Block]) -> list[Row]:
        rows: list[Row] = []
        for block in blocks:
            drawn = self._drawn(block.drawn)
            if drawn:
                if self._gap and not block.joined:
                    rows.append(Row("", 0))
                rows += drawn
                self._gap = True
        return rows

    def _drawn(self, renderable: Any) -> list[Row]:
        options = self._ink.options.update(width=max(self._console.width, _NARROWEST), height=None)
        lines = [_trimmed(line) for line in self._ink.render_lines(renderable, options, pad=False)]
        while lines and not lines[0]:
            del lines[0]
        while lines and not lines[-1]:
            del lines[-1]
        return [self._row(line) for line in lines]

    def _row(self, segments: list[Segment]) -> Row:
        with self._ink.capture() as captured:
            self._ink.print(Segments(segments), end="", soft_wrap=True)
        return Row(captured.get(), Segment.get_line_length(segments))

    def _told(self, message: str, style: str) -> list[Row]:
        return self._drawn(Text(one_line(message, LONGEST), style))

    def _waits(self) -> list[Row]:
        return self._told("…", "dim") if self._waiting else []

    def _beside(self, rows: list[Row]) -> None:
        self._stop()
        before = self._rows(self._blocks.finish())
        self._gap = True
        self._painter.paint([*before, *rows], self._waits())


def _trimmed(line: Iterable[Segment]) -> list[Segment]:
    """A row without what a terminal must not get (entities become characters only now), and blanks at its end."""
    segments = [Segment(clean(each.text).replace("\t", " "), each.style) for each in line if not each.control]
    while segments and not segments[-1].text.strip():
        segments.pop()
    if segments:
        segments[-1] = Segment(segments[-1].text.rstrip(), segments[-1].style)
    return segments
