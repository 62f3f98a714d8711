"""Threads for functions that block."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import CancelledError, Future, wait

import pytest

from rxstage.flow.threads import StageThreads

WAIT = 20.0


def living(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"rxstage:{name}"]


def ended(name: str) -> bool:
    for thread in living(name):
        thread.join(WAIT)
    return not living(name)


def test_results_and_errors() -> None:
    """Results, errors and the caller's context come through; threads are daemons of the stage's name."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("mine")
    threads = StageThreads("t1", 2)
    assert threads.submit(divmod, 7, 2).result(WAIT) == (3, 1)
    assert threads.submit(variable.get).result(WAIT) == "mine"
    assert threads.submit(lambda: threading.current_thread().daemon).result(WAIT) is True
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result(WAIT)
    with pytest.raises(SystemExit):
        threads.submit(raise_exit).result(WAIT)
    threads.shutdown()
    assert ended("t1")


def raise_exit() -> None:
    raise SystemExit


def test_limit() -> None:
    """Never more threads than the limit, and none before it is needed; idle ones are used again."""
    threads = StageThreads("t2", 3)
    assert not living("t2")
    threads.submit(int).result(WAIT)
    for _ in range(20):
        threads.submit(int).result(WAIT)
    assert len(living("t2")) <= 3
    gate = threading.Event()
    futures = [threads.submit(gate.wait, WAIT) for _ in range(10)]
    assert len(living("t2")) <= 3
    gate.set()
    assert all(future.result(WAIT) for future in futures)
    threads.shutdown()
    assert ended("t2")


def test_cancelled_before_it_began() -> None:
    """What was cancelled while it waited is not run."""
    threads = StageThreads("t3", 1)
    gate = threading.Event()
    ran: list[int] = []
    first = threads.submit(gate.wait, WAIT)
    second: Future[None] = threads.submit(ran.append, 1)
    assert second.cancel()
    gate.set()
    assert first.result(WAIT)
    threads.submit(int).result(WAIT)
    assert ran == []
    with pytest.raises(CancelledError):
        second.result(WAIT)
    threads.shutdown()
    assert ended("t3")


def test_abandon() -> None:
    """A thread that is given up no longer counts: another takes its place."""
    threads = StageThreads("t4", 1)
    gate = threading.Event()
    stuck = threads.submit(gate.wait, WAIT)
    waiting = threads.submit(int)
    done, _ = wait([waiting], timeout=0.05)
    assert not done
    threads.abandon()
    assert threads.submit(int).result(WAIT) == 0
    assert waiting.result(WAIT) == 0
    assert not stuck.done()
    gate.set()
    assert stuck.result(WAIT)
    threads.shutdown()
    assert ended("t4")


def test_a_thread_that_is_taken_at_once_is_not_idle() -> None:
    """A call that comes as the last one's result is told takes the thread: given up, it is not counted as free."""
    threads = StageThreads("t6", 1)
    gate, begun, again = threading.Event(), threading.Event(), threading.Event()
    stuck: list[Future[bool]] = []

    def hold() -> bool:
        begun.set()
        return again.wait(WAIT)

    first = threads.submit(lambda: gate.wait(WAIT))
    first.add_done_callback(lambda _: stuck.append(threads.submit(hold)))  # still on the thread
    gate.set()
    assert first.result(WAIT)
    assert begun.wait(WAIT)
    threads.abandon()
    assert threads.submit(int).result(WAIT) == 0
    assert len(living("t6")) == 2
    again.set()
    assert stuck[0].result(WAIT)
    threads.shutdown()
    assert ended("t6")


def test_shutdown_does_not_wait() -> None:
    """A shutdown returns at once though a thread is busy; nothing more is taken, and the thread ends when it can."""
    threads = StageThreads("t5", 2)
    gate = threading.Event()
    busy = threads.submit(gate.wait, WAIT)
    threads.shutdown()
    threads.shutdown()
    assert not busy.done()
    with pytest.raises(RuntimeError, match="'t5' are closed"):
        threads.submit(int)
    gate.set()
    assert busy.result(WAIT)
    assert ended("t5")
