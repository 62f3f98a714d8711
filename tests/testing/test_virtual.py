"""The loop in virtual time: jumps, real waits for threads, deadlocks and leftovers."""

from __future__ import annotations

import asyncio
import inspect
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rxstage.testing.virtual import (
    Deadlock,
    LeftBehind,
    StillBusy,
    VirtualLoop,
    run_virtual,
    virtual,
    virtual_loop,
)

WAIT = 10.0  # real seconds, an upper bound that a healthy run never comes near


def now() -> float:
    return asyncio.get_running_loop().time()


# ------------------------------------------------------------------------------------------ time


@virtual
async def test_sleep_costs_nothing() -> None:
    """Time starts at 0 and is exactly what was slept."""
    assert now() == 0.0
    await asyncio.sleep(30)
    assert now() == 30.0
    await asyncio.sleep(0.1)
    assert now() == 30.1
    await asyncio.sleep(365 * 24 * 3600 / 52)
    assert now() == pytest.approx(30.1 + 365 * 24 * 3600 / 52)


@virtual
async def test_timers_fire_in_order() -> None:
    """Concurrent sleeps wake in the order of their times, each at its own."""
    woke: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woke.append((name, now()))

    asyncio.get_running_loop().call_later(150, lambda: woke.append(("call", now())))
    await asyncio.gather(sleeper("c", 300), sleeper("a", 100), sleeper("b", 200))
    assert woke == [("a", 100.0), ("call", 150.0), ("b", 200.0), ("c", 300.0)]


@virtual
async def test_timeouts() -> None:
    """`asyncio.timeout` and `wait_for` end at their virtual time, and not before."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await asyncio.Event().wait()
    assert now() == 60.0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.sleep(100), 90)
    assert now() == 150.0
    async with asyncio.timeout(1000):
        await asyncio.sleep(999)
    assert now() == 1149.0


@virtual
async def test_work_that_is_ready_goes_before_time() -> None:
    """Time does not move while anything is ready."""
    turns = 0
    asyncio.get_running_loop().call_later(0.001, lambda: None)
    for _ in range(1000):
        await asyncio.sleep(0)
        turns += 1
    assert now() == 0.0
    assert turns == 1000


def test_far_future() -> None:
    """A time so far out that a float cannot tell its neighbours apart is still reached."""

    async def main() -> None:
        await asyncio.sleep(1e12)
        assert now() == 1e12
        await asyncio.sleep(1e-3)

    run_virtual(main, horizon=1e13)


@virtual
async def test_cancelled_timer_does_not_count() -> None:
    """A timer that was cancelled is not jumped to."""
    handle = asyncio.get_running_loop().call_later(1000, lambda: None)
    handle.cancel()
    await asyncio.sleep(2000)
    assert now() == 2000.0


# ------------------------------------------------------------------------------------------ other threads


@virtual
async def test_executor_work_is_waited_for_in_real_time() -> None:
    """Time stands still while a thread works, however many timers are due before it is done."""
    go = threading.Event()
    ticks: list[float] = []

    def work() -> str:
        assert go.wait(WAIT)
        return "done"

    async def tick() -> None:
        while True:
            ticks.append(now())
            await asyncio.sleep(60)

    ticking = asyncio.create_task(tick())
    timer = threading.Timer(0.05, go.set)
    timer.start()
    assert await asyncio.wait_for(asyncio.to_thread(work), 60) == "done"
    assert ticks == [0.0]
    assert now() == 0.0
    ticking.cancel()
    timer.join()


@virtual
async def test_executor_error_and_many_workers() -> None:
    """Errors come back as in any loop, and time goes on once nobody works any more."""
    loop = asyncio.get_running_loop()

    def work(index: int) -> int:
        if index == 3:
            raise ValueError(index)
        return index

    with ThreadPoolExecutor(4) as pool:
        results = await asyncio.gather(
            *(loop.run_in_executor(pool, work, index) for index in range(20)), return_exceptions=True
        )
        for _ in range(100):
            await asyncio.sleep(10)
    assert [result for result in results if isinstance(result, int)] == [*range(3), *range(4, 20)]
    assert now() == 1000.0


def test_work_beyond_the_limit() -> None:
    """Work that does not end in the real-time limit is an error that names it, and who waits."""
    go = threading.Event()

    def endless() -> None:
        go.wait(WAIT)

    async def main() -> None:
        asyncio.get_running_loop().call_later(60, lambda: None)
        await asyncio.to_thread(endless)

    try:
        with pytest.raises(
            StillBusy, match=r"(?s)0.05 s of real time .*endless in an executor.*main at .*test_virtual"
        ):
            run_virtual(main, limit=0.05)
    finally:
        go.set()


@virtual
async def test_work_that_was_given_up_is_not_waited_for() -> None:
    """A call whose future was cancelled keeps time from nothing."""
    go = threading.Event()
    pool = ThreadPoolExecutor(1)
    future = asyncio.get_running_loop().run_in_executor(pool, go.wait, WAIT)
    await asyncio.sleep(0)
    future.cancel()
    await asyncio.sleep(100)
    assert now() == 100.0
    go.set()
    pool.shutdown()


@virtual
async def test_new_thread_is_heard_before_time_jumps() -> None:
    """A thread that pushes into the loop is listened to, although a timer is set."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[int] = asyncio.Queue()

    def feed() -> None:
        for index in range(50):
            loop.call_soon_threadsafe(queue.put_nowait, index)

    thread = threading.Thread(target=feed)
    async with asyncio.timeout(3600):
        thread.start()
        got = [await queue.get() for _ in range(50)]
    assert got == list(range(50))
    assert now() == 0.0
    thread.join()


