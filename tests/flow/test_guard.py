"""One terminal, and nothing after it, without a lock."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from rxstage.flow.guard import Guard


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_terminal_at_once() -> None:
    """With nothing inside, the terminal goes out at once, and a second one is ignored."""
    guard, ends = Guard(), []
    guard.finish(lambda: ends.append("first"))
    guard.finish(lambda: ends.append("second"))
    guard.deliver()
    assert ends == ["first"]
    assert guard.closed


def test_terminal_waits_for_what_is_inside() -> None:
    """While an element is on its way the terminal waits; whoever leaves last delivers it."""
    guard, ends = Guard(), []
    guard.inside.append(None)
    guard.finish(lambda: ends.append("end"))
    assert guard.closed
    assert ends == []
    guard.inside.pop()
    guard.deliver()
    guard.deliver()
    assert ends == ["end"]


@pytest.mark.usefixtures("quick_switches")
def test_race() -> None:
    """CASE 6: elements race the terminal 1000 times: exactly one terminal, never an element after it."""
    for _ in range(1000):
        guard = Guard()
        told: list[str] = []
        begin = threading.Barrier(3, timeout=20)

        def elements(guard: Guard = guard, told: list[str] = told, begin: threading.Barrier = begin) -> None:
            begin.wait()
            for _ in range(5):
                guard.inside.append(None)
                try:
                    if guard.closed:
                        return
                    told.append("element")
                finally:
                    guard.inside.pop()
                    if guard.closed and not guard.inside:
                        guard.deliver()

        def end(guard: Guard = guard, told: list[str] = told, begin: threading.Barrier = begin) -> None:
            begin.wait()
            guard.finish(lambda: told.append("end"))

        threads = [threading.Thread(target=target) for target in (elements, end, end)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert told.count("end") == 1
        assert told[-1] == "end"
