"""Marble text as a picture, in SVG."""

from __future__ import annotations

import re
from html import escape
from typing import Final

from rxstage.testing.notation import CONTROL_TOKENS, Mark, parse_marks

__all__ = ["marbles_svg"]

_TICK: Final = 17.0
_ROW: Final = 46.0
_RADIUS: Final = 13.0
_LETTER: Final = 7.4  # width of a letter of a name
_COLOURS: Final = ("#a9d4f5", "#f9d29b", "#b5e3c4", "#f2b8d3", "#cfc4f4", "#f0e08c")
_CONTROLS: Final = {"/": "#dfe3e8", "!": "#f4a09a", "?": "#f7c1a4"}
_INK: Final = "#1b2430"
_LINE: Final = re.compile(r"(?:(?P<name>[^-|#^(\[/!?].*?)\s+)?(?P<ticks>\S*[-|#^(]\S*)")


def marbles_svg(text: str) -> str:
    """A picture of lines of marble text.

    A line is a stream, with a name before it if need be, or the words of an operator in square brackets.

    ```
    in   --a--b--|
    [ upper ]
    out  --A--B--|
    ```

    Args:
        text: the lines; `parse_marks` tells what the characters mean.

    Returns:
        One `<svg>` element for a page of HTML; lines and letters have the colour of the text round it.

    Raises:
        ValueError: a line is neither marbles nor an operator in brackets, or there is none.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("there is no line of marbles in it")
    rows: list[tuple[str, str | list[Mark], int]] = []
    for line in lines:
        if line.startswith("[") and line.endswith("]"):
            rows.append(("", line[1:-1].strip(), 0))
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"neither marbles nor an operator in brackets: {line!r}")
        marks, ticks = parse_marks(match["ticks"])
        rows.append(((match["name"] or "").strip().rstrip(":"), marks, ticks))
    return _draw(rows, text)


def _draw(rows: list[tuple[str, str | list[Mark], int]], text: str) -> str:
    longest = max(len(name) for name, _, _ in rows)
    left = longest * _LETTER + 14 if longest else 6.0
    ticks = max(ticks for _, _, ticks in rows)
    captions = max(len(content) if isinstance(content, str) else 0 for _, content, _ in rows)
    width = left + max(ticks * _TICK, captions * _LETTER + 30) + 26
    colours: dict[str, str] = {}
    parts: list[str] = []
    y = 4.0
    for name, content, _ in rows:
        if isinstance(content, str):
            parts.append(_operator(content, left, y, width))
            y += _ROW - 6
            continue
        height = _ROW + _RADIUS * 2 * (max([len(each) for each in _columns(content).values()] + [1]) - 1)
        parts.append(_stream(name, content, left, y + height / 2, width, colours))
        y += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="marbles" role="img" aria-label="{escape(text, quote=True)}" '
        f'width="{width:.0f}" height="{y + 4:.0f}" viewBox="0 0 {width:.0f} {y + 4:.0f}" '
        f'font-family="ui-sans-serif, system-ui, sans-serif" font-size="13" fill="none" stroke="none">'
        f"{''.join(parts)}</svg>"
    )


def _columns(marks: list[Mark]) -> dict[int, list[Mark]]:
    """What has a marble, by tick."""
    columns: dict[int, list[Mark]] = {}
    for mark in marks:
        if mark.text not in "|#^":
            columns.setdefault(mark.tick, []).append(mark)
    return columns


def _operator(caption: str, left: float, y: float, width: float) -> str:
    middle = (left + width - 12) / 2
    return (
        f'<rect x="{left:.1f}" y="{y + 4:.1f}" width="{width - left - 12:.1f}" height="{_ROW - 14:.1f}" rx="6" '
        f'stroke="currentColor" stroke-width="1.2" fill="currentColor" fill-opacity=".07"/>'
        f'<text x="{middle:.1f}" y="{y + 4 + (_ROW - 14) / 2 + 4.5:.1f}" fill="currentColor" text-anchor="middle" '
        f'font-family="ui-monospace, monospace">{escape(caption)}</text>'
    )


def _stream(name: str, marks: list[Mark], left: float, y: float, width: float, colours: dict[str, str]) -> str:
    end = next((left + mark.tick * _TICK + _TICK / 2 for mark in marks if mark.is_end), None)
    start = next((left + mark.tick * _TICK for mark in marks if mark.text == "^"), left)
    tip = end if end is not None else width - 14
    parts = []
    if name:
        parts.append(f'<text x="2" y="{y + 4.5:.1f}" fill="currentColor">{escape(name)}</text>')
    parts.append(
        f'<path d="M{start:.1f} {y:.1f}H{tip:.1f}" stroke="currentColor" stroke-width="1.4" stroke-opacity=".75"/>'
    )
    if end is None:
        parts.append(f'<path d="M{tip:.1f} {y - 4:.1f}l8 4l-8 4z" fill="currentColor" fill-opacity=".75"/>')
    for mark in marks:
        x = left + mark.tick * _TICK + _TICK / 2
        if mark.text == "|":
            parts.append(f'<path d="M{x:.1f} {y - 13:.1f}v26" stroke="currentColor" stroke-width="2"/>')
        elif mark.text == "#":
            parts.append(f'<path d="M{x - 8:.1f} {y - 8:.1f}l16 16m0-16l-16 16" stroke="#d1495b" stroke-width="2.2"/>')
    for tick, column in _columns(marks).items():
        top = y - _RADIUS * (len(column) - 1)
        for index, mark in enumerate(column):
            x = left + tick * _TICK + mark.width * _TICK / 2
            parts.append(_marble(mark.text, x, top + index * 2 * _RADIUS, colours))
    return "".join(parts)


def _marble(text: str, x: float, y: float, colours: dict[str, str]) -> str:
    control = text in CONTROL_TOKENS
    colour = (
        _CONTROLS[text] if control else colours.setdefault(text[0].casefold(), _COLOURS[len(colours) % len(_COLOURS)])
    )
    half = max(_RADIUS, len(text) * _LETTER / 2 + 5)
    title = f"<title>{CONTROL_TOKENS[text]}</title>" if control else ""
    return (
        f'<rect x="{x - half:.1f}" y="{y - _RADIUS:.1f}" width="{2 * half:.1f}" height="{2 * _RADIUS:.1f}" '
        f'rx="{4 if control else _RADIUS:.0f}" fill="{colour}" stroke="{_INK}" stroke-width="1.1">{title}</rect>'
        f'<text x="{x:.1f}" y="{y + 4.5:.1f}" fill="{_INK}" text-anchor="middle">{escape(text)}</text>'
    )