@virtual(grace=0.01)
async def test_quiet_thread_does_not_hold_time_for_ever() -> None:
    """A thread that says nothing gets its chance once, not at every jump."""
    go = threading.Event()
    thread = threading.Thread(target=go.wait, args=(WAIT,))
    thread.start()
    for _ in range(2000):
        await asyncio.sleep(1)
    assert now() == 2000.0
    go.set()
    thread.join()


@virtual(grace=0.2)
async def test_thread_that_answers_late_ends_a_wait_without_timers() -> None:
    """With no timer set, a thread that may yet call is waited for before anything is called a deadlock."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    timer = threading.Timer(0.1, loop.call_soon_threadsafe, (arrived.set,))
    timer.start()
    await arrived.wait()
    timer.join()


@virtual
async def test_run_coroutine_threadsafe() -> None:
    """A coroutine that another thread hands in runs in virtual time, and its result goes back."""
    loop = asyncio.get_running_loop()

    async def slow() -> float:
        await asyncio.sleep(500)
        return now()

    answers: list[float] = []
    done = asyncio.Event()

    def ask() -> None:
        answers.append(asyncio.run_coroutine_threadsafe(slow(), loop).result(WAIT))
        loop.call_soon_threadsafe(done.set)

    thread = threading.Thread(target=ask)
    thread.start()
    await done.wait()
    assert answers == [500.0]
    thread.join()


@virtual
async def test_sockets_work() -> None:
    """A server and a client on one loop exchange data while timers are set."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(600):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()
    assert now() == 0.0


@virtual
async def test_socket_fed_by_a_thread_is_not_a_deadlock() -> None:
    """Data that only another thread will send is waited for when nothing else goes on."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    timer = threading.Timer(0.05, theirs.send, (b"x",))
    timer.start()
    assert await asyncio.get_running_loop().sock_recv(ours, 1) == b"x"
    timer.join()
    ours.close()
    theirs.close()


# ------------------------------------------------------------------------------------------ deadlocks


def test_deadlock_names_who_waits() -> None:
    """Where nothing can ever happen, the error names each task with the line of ours at which it waits."""

    async def consumer(queue: asyncio.Queue[int]) -> None:
        await queue.get()

    async def main() -> None:
        task = asyncio.create_task(consumer(asyncio.Queue()), name="the consumer")
        await task

    with pytest.raises(Deadlock, match=r"the consumer: .*consumer at .*test_virtual\.py:\d+") as raised:
        run_virtual(main)
    line = inspect.getsourcelines(consumer)[1] + 1
    assert f"test_virtual.py:{line}" in str(raised.value)


def test_deadlock_late() -> None:
    """The error tells the virtual time at which everything stood still."""

    async def main() -> None:
        await asyncio.sleep(120)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="at 120 s"):
        run_virtual(main)


def test_thread_that_never_calls_does_not_hide_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that might call are waited for only so long."""
    # Not by its dotted name: in the package, `virtual` is the decorator.
    monkeypatch.setattr(sys.modules[virtual.__module__], "_PATIENCE", 0.02)
    go = threading.Event()
    thread = threading.Thread(target=go.wait, args=(WAIT,))

    async def main() -> None:
        thread.start()
        await asyncio.Event().wait()

    try:
        with pytest.raises(Deadlock, match="no timer"):
            run_virtual(main, grace=0.01)
    finally:
        go.set()
        thread.join()


def test_work_that_ends_when_nobody_waits_any_more() -> None:
    """A thread may outlive a loop that gave up on it; its result goes nowhere, and nothing is raised."""
    go = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, go.wait, WAIT)

    with pytest.raises(StillBusy, match=r"Event\.wait in an executor|default executor"):
        run_virtual(main, limit=0.02)
    go.set()


def test_sleeping_for_ever_is_a_deadlock() -> None:
    """A timer at infinity is none."""
    with pytest.raises(Deadlock, match="no timer"):
        run_virtual(asyncio.sleep(float("inf")))


