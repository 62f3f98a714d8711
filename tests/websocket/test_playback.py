"""How much of an answer can have been played, by the clock."""

from __future__ import annotations

from rxstage.websocket.playback import Playback


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_is_played_in_real_time() -> None:
    """Sound that came at once is played from its arrival on, one item after the other."""
    clock = Clock()
    playback = Playback(clock)
    for item in ("a", "a", "b"):
        playback.add(item, 0, 1.0)
    clock.now += 1.5
    assert playback.cut() == [("a", 0, 1500), ("b", 0, 0)]
    assert playback.cut() == []


def test_what_was_heard_is_not_cut() -> None:
    """An item that was played to its end is left alone."""
    clock = Clock()
    playback = Playback(clock)
    playback.add("a", 0, 1.0)
    playback.add("b", 1, 1.0)
    clock.now += 1.25
    assert playback.cut() == [("b", 1, 250)]
    playback.add("c", 0, 1.0)
    clock.now += 1.0
    assert playback.cut() == []


def test_a_gap_counts_for_nothing() -> None:
    """While sound is late nothing is played."""
    clock = Clock()
    playback = Playback(clock)
    playback.add("a", 0, 1.0)
    clock.now += 3.0
    playback.add("a", 0, 1.0)
    clock.now += 0.5
    assert playback.cut() == [("a", 0, 1500)]


def test_it_remembers_what_may_still_be_played() -> None:
    """Items that were played are forgotten, however many come."""
    clock = Clock()
    playback = Playback(clock)
    for number in range(1000):
        playback.add(str(number), 0, 0.1)
        clock.now += 0.1
    playback.add("last", 0, 0.1)
    assert playback.cut() == [("last", 0, 0)]
