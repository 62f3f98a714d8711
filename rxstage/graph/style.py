"""Colours, text and outlines of the SVG pictures.

Types differ in outline and in their caption too, so that no one needs to tell the colours apart. Colours stand in
the picture itself, for light and dark surroundings; the ground is transparent.
"""

from __future__ import annotations

from typing import Final

from rxstage.graph.blocks import CAPTION, LABEL, NAME, TITLE
from rxstage.stage import StageType

__all__ = ["STYLE", "number", "outline"]

_LIGHT: Final = {
    StageType.TRANSFORM: ("#e6f0fa", "#2b6cb0"),
    StageType.ACCUMULATE: ("#fdf0e1", "#b8630b"),
    StageType.GENERATE: ("#e3f5ee", "#0b7a58"),
    StageType.SINK: ("#f8e9f2", "#a23f78"),
    StageType.BIDIRECTIONAL: ("#ece9fb", "#5b46c2"),
}
_DARK: Final = {
    StageType.TRANSFORM: ("#17304a", "#7fb3e6"),
    StageType.ACCUMULATE: ("#43290d", "#f0a95a"),
    StageType.GENERATE: ("#0f392c", "#56c9a0"),
    StageType.SINK: ("#411c32", "#e59ac6"),
    StageType.BIDIRECTIONAL: ("#2a2357", "#a99bf2"),
}
_CUT: Final = 12.0  # how far an outline's slanted ends reach in


def _theme(boxes: dict[StageType, tuple[str, str]], text: str, faint: str, line: str, ground: str) -> str:
    rules = [
        f".rxstage .name,.rxstage .title{{fill:{text}}}",
        f".rxstage .caption,.rxstage .label text{{fill:{faint}}}",
        f".rxstage .edge path{{stroke:{line}}}.rxstage .edge .head,.rxstage .port{{fill:{line}}}",
        f".rxstage .label rect,.rxstage .end rect{{fill:{ground};stroke:{line}}}",
        f".rxstage .cluster rect{{fill:{line};stroke:{line}}}",
    ]
    for kind, (fill, stroke) in boxes.items():
        rules.append(f".rxstage .{kind.value} path{{fill:{fill};stroke:{stroke}}}")
    return "".join(rules)


STYLE: Final = (
    '.rxstage{font-family:ui-sans-serif,system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;max-width:100%}'
    ".rxstage text{text-anchor:middle}"
    f".rxstage .name{{font-size:{NAME}px;font-weight:600}}.rxstage .caption{{font-size:{CAPTION}px}}"
    f".rxstage .label text{{font-size:{LABEL}px}}"
    f".rxstage .title{{font-size:{TITLE}px;font-weight:600;text-anchor:start}}"
    ".rxstage .stage path{stroke-width:1.5}.rxstage .edge path{fill:none;stroke-width:1.4}"
    ".rxstage .edge .head{stroke:none}.rxstage .label rect{stroke-opacity:.35}"
    ".rxstage .cluster rect{fill-opacity:.08;stroke-opacity:.7;stroke-dasharray:5 4}"
    + _theme(_LIGHT, "#1b2430", "#4f5b6b", "#66717f", "#ffffff")
    + "@media (prefers-color-scheme:dark){"
    + _theme(_DARK, "#eef2f7", "#b4bfcd", "#9aa6b5", "#161c24")
    + "}"
)


def outline(kind: StageType, x: float, y: float, width: float, height: float, down: bool) -> str:
    """The path of a box: each type has a shape of its own, all with rounded corners; `down` is where edges run."""
    right, bottom, middle = x + width, y + height, y + height / 2
    if kind is StageType.GENERATE:  # a pill
        corners, radius = [(x, y), (right, y), (right, bottom), (x, bottom)], height / 2
    elif kind is StageType.ACCUMULATE:  # a funnel
        narrow = (right - _CUT, x + _CUT) if down else (right, x)
        slant = 0.0 if down else _CUT - 4
        corners = [(x, y), (right, y + slant), (narrow[0], bottom - slant), (narrow[1], bottom)]
        radius = 7.0
    elif kind is StageType.BIDIRECTIONAL:  # pointed at both ends
        corners = [
            (x, middle),
            (x + _CUT, y),
            (right - _CUT, y),
            (right, middle),
            (right - _CUT, bottom),
            (x + _CUT, bottom),
        ]
        radius = 5.0
    else:
        corners, radius = [(x, y), (right, y), (right, bottom), (x, bottom)], 8.0
    path = _rounded(corners, radius)
    if kind is StageType.SINK:  # a second line where nothing goes out
        path += f"M{number(right - 6)} {number(y + 1)}V{number(bottom - 1)}"
    return path


def _rounded(corners: list[tuple[float, float]], radius: float) -> str:
    parts: list[str] = []
    for index, (x, y) in enumerate(corners):
        ends = []
        for other_x, other_y in (corners[index - 1], corners[(index + 1) % len(corners)]):
            length = ((other_x - x) ** 2 + (other_y - y) ** 2) ** 0.5
            share = min(radius / length, 0.5)
            ends.append(f"{number(x + (other_x - x) * share)} {number(y + (other_y - y) * share)}")
        parts.append(f"{'L' if parts else 'M'}{ends[0]}Q{number(x)} {number(y)} {ends[1]}")
    return "".join(parts) + "Z"


def number(value: float) -> str:
    """A coordinate, as short as can be."""
    return f"{round(value, 1):g}" if abs(value) < 100_000 else str(round(value))