def test_heart_beat_is_not_progress() -> None:
    """Something that repeats itself for ever does not hide a deadlock: time has a horizon."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(1)

    async def main() -> None:
        beating = asyncio.create_task(beat())
        await asyncio.Event().wait()
        beating.cancel()

    with pytest.raises(Deadlock, match="horizon of 1000"):
        run_virtual(main, horizon=1000)


# ------------------------------------------------------------------------------------------ what is left


def test_leftover_task_is_named() -> None:
    """A task that outlives the block is cancelled and named."""
    ends: list[str] = []

    async def forgotten() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(1)
            ends.append("cleaned up")

    async def main() -> None:
        main.task = asyncio.create_task(forgotten(), name="lost")  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    with pytest.raises(LeftBehind, match=r"lost: .*forgotten at .*test_virtual") as raised:
        run_virtual(main)
    assert len(raised.value.left) == 1
    assert ends == ["cleaned up"]
    ends.clear()
    run_virtual(main, check=False)
    assert ends == ["cleaned up"]


def test_task_that_ignores_its_cancellation() -> None:
    """A task that cannot be ended is told as such, and the block ends all the same."""

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        main.task = asyncio.create_task(stubborn())  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    with pytest.raises(LeftBehind, match="ignores its cancellation") as raised:
        run_virtual(main)
    assert len(raised.value.left) == 2


def test_error_of_the_block_goes_first() -> None:
    """What the block raises is raised, with what was left as a note."""

    async def main() -> None:
        main.task = asyncio.create_task(asyncio.sleep(3600), name="lost")  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        run_virtual(main)
    assert any("lost" in note for note in raised.value.__notes__)


def test_generator_that_does_not_close() -> None:
    """An asynchronous generator that is left and takes for ever to close is told, and the block ends."""

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(1000)

    kept: list[AsyncIterator[int]] = []

    async def main() -> None:
        kept.append(generate())
        await anext(kept[0])

    with pytest.raises(LeftBehind, match="generator that does not close"):
        run_virtual(main)


def test_everything_is_closed() -> None:
    """After the block the loop is closed, asynchronous generators are ended, its executor's threads are gone."""
    ends: list[str] = []

    async def generate() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(30)
            ends.append("generator")

    before = set(threading.enumerate())
    kept: list[Any] = []

    async def main() -> None:
        kept.append(generate())
        await anext(kept[0])
        await asyncio.to_thread(ends.append, "thread")

    with virtual_loop() as loop:
        loop.run_until_complete(main())
    assert loop.is_closed()
    assert ends == ["thread", "generator"]
    assert {thread for thread in threading.enumerate() if thread.name.startswith("asyncio")} <= before


def test_loop_is_used_more_than_once() -> None:
    """The time of one loop goes on from run to run, and every block begins at 0."""
    with virtual_loop() as loop:
        loop.run_until_complete(asyncio.sleep(5))
        loop.run_until_complete(asyncio.sleep(5))
        assert loop.time() == 10.0
    with virtual_loop() as loop:
        assert loop.time() == 0.0
        loop.close()


# ------------------------------------------------------------------------------------------ ways to use it


def test_run_virtual_returns() -> None:
    """A coroutine or an async function runs to its end and gives its result."""

    async def main() -> float:
        await asyncio.sleep(60)
        return now()

    assert run_virtual(main) == 60.0
    assert run_virtual(main()) == 60.0


@pytest.mark.parametrize("seconds", [1.0, 60.0])
@virtual
async def test_decorator_keeps_parameters(seconds: float, tmp_path: Any) -> None:
    """Fixtures, parameters and marks of a decorated test work as ever."""
    await asyncio.sleep(seconds)
    assert now() == seconds
    assert tmp_path.exists()


def test_decorator_makes_a_plain_function() -> None:
    """A decorated function is called without await, with its name and arguments, and gives its result."""

    @virtual(check=False)
    async def double(value: int, *, times: int = 2) -> int:
        await asyncio.sleep(value)
        return value * times

    assert not inspect.iscoroutinefunction(double)
    assert double.__name__ == "double"
    assert double(3, times=4) == 12


def test_decorator_refuses_plain_functions() -> None:
    """A function that is not async is refused with what to use instead."""
    decorate: Callable[..., Awaitable[None]] = virtual  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"virtual_loop\(\)"):
        decorate(print)


def test_runner() -> None:
    """The loop serves `asyncio.Runner`, its end of executor threads included."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def main() -> float:
            await asyncio.to_thread(lambda: None)
            await asyncio.sleep(60)
            return now()

        assert runner.run(main()) == 60.0


@virtual
async def test_subprocess() -> None:
    """A child process that answers in real time is heard when nothing else goes on."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print('hello')", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    output, _ = await child.communicate()
    assert output.split() == [b"hello"]
