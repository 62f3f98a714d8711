"""Marble text as SVG.

A line of marbles is one character a tick: `-` is time, letters and digits are an element (several of them one
element with a longer name), `(a,b)` are elements at once, `|` is the end, `#` an error, `^` a subscription. A name
may stand before it. A line in square brackets is an operator between the streams.
"""

from __future__ import annotations

import re
from html import escape
from typing import Final, NamedTuple

__all__ = ["marbles_svg"]

_TICK: Final = 17.0
_ROW: Final = 46.0
_RADIUS: Final = 13.0
_LETTER: Final = 7.4  # width of a letter of a name
_COLOURS: Final = ("#a9d4f5", "#f9d29b", "#b5e3c4", "#f2b8d3", "#cfc4f4", "#f0e08c")
_INK: Final = "#1b2430"
_LINE: Final = re.compile(r"(?:(?P<name>[^-|#^(\[][^|#^(\[]*?)\s+)?(?P<ticks>[-^(][-\w'|#^(),!…]*)\s*")
_TOKEN: Final = re.compile(r"\((?P<group>[^()]*)\)|(?P<element>[\w'!…]+)|(?P<sign>[-|#^])")


class _Mark(NamedTuple):
    tick: int
    width: int
    kind: str  # "element", "end", "error", "start"
    texts: tuple[str, ...] = ()


def marbles_svg(text: str) -> str:
    """A picture of lines of marble text.

    Raises:
        ValueError: a line is neither marbles nor an operator in brackets.
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("there is no line of marbles in it")
    rows: list[tuple[str, str | list[_Mark], int]] = []
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            rows.append(("", stripped[1:-1].strip(), 0))
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise ValueError(f"neither marbles nor an operator in brackets: {line!r}")
        marks, ticks = _marks(match["ticks"])
        rows.append(((match["name"] or "").strip().rstrip(":"), marks, ticks))
    return _draw(rows, text)


def _marks(ticks: str) -> tuple[list[_Mark], int]:
    marks: list[_Mark] = []
    position = 0
    while position < len(ticks):
        token = _TOKEN.match(ticks, position)
        if token is None:
            raise ValueError(f"unexpected {ticks[position]!r} in {ticks!r}")
        width = token.end() - position
        if token["group"] is not None:
            parts = [part.strip() for part in token["group"].split(",")]
            texts = tuple(part for part in parts if part and part not in "|#")
            if texts:
                marks.append(_Mark(position, 1, "element", texts))
            for part in parts:
                if part and part in "|#":
                    marks.append(_Mark(position, 1, "end" if part == "|" else "error"))
        elif token["element"] is not None:
            marks.append(_Mark(position, width, "element", (token["element"],)))
        elif token["sign"] != "-":
            marks.append(_Mark(position, 1, {"|": "end", "#": "error", "^": "start"}[token["sign"]]))
        position = token.end()
    return marks, len(ticks)


def _draw(rows: list[tuple[str, str | list[_Mark], int]], text: str) -> str:
    longest = max(len(name) for name, _, _ in rows)
    left = longest * _LETTER + 14 if longest else 6.0
    ticks = max((ticks for _, _, ticks in rows), default=0)
    captions = max((len(content) for _, content, _ in rows if isinstance(content, str)), default=0)
    width = left + max(ticks * _TICK, captions * _LETTER + 30) + 26
    colours: dict[str, str] = {}
    parts: list[str] = []
    y = 4.0
    for name, content, _ in rows:
        if isinstance(content, str):
            parts.append(_operator(content, left, y, width))
            y += _ROW - 6
            continue
        height = _ROW + _RADIUS * 2 * (max([len(mark.texts) for mark in content] + [1]) - 1)
        parts.append(_stream(name, content, left, y + height / 2, width, colours))
        y += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="marbles" role="img" aria-label="{escape(text, quote=True)}" '
        f'width="{width:.0f}" height="{y + 4:.0f}" viewBox="0 0 {width:.0f} {y + 4:.0f}" '
        f'font-family="ui-sans-serif, system-ui, sans-serif" font-size="13" fill="none" stroke="none">'
        f"{''.join(parts)}</svg>"
    )


def _operator(caption: str, left: float, y: float, width: float) -> str:
    middle = (left + width - 12) / 2
    return (
        f'<rect x="{left:.1f}" y="{y + 4:.1f}" width="{width - left - 12:.1f}" height="{_ROW - 14:.1f}" rx="6" '
        f'stroke="currentColor" stroke-width="1.2" fill="currentColor" fill-opacity=".07"/>'
        f'<text x="{middle:.1f}" y="{y + 4 + (_ROW - 14) / 2 + 4.5:.1f}" fill="currentColor" text-anchor="middle" '
        f'font-family="ui-monospace, monospace">{escape(caption)}</text>'
    )


def _stream(name: str, marks: list[_Mark], left: float, y: float, width: float, colours: dict[str, str]) -> str:
    end = next((left + mark.tick * _TICK + _TICK / 2 for mark in marks if mark.kind in ("end", "error")), None)
    start = next((left + mark.tick * _TICK for mark in marks if mark.kind == "start"), left)
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
        x = left + mark.tick * _TICK + mark.width * _TICK / 2
        if mark.kind == "end":
            parts.append(f'<path d="M{x:.1f} {y - 13:.1f}v26" stroke="currentColor" stroke-width="2"/>')
        elif mark.kind == "error":
            parts.append(
                f'<path d="M{x - 8:.1f} {y - 8:.1f}l16 16m0-16l-16 16" stroke="#d1495b" stroke-width="2.2"/>'
            )
        elif mark.kind == "element":
            top = y - _RADIUS * (len(mark.texts) - 1)
            for index, each in enumerate(mark.texts):
                parts.append(_marble(each, x, top + index * 2 * _RADIUS, colours))
    return "".join(parts)


def _marble(text: str, x: float, y: float, colours: dict[str, str]) -> str:
    key = text[0].casefold()
    colour = colours.setdefault(key, _COLOURS[len(colours) % len(_COLOURS)])
    half = max(_RADIUS, len(text) * _LETTER / 2 + 5)
    return (
        f'<rect x="{x - half:.1f}" y="{y - _RADIUS:.1f}" width="{2 * half:.1f}" height="{2 * _RADIUS:.1f}" '
        f'rx="{_RADIUS:.0f}" fill="{colour}" stroke="{_INK}" stroke-width="1.1"/>'
        f'<text x="{x:.1f}" y="{y + 4.5:.1f}" fill="{_INK}" text-anchor="middle">{escape(text)}</text>'
    )
