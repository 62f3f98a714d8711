"""Places for boxes in ranks, and their order within a rank.

Directions are abstract: *along* is the way the edges run, *across* is at right angles to it. Ranks are longest
paths; an edge over several ranks runs through a place that is kept free in each; the order within a rank comes from
barycentres.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

__all__ = ["Box", "Line", "Place", "Point", "paths_of", "ranks_of", "uncross"]

_SWEEPS: Final = 12  # over the ranks, to take crossings out
_PLACES: Final = 4_000  # kept free for long edges; beyond that they run straight across


class Point(NamedTuple):
    """A point along and across."""

    along: float
    across: float


class Box(NamedTuple):
    """What is to be placed.

    Args:
        along, across: its size.
        enter, leave: where edges come in and go out, across from its centre.
    """

    along: float
    across: float
    enter: float = 0.0
    leave: float = 0.0


class Line(NamedTuple):
    """An edge between two boxes.

    Args:
        source, target: numbers of the boxes.
        label: room that its label takes along, in the gap behind its source; 0 without one.
        across: room that its label takes across, beside those of other lines.
        late: whether its label stands nearer to where it goes than to where it comes from.
    """

    source: int
    target: int
    label: float = 0.0
    across: float = 0.0
    late: bool = True


class Place:
    """A box, or the place in a rank that a line runs through."""

    __slots__ = ("across", "after", "before", "box", "position", "rank", "room")

    def __init__(self, rank: int, box: Box | None) -> None:
        self.rank = rank
        self.box = box
        self.before: list[Place] = []
        self.after: list[Place] = []
        self.position = 0
        self.across = 0.0
        self.room = 0.0  # that it takes across, if more than its box

    @property
    def along(self) -> float:
        """Its size along."""
        return self.box.along if self.box is not None else 0.0

    @property
    def extent(self) -> float:
        """The room it takes across."""
        return max(self.box.across if self.box is not None else 0.0, self.room)

    @property
    def enter(self) -> float:
        """Where lines enter, across from its centre."""
        return self.box.enter if self.box is not None else 0.0

    @property
    def leave(self) -> float:
        """Where lines leave, across from its centre."""
        return self.box.leave if self.box is not None else 0.0


def ranks_of(count: int, lines: Sequence[Line]) -> list[int]:
    """The rank of each box: the number of lines on the longest way to it."""
    ranks, waiting = [0] * count, [0] * count
    after: list[list[int]] = [[] for _ in range(count)]
    for line in lines:
        after[line.source].append(line.target)
        waiting[line.target] += 1
    ready = [box for box in range(count) if not waiting[box]]
    for box in ready:
        for target in after[box]:
            ranks[target] = max(ranks[target], ranks[box] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return ranks


def paths_of(lines: Sequence[Line], places: Sequence[Place], layers: list[list[Place]]) -> list[list[Place]]:
    """The places each line runs through, its ends included; joins them as neighbours."""
    paths = []
    spans = sum(max(places[line.target].rank - places[line.source].rank - 1, 0) for line in lines)
    for line in lines:
        source, target = places[line.source], places[line.target]
        path = [source]
        if spans <= _PLACES + 4 * len(places):
            for rank in range(source.rank + 1, target.rank):
                layers[rank].append(place := Place(rank, None))
                path.append(place)
        path.append(target)
        for one, other in pairwise(path):
            if other.rank == one.rank + 1:
                one.after.append(other)
                other.before.append(one)
        paths.append(path)
        labelled = path[line.late]
        labelled.room = max(labelled.room, line.across)
    return paths


def _number(layers: Sequence[Sequence[Place]]) -> None:
    for layer in layers:
        for position, place in enumerate(layer):
            place.position = position


def uncross(layers: list[list[Place]]) -> None:
    """Sort each rank by the mean position of the neighbours, down and up in turn; the best order stays."""
    _number(layers)
    best, fewest = [layer.copy() for layer in layers], _crossings(layers)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        for layer in layers[1:] if down else layers[-2::-1]:
            layer.sort(key=_mean_before if down else _mean_after)
            for position, place in enumerate(layer):
                place.position = position
        now = _crossings(layers)
        if now < fewest:
            best, fewest = [layer.copy() for layer in layers], now
    layers[:] = best
    _number(layers)


def _mean_before(place: Place) -> float:
    near = place.before
    return sum(each.position for each in near) / len(near) if near else place.position


def _mean_after(place: Place) -> float:
    near = place.after
    return sum(each.position for each in near) / len(near) if near else place.position


def _crossings(layers: Sequence[Sequence[Place]]) -> int:
    """How often lines cross between neighbouring ranks: inversions, counted with a Fenwick tree."""
    total = 0
    for layer, following in pairwise(layers):
        tree = [0] * (len(following) + 1)
        seen = 0
        for place in layer:
            ends = sorted(each.position for each in place.after)
            for end in ends:
                total += seen
                index = end + 1
                while index:
                    total -= tree[index]
                    index &= index - 1
            for end in ends:
                seen += 1
                index = end + 1
                while index <= len(following):
                    tree[index] += 1
                    index += index & -index
    return total
