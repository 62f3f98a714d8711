"""What was sent and may not have arrived."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

__all__ = ["Replay"]


class Replay:
    """Keeps frames till the other end says that it has them, so that they can be sent again over a new connection.

    Where it is full, the oldest sound goes first. What is no sound goes only where the other end never says what it has
    got; then a session cannot go on from before it.

    Args:
        frames: how many it keeps.
        size: bytes of all frames together.
    """

    __slots__ = ("_frames", "_kept", "_missing", "_room", "lost")

    def __init__(self, frames: int, size: int) -> None:
        self._frames, self._room = frames, size
        self._kept: deque[tuple[int, str | bytes]] = deque()
        self._missing = 0  # newest number of what is no sound and is kept no more
        self.lost = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, sequence: int, frame: str | bytes) -> None:
        """Keep a frame that is being sent; sound is what is `bytes`."""
        kept = self._kept
        kept.append((sequence, frame))
        self._room -= len(frame)
        while kept and (len(kept) > self._frames or self._room < 0):
            oldest = next((at for at, (_, each) in enumerate(kept) if isinstance(each, bytes)), 0)
            number, frame = kept[oldest]
            if isinstance(frame, str):
                self._missing = number
            del kept[oldest]
            self._room += len(frame)
            self.lost += 1

    def acknowledge(self, received: int) -> None:
        """Everything up to this number has arrived."""
        kept = self._kept
        while kept and kept[0][0] <= received:
            self._room += len(kept.popleft()[1])

    def forget(self) -> None:
        """There is nothing to be sent again."""
        for _, frame in self._kept:
            self._room += len(frame)
        self._kept.clear()
        self._missing = 0

    def reaches(self, received: int) -> bool:
        """Whether nothing but sound is lost for one who has everything up to this number."""
        return received >= self._missing

    def after(self, received: int) -> Iterator[str | bytes]:
        """The frames behind this number, oldest first."""
        return (frame for sequence, frame in tuple(self._kept) if sequence > received)
