"""Valves: sets of closers, links, and wake-ups."""

from __future__ import annotations

import random
from itertools import pairwise

from rxstage.flow.valve import Valve


def test_two_closers_must_both_open() -> None:
    """CASE 16: closing twice by one closer is one effect; two closers must both open."""
    valve, woken = Valve(), []
    valve.wakers.append(lambda: woken.append(1))
    valve.close("a")
    valve.close("a")
    valve.close("b")
    valve.open("a")
    assert valve.closers == {"b"}
    assert not woken
    valve.open("b")
    assert not valve.closers
    assert woken == [1]
    valve.open("b")
    valve.open("never")
    assert woken == [1]
    assert repr(valve) == "Valve(open)"


def test_links_pass_on() -> None:
    """A closed valve closes everything upstream, over any number of links, and wakes the pumps when all is open."""
    valves = [Valve() for _ in range(4)]
    woken: list[int] = []
    for number, (below, above) in enumerate(pairwise(valves)):
        below.link(above)
        above.wakers.append(lambda number=number: woken.append(number))  # type: ignore[misc]
    valves[0].close("x")
    assert all(valve.closers for valve in valves)
    valves[2].close("y")
    valves[0].open("x")
    assert [bool(valve.closers) for valve in valves] == [False, False, True, True]
    assert woken == [0]
    valves[2].open("y")
    assert woken == [0, 1, 2]
    assert repr(valves[0]) == "Valve(open)"


def test_late_link_starts_closed() -> None:
    """CASE 16: what is linked to a closed valve starts closed, and opens when the link is undone."""
    below, above = Valve(), Valve()
    below.close("x")
    below.link(above)
    assert above.closers
    assert repr(above) == "Valve(closed)"
    below.unlink(above)
    assert not above.closers
    below.open("x")
    assert not below.closers


def test_diamond() -> None:
    """Where branches meet upstream, each keeps it closed by itself."""
    left, right, above = Valve(), Valve(), Valve()
    left.link(above)
    right.link(above)
    left.close("x")
    right.close("x")
    left.open("x")
    assert above.closers == {right}
    right.open("x")
    assert not above.closers


def test_a_waker_may_close_again() -> None:
    """One that is woken and fills the buffer again at once leaves the valve closed for those woken after it."""
    valve = Valve()
    seen: list[bool] = []
    valve.wakers.append(lambda: valve.close("again"))
    valve.wakers.append(lambda: seen.append(bool(valve.closers)))
    valve.close("x")
    valve.open("x")
    assert seen == [True]


def test_deep_chains() -> None:
    """Ten thousand links need no call stack."""
    valves = [Valve() for _ in range(10_000)]
    for below, above in pairwise(valves):
        below.link(above)
    valves[0].close("x")
    assert valves[-1].closers
    valves[0].open("x")
    assert not valves[-1].closers


def test_random_graphs() -> None:
    """In any graph, a valve is closed just while something below it is."""
    for seed in range(50):
        rng = random.Random(seed)
        valves = [Valve() for _ in range(8)]
        links = [(i, j) for i in range(8) for j in range(i + 1, 8) if rng.random() < 0.3]
        for i, j in links:
            valves[i].link(valves[j])
        held: dict[int, set[str]] = {i: set() for i in range(8)}
        for _ in range(60):
            i, who = rng.randrange(8), rng.choice("abc")
            if rng.random() < 0.5:
                valves[i].close(who)
                held[i].add(who)
            else:
                valves[i].open(who)
                held[i].discard(who)
            closed: dict[int, bool] = {}
            for k in range(8):
                closed[k] = bool(held[k]) or any(closed[a] for a, b in links if b == k)
                assert bool(valves[k].closers) == closed[k], (seed, k)
