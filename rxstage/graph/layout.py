"""A layered layout of a directed graph: where boxes stand and how edges run between them.

Places across come from a least-squares fit that keeps the order, then from one by absolute distances, which prefers
one bend to many slants.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from rxstage.graph.places import Box, Line, Place, Point, paths_of, ranks_of, uncross

__all__ = ["Box", "Layout", "Line", "Point", "layered"]

_FITS: Final = 16  # over the ranks, to straighten edges
_GAP: Final = 22.0  # across, between two boxes
_NARROW: Final = 14.0  # across, beside a line that runs through
_NEARLY: Final = 14.0  # across: a line that is out by less than this is made straight


class Layout(NamedTuple):
    """What came of it.

    Attributes:
        centres: of the boxes.
        routes: of the lines: points of which the first two are joined straight, the next two by a curve, and so on.
        size: of the whole; all of it lies between 0 and that.
    """

    centres: list[Point]
    routes: list[list[Point]]
    size: Point


def layered(boxes: Sequence[Box], lines: Sequence[Line], gap: float = 44.0) -> Layout:
    """Place boxes in ranks.

    Args:
        boxes: what is to be placed; in the order in which they should stand where that is free.
        lines: between them, by number; acyclic.
        gap: along, between two ranks; more where a label needs it.
    """
    ranks = ranks_of(len(boxes), lines)
    places = [Place(rank, box) for rank, box in zip(ranks, boxes, strict=True)]
    layers: list[list[Place]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    for place in places:
        layers[place.rank].append(place)
    paths = paths_of(lines, places, layers)
    uncross(layers)
    _straighten(layers)
    _snap(layers)
    return _finish(places, layers, lines, paths, gap)


def _straighten(layers: Sequence[Sequence[Place]]) -> None:
    for layer in layers:
        _fit(layer, [0.0] * len(layer), [1.0] * len(layer))
    for turn in range(_FITS):
        last, rigid = turn == _FITS - 1, turn > 3
        for backward in (False, True):
            for layer in reversed(layers) if backward else layers:
                wanted, weights = [], []
                for place in layer:
                    pull = weight = 0.0
                    if last or not backward:
                        for near in place.before:
                            goal = near.across + near.leave - place.enter
                            force = _force(place, near) / (max(abs(goal - place.across), 1.0) if rigid else 1.0)
                            pull += force * goal
                            weight += force
                    if last or backward:
                        for near in place.after:
                            goal = near.across + near.enter - place.leave
                            force = _force(place, near) / (max(abs(goal - place.across), 1.0) if rigid else 1.0)
                            pull += force * goal
                            weight += force
                    wanted.append(pull / weight if weight else place.across)
                    weights.append(weight or 0.1)
                _fit(layer, wanted, weights)


def _snap(layers: Sequence[Sequence[Place]]) -> None:
    """Make lines straight that nearly are, where there is room."""
    for layer in layers[1:]:
        for index, place in enumerate(layer):
            now = place.across
            goals = [near.across + near.leave - place.enter for near in place.before]
            nearest = min((abs(each - now), each) for each in goals) if goals else (_NEARLY, now)
            goal = nearest[1]
            if nearest[0] < _NEARLY and all(
                abs(goal - other.across) >= _apart(place, other) and (other.across < goal) == (other.across < now)
                for other in (*layer[max(index - 1, 0) : index], *layer[index + 1 : index + 2])
            ):
                place.across = goal


def _apart(one: Place, other: Place) -> float:
    """How far the centres of two neighbours must be from each other."""
    gap = _GAP if one.box is not None and other.box is not None else _NARROW
    return (one.extent + other.extent) / 2 + gap


def _force(one: Place, other: Place) -> float:
    """How much a line wants to be straight: between two places that it only runs through most of all."""
    return (1.0, 2.0, 8.0)[(one.box is None) + (other.box is None)]


def _fit(layer: Sequence[Place], wanted: Sequence[float], weights: Sequence[float]) -> None:
    """Put each place as near as can be to where it wants to be, in order and apart (pool adjacent violators)."""
    offsets = [0.0]
    for one, other in pairwise(layer):
        offsets.append(offsets[-1] + _apart(one, other))
    pools: list[tuple[float, float, int]] = []  # mean, weight, count
    for want, weight, offset in zip(wanted, weights, offsets, strict=False):
        mean, count = want - offset, 1
        while pools and pools[-1][0] > mean:
            other_mean, other_weight, other_count = pools.pop()
            mean = (mean * weight + other_mean * other_weight) / (weight + other_weight)
            weight, count = weight + other_weight, count + other_count
        pools.append((mean, weight, count))
    index = 0
    for mean, _, count in pools:
        for place in layer[index : index + count]:
            place.across = mean + offsets[index]
            index += 1


def _finish(
    places: Sequence[Place],
    layers: Sequence[Sequence[Place]],
    lines: Sequence[Line],
    paths: list[list[Place]],
    gap: float,
) -> Layout:
    top = min((place.across - place.extent / 2 for layer in layers for place in layer), default=0.0)
    bottom = max((place.across + place.extent / 2 for layer in layers for place in layer), default=0.0)
    gaps = [gap] * len(layers)
    for line in lines:
        if line.label:
            rank = places[line.source].rank
            gaps[rank] = max(gaps[rank], line.label + gap)
    starts, widths, along = [], [], 0.0
    for layer, wide in zip(layers, gaps, strict=True):
        starts.append(along)
        widths.append(max(place.along for place in layer))
        along += widths[-1] + wide
    length = starts[-1] + widths[-1] if starts else 0.0

    centres = [Point(starts[place.rank] + widths[place.rank] / 2, place.across - top) for place in places]
    routes = []
    for line, path in zip(lines, paths, strict=True):
        source, target = places[line.source], places[line.target]
        half, other_half = source.along / 2, target.along / 2
        out, in_ = centres[line.source], centres[line.target]
        points = [
            Point(out.along + half, out.across + source.leave),
            Point(starts[source.rank] + widths[source.rank], out.across + source.leave),
        ]
        for place in path[1:-1]:
            across = place.across - top
            points += [Point(starts[place.rank], across), Point(starts[place.rank] + widths[place.rank], across)]
        points += [
            Point(starts[target.rank], in_.across + target.enter),
            Point(in_.along - other_half, in_.across + target.enter),
        ]
        routes.append(points)
    return Layout(centres, routes, Point(length, bottom - top))
