"""Limits that all executions share: calls at once, calls in a minute."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from calls import ask

from rxstage.ports import Finish, ModelEvent, ModelRequest, Provider
from rxstage.providers import LimitedProvider, ScriptedProvider
from rxstage.testing import run_virtual


class Counting(Provider):
    """Counts how many calls run at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.most = seconds, 0, 0
        self.lock = threading.Lock()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            with self.lock:
                self.now -= 1
        yield Finish()


def test_concurrency() -> None:
    """No more calls than allowed run at once, and all get their turn in order."""
    inner = Counting(1.0)
    provider = LimitedProvider(inner, concurrency=3)

    async def main() -> list[float]:
        ended: list[float] = []

        async def one() -> None:
            await ask(provider, "x")
            ended.append(asyncio.get_running_loop().time())

        await asyncio.gather(*(one() for _ in range(7)))
        return ended

    assert run_virtual(main()) == [1.0] * 3 + [2.0] * 3 + [3.0]
    assert inner.most == 3


def test_a_cancelled_wait_gives_its_turn_away() -> None:
    """Who stops waiting leaves no hole: the slots are all there afterwards."""
    inner = Counting(1.0)
    provider = LimitedProvider(inner, concurrency=1)

    async def main() -> float:
        tasks = [asyncio.create_task(ask(provider, "x")) for _ in range(4)]
        await asyncio.sleep(0.5)
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await ask(provider, "x")
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 3.5
    assert inner.most == 1


def test_rate() -> None:
    """Calls begin evenly spread, after a burst where one is allowed."""

    async def begun(provider: LimitedProvider, calls: int) -> list[float]:
        loop = asyncio.get_running_loop()
        times: list[float] = []

        async def one() -> None:
            await ask(provider)
            times.append(loop.time())

        await asyncio.gather(*(one() for _ in range(calls)))
        return times

    steady = LimitedProvider(ScriptedProvider(default="a"), per_minute=30)
    assert run_virtual(begun(steady, 4)) == [0.0, 2.0, 4.0, 6.0]
    burst = LimitedProvider(ScriptedProvider(default="a"), per_minute=60, burst=3)
    assert run_virtual(begun(burst, 5)) == [0.0, 0.0, 0.0, 1.0, 2.0]


def test_several_loops() -> None:
    """Executions on loops of several threads share one limit."""
    inner = Counting(0.002)
    provider = LimitedProvider(inner, concurrency=2)
    calls = 6

    async def some() -> None:
        await asyncio.gather(*(ask(provider, "x") for _ in range(calls)))

    threads = [threading.Thread(target=asyncio.run, args=(some(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
        assert not thread.is_alive()
    assert inner.now == 0
    assert inner.most <= 2


@pytest.mark.parametrize("option", ["concurrency", "per_minute", "burst"])
def test_bad_limits(option: str) -> None:
    """A limit of nothing is refused, by its name."""
    with pytest.raises(ValueError, match=f"{option} must be above 0, got 0"):
        LimitedProvider(ScriptedProvider(), **{option: 0})


def test_a_call_that_was_cancelled_while_it_waited_takes_no_minute() -> None:
    """What never began does not count: the next call begins in its place."""
    provider = LimitedProvider(ScriptedProvider(default="a"), per_minute=6)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        await ask(provider, "?")
        for _ in range(5):
            waiting = asyncio.create_task(ask(provider, "?"))
            await asyncio.sleep(1)
            waiting.cancel()
            await asyncio.wait((waiting,))
        await ask(provider, "?")
        return loop.time()

    assert run_virtual(main()) == 10.0
