"""The notation of marbles: one character a tick."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

__all__ = ["CONTROL_TOKENS", "Mark", "format_marks", "parse_marks"]

CONTROL_TOKENS: Final = {"/": "EndOfTurn", "!": "Interrupt", "?": "Failure"}
"""The signs of controls, and the kind of content that each stands for."""

_NAME: Final = r"\w[\w'!…]*"
_TOKEN: Final = re.compile(rf"\((?P<group>[^()]*)\)|(?P<name>{_NAME})|(?P<sign>[-|#^/!?])")
_PART: Final = re.compile(rf"{_NAME}|[|#/!?]")


class Mark(Struct, frozen=True):
    """What stands at one tick.

    Attributes:
        tick: number of characters before it.
        text: name of an element, `/`, `!` or `?` for a control, `|` for the end, `#` for an error, `^` for a
            subscription.
        width: characters of its name, 1 in a group.
    """

    tick: int
    text: str
    width: int = 1

    @property
    def is_end(self) -> bool:
        """Whether it ends the stream."""
        return self.text in ("|", "#")


def parse_marks(line: str) -> tuple[list[Mark], int]:
    """The marks of one line, and how many ticks it has.

    A `-` is a tick. Letters and digits in a row are one element with a longer name, which takes as many ticks.
    `(a,bc,|)` stands for several at the tick of its `(` and takes as many ticks as it has characters; without a
    comma, as in `(ab|)`, each character is one. Spaces take no time.

    Raises:
        ValueError: a character has no meaning, or something stands behind the end.
    """
    line = re.sub(r"\s", "", line)
    marks: list[Mark] = []
    position = 0
    while position < len(line):
        token = _TOKEN.match(line, position)
        if token is None:
            raise ValueError(f"unexpected {line[position]!r} at {position} in {line!r}")
        if token["group"] is not None:
            marks += [Mark(position, part) for part in _parts(token["group"], line)]
        elif token["name"] is not None:
            marks.append(Mark(position, token["name"], len(token["name"])))
        elif token["sign"] != "-":
            marks.append(Mark(position, token["sign"]))
        position = token.end()
    for mark in marks[:-1]:
        if mark.is_end:
            raise ValueError(f"nothing can stand behind the end of a stream: {line!r}")
    return marks, len(line)


def _parts(group: str, line: str) -> list[str]:
    parts = [part for part in group.split(",") if part] if "," in group else list(group)
    for part in parts:
        if not _PART.fullmatch(part):
            raise ValueError(f"unexpected {part!r} in a group in {line!r}")
    return parts


def format_marks(marks: Iterable[Mark], ticks: int = 0) -> str:
    """The line that `parse_marks` would read the marks from, filled up with `-` to `ticks` where it has no end.

    Raises:
        ValueError: a mark comes sooner than the characters before it allow.
    """
    by_tick: dict[int, list[str]] = {}
    for mark in marks:
        by_tick.setdefault(mark.tick, []).append(mark.text)
    line, ended = "", False
    for tick in sorted(by_tick):
        texts = by_tick[tick]
        if tick < len(line):
            raise ValueError(
                f"{texts[0]!r} at tick {tick} comes before {line!r} has been written; use a smaller timespan"
            )
        line += "-" * (tick - len(line))
        if len(texts) == 1:
            line += texts[0]
        else:
            line += f"({('' if all(len(text) == 1 for text in texts) else ',').join(texts)})"
        ended = texts[-1] in ("|", "#")
    return line if ended else line + "-" * (ticks - len(line))
