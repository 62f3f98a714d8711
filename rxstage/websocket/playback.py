"""How much of what a service has said can have been played."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct

__all__ = ["Piece", "Playback"]

_MOST: Final = 64  # items whose sound may wait to be played


class Piece(Struct):
    """The sound of one item of the conversation.

    Attributes:
        item: its id.
        index: which of its contents the sound is.
        begin: when it begins to be played, in seconds.
        seconds: how long it is, as far as it has come.
    """

    item: str
    index: int
    begin: float
    seconds: float = 0.0


class Playback:
    """Keeps the time: sound comes faster than it is played, and is played one piece after the other in real time.

    Args:
        clock: gives the time [s].
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = 0.0  # when all that has come will have been played
        self._pieces: deque[Piece] = deque(maxlen=_MOST)

    def add(self, item: str, index: int, seconds: float) -> None:
        """More sound of an item has come."""
        now = self._clock()
        while self._pieces and _end(self._pieces[0]) <= now and self._pieces[0].item != item:
            self._pieces.popleft()
        begin = max(self._until, now)
        last = self._pieces[-1] if self._pieces else None
        if last is None or (last.item, last.index) != (item, index):
            last = Piece(item, index, begin)
            self._pieces.append(last)
        else:
            last.begin += begin - self._until  # a gap: it came too late to go on at once
        last.seconds += seconds
        self._until = begin + seconds

    def cut(self) -> list[tuple[str, int, int]]:
        """Play no more: of what was not played to its end the item, the index, and how much was [ms]."""
        now, pieces = self._clock(), [*self._pieces]
        self._pieces.clear()
        self._until = 0.0
        return [
            (piece.item, piece.index, int(max(now - piece.begin, 0.0) * 1000)) for piece in pieces if _end(piece) > now
        ]


def _end(piece: Piece) -> float:
    return piece.begin + piece.seconds
