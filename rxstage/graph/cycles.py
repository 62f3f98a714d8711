"""The cycles of a directed graph, without recursion and in bounded time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

__all__ = ["components", "cycles"]

Successors = Mapping[str, Sequence[str]]

_LOOKS: Final = 20  # looks at an edge, per node and edge, before the search for further cycles ends


def components(nodes: Sequence[str], successors: Successors) -> list[list[str]]:
    """The strongly connected components, in topological order (Tarjan, with its own stack)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    open_: dict[str, None] = {}  # what Tarjan calls the stack, in order
    found: list[list[str]] = []
    for start in nodes:
        if start in index:
            continue
        walk: list[tuple[str, Iterator[str]]] = []
        enter: str | None = start
        while enter is not None or walk:
            if enter is not None:
                index[enter] = low[enter] = len(index)
                open_[enter] = None
                walk.append((enter, iter(successors.get(enter, ()))))
            node, rest = walk[-1]
            enter = None
            for after in rest:
                if after not in index:
                    enter = after
                    break
                if after in open_:
                    low[node] = min(low[node], index[after])
            if enter is None:
                walk.pop()
                if walk:
                    before = walk[-1][0]
                    low[before] = min(low[before], low[node])
                if low[node] == index[node]:
                    component = []
                    while node in open_:
                        component.append(open_.popitem()[0])
                    found.append(component[::-1])
    return found[::-1]


def cycles(component: Sequence[str], successors: Successors) -> list[list[str]]:
    """Cycles of a strongly connected component, such that each of its edges is part of one.

    Each is the shortest one through an edge that no other cycle had yet. In a component with a great many of them
    the search ends early; the first cycle is always there.

    Returns:
        For each cycle its nodes, each once, in order. None for a single node without an edge to itself.
    """
    place = {node: position for position, node in enumerate(component)}
    inner = {node: [after for after in successors.get(node, ()) if after in place] for node in component}
    left = _LOOKS * (len(place) + sum(map(len, inner.values())))
    covered: set[tuple[str, str]] = set()
    found: list[list[str]] = []
    for node in component:
        for after in inner[node]:
            if (node, after) in covered:
                continue
            if found and left <= 0:
                return found
            path, looks = _shortest(after, node, inner)
            left -= looks
            covered.update(zip(path, (*path[1:], path[0]), strict=True))
            first = path.index(min(path, key=place.__getitem__))
            found.append(path[first:] + path[:first])
    return found


def _shortest(start: str, goal: str, inner: Mapping[str, Sequence[str]]) -> tuple[list[str], int]:
    """The shortest path, and how many edges were looked at for it."""
    origin: dict[str, str] = {start: start}
    ahead = deque([start])
    looks = 0
    while goal not in origin:
        node = ahead.popleft()
        for after in inner[node]:
            looks += 1
            if after not in origin:
                origin[after] = node
                ahead.append(after)
    path = [goal]
    while path[-1] != start:
        path.append(origin[path[-1]])
    return path[::-1], looks + len(path)
