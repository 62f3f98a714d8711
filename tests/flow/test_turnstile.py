"""So many at once, in the order in which they came."""

from __future__ import annotations

import threading

from rxstage.flow.turnstile import Turnstile


def test_order() -> None:
    """A further one waits; each that leaves lets in the one that has waited longest."""
    turnstile, admitted = Turnstile(2), []
    leaves = [turnstile.enter(lambda n=n: admitted.append(n)) for n in range(5)]  # type: ignore[misc]
    assert admitted == [0, 1]
    leaves[1]()
    assert admitted == [0, 1, 2]
    leaves[1]()
    assert admitted == [0, 1, 2]
    leaves[0]()
    leaves[2]()
    assert admitted == [0, 1, 2, 3, 4]


def test_leaving_the_queue() -> None:
    """One that gives up waiting is not let in, and its place goes to the next."""
    turnstile, admitted = Turnstile(1), []
    leaves = [turnstile.enter(lambda n=n: admitted.append(n)) for n in range(4)]  # type: ignore[misc]
    leaves[1]()
    leaves[0]()
    assert admitted == [0, 2]
    leaves[3]()
    leaves[2]()
    again = turnstile.enter(lambda: admitted.append("again"))
    assert admitted == [0, 2, "again"]
    again()


def test_one_function_several_times() -> None:
    """The same function may wait several times; each waiting is one of its own."""
    turnstile = Turnstile(1)
    admitted: list[int] = []

    def admit() -> None:
        admitted.append(len(admitted))

    first, second, third = (turnstile.enter(admit) for _ in range(3))
    first()
    assert admitted == [0, 1]
    second()  # it is inside: it leaves, it does not take the third from the queue
    assert admitted == [0, 1, 2]
    third()
    fourth = turnstile.enter(admit)
    assert admitted == [0, 1, 2, 3]
    fourth()


def test_entering_from_inside() -> None:
    """One that is admitted may enter again and leave at once."""
    turnstile, admitted = Turnstile(2), []

    def admit() -> None:
        admitted.append("outer")
        turnstile.enter(lambda: admitted.append("inner"))()

    turnstile.enter(admit)()
    assert admitted == ["outer", "inner"]


def test_threads() -> None:
    """From many threads, never more than the limit are inside, and all get in."""
    turnstile = Turnstile(3)
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            gate = threading.Event()
            leave = turnstile.enter(gate.set)
            assert gate.wait(20)
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
            leave()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert inside == 0
    assert 1 <= most <= 3
