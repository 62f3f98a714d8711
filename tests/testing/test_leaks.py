"""The proof that a block leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.observer.autodetachobserver import AutoDetachObserver
from reactivex.subject import Subject

from rxstage.testing.leaks import assert_no_leaks
from rxstage.testing.virtual import LeftBehind, run_virtual

WAIT = 10.0


def test_clean_block() -> None:
    """A block that ends what it began passes, and leaves reactivex as it was."""
    original = AutoDetachObserver.__init__
    with assert_no_leaks():
        thread = threading.Thread(target=lambda: None)
        thread.start()
        rx.of(1, 2, 3).pipe(ops.map(str), ops.take(2), ops.flat_map(rx.just)).subscribe()
        subject: Subject[int] = Subject()
        subject.pipe(ops.share()).subscribe().dispose()
        asyncio.run(asyncio.sleep(0))
    assert AutoDetachObserver.__init__ is original


def test_what_was_there_before_does_not_count() -> None:
    """Only what is new in the block is looked at."""
    go = threading.Event()
    thread = threading.Thread(target=go.wait, args=(WAIT,))
    thread.start()
    subject: Subject[int] = Subject()
    subscription = subject.subscribe()
    with assert_no_leaks():
        pass
    subscription.dispose()
    go.set()
    thread.join()


def test_thread_that_is_just_ending() -> None:
    """A thread that ends soon is waited for, by joining it."""
    go = threading.Event()
    with assert_no_leaks(wait=WAIT):
        threading.Thread(target=go.wait, args=(WAIT,)).start()
        threading.Timer(0.02, go.set).start()


def test_thread_that_stays() -> None:
    """A thread that does not end is named, with where it is; names that are ignored are not."""
    go = threading.Event()

    def block() -> None:
        go.wait(WAIT)

    thread = threading.Thread(target=block, name="lingering")
    with pytest.raises(LeftBehind, match=r"thread lingering at .*:\d+"), assert_no_leaks(wait=0.0):
        thread.start()
    with assert_no_leaks(wait=0.0, ignore=["linger"]):
        another = threading.Thread(target=block, name="lingering too")
        another.start()
    go.set()
    thread.join()
    another.join()


def test_open_subscription() -> None:
    """A subscription that neither ended nor was disposed is named, with the line that made it."""
    subject: Subject[int] = Subject()

    def on_next(value: int) -> None: ...

    place = r"subscription of .*on_next.* made at .*test_leaks\.py:\d+"
    with pytest.raises(LeftBehind, match=place) as raised, assert_no_leaks():
        subject.subscribe(on_next)
    assert len(raised.value.left) == 1
    subject.on_completed()
    with assert_no_leaks():
        pass


def test_subscription_that_nobody_holds_is_gone() -> None:
    """What can be collected is not open."""
    with assert_no_leaks():
        rx.never().subscribe()


def test_nested_blocks() -> None:
    """Blocks nest: each looks at its own time only, and reactivex is itself again after the last."""
    original = AutoDetachObserver.__init__
    subject: Subject[int] = Subject()

    def block() -> None:
        with assert_no_leaks():
            subject.subscribe()
            with assert_no_leaks():
                subject.subscribe().dispose()

    with pytest.raises(LeftBehind) as raised:
        block()
    assert len(raised.value.left) == 1
    assert AutoDetachObserver.__init__ is original


def test_error_of_the_block_goes_first() -> None:
    """What the block raises is raised, whatever it left."""
    subject: Subject[int] = Subject()

    def block() -> None:
        with assert_no_leaks():
            subject.subscribe()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        block()


async def forgotten() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("run", [asyncio.run, run_virtual])
def test_task_that_stays(run: object) -> None:
    """In a coroutine, a task that nobody has asked to end is named at once, with where it waits."""

    async def main() -> None:
        with pytest.raises(LeftBehind, match=r"task lost: forgotten at .*test_leaks\.py:\d+"):
            async with assert_no_leaks():
                task = asyncio.create_task(forgotten(), name="lost")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert callable(run)
    run(main())


def test_task_that_is_just_ending() -> None:
    """A cancelled task may take its virtual time to clean up."""
    ends: list[str] = []

    async def cleaning() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            ends.append("clean")

    async def main() -> None:
        async with assert_no_leaks():
            task = asyncio.create_task(cleaning())
            await asyncio.sleep(0)
            task.cancel()
        assert ends == ["clean"]

    run_virtual(main)


def test_thread_that_needs_the_loop_to_end() -> None:
    """While threads are waited for in a coroutine the loop goes on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with assert_no_leaks(wait=WAIT):

            def ask() -> None:
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(WAIT)

            threading.Thread(target=ask).start()
            await asyncio.to_thread(lambda: None)  # the loop's own executor does not count

    asyncio.run(main())


def test_tasks_of_other_loops_count() -> None:
    """A plain block finds a task that was left on a loop that does not run."""
    loop = asyncio.new_event_loop()
    with pytest.raises(LeftBehind, match="task lost: forgotten"), assert_no_leaks():
        task = loop.create_task(forgotten(), name="lost")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
