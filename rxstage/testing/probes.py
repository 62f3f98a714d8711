"""Both ends of a pipeline in the hands of a test: a source that is pushed by hand, a consumer that takes on demand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxstage.element import StreamElement

__all__ = ["SinkProbe", "SourceProbe", "settle"]

_E = TypeVar("_E", bound=BaseException)
_TURNS = 50  # of a real loop, for what is ready to be done


async def settle() -> None:
    """Let the loop do everything that is ready; in virtual time, exactly that, and time stands as good as still."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    await asyncio.sleep(1e-6)


class SourceProbe:
    """A source that a test pushes into by hand, and that counts what was taken from it.

        source = SourceProbe()
        execution = pipeline.execute(source)     # pulled; source.observable is the same, pushed
        source.push("a", "b")
        ...
        assert source.pulled == 1

    Attributes:
        pulled: elements that a consumer has taken from it.
        asked: how often a consumer has asked for one.
        opened: how many iterations and subscriptions there have been.
        closed: how many of them were closed before the end.
    """

    def __init__(self, *values: Any) -> None:
        self.pulled = 0
        self.asked = 0
        self.opened = 0
        self.closed = 0
        self._waiting: deque[Any] = deque(values)
        self._ended = False
        self._error: BaseException | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._observers: list[abc.ObserverBase[Any]] = []

    @property
    def pending(self) -> int:
        """Elements that nobody has taken yet."""
        return len(self._waiting)

    @property
    def wanted(self) -> bool:
        """Whether a consumer waits for an element."""
        return self._arrived is not None and not self._arrived.done()

    def push(self, *values: Any) -> None:
        """Offer elements or raw values.

        Raises:
            RuntimeError: it has ended.
        """
        if self._ended:
            raise RuntimeError("the probe has ended and can offer nothing more")
        for value in values:
            if self._observers:
                self._give(value)
            else:
                self._waiting.append(value)
        self._wake()

    def complete(self) -> None:
        """End, once everything that was pushed has been taken."""
        self._end(None)

    def fail(self, error: BaseException) -> None:
        """End with an error, once everything that was pushed has been taken."""
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            observers, self._observers = self._observers, []
            for observer in observers:
                self._tell_end(observer)
            self._wake()

    def _tell_end(self, observer: abc.ObserverBase[Any]) -> None:
        if isinstance(self._error, Exception):
            observer.on_error(self._error)
        else:
            observer.on_completed()

    def _give(self, value: Any) -> None:
        for observer in tuple(self._observers):
            self.pulled += 1
            observer.on_next(value)

    def _wake(self) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is not None and not arrived.done():
            arrived.set_result(None)

    # -- pulled

    def __aiter__(self) -> AsyncIterator[Any]:
        return _Pulled(self)

    # -- pushed

    @property
    def observable(self) -> Observable[Any]:
        """The same as a hot Observable: what is pushed goes to its observers at once, whatever they can take."""

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            self.opened += 1
            self._observers.append(observer)
            while self._waiting and observer in self._observers:
                self._give(self._waiting.popleft())
            if self._ended and observer in self._observers:
                self._observers.remove(observer)
                self._tell_end(observer)

            def dispose() -> None:
                if observer in self._observers:
                    self._observers.remove(observer)
                    self.closed += 1

            return Disposable(dispose)

        return Observable(subscribe)


class _Pulled:
    def __init__(self, probe: SourceProbe) -> None:
        self._probe = probe
        self._over = False
        probe.opened += 1

    def __aiter__(self) -> _Pulled:
        return self

    async def __anext__(self) -> Any:
        probe = self._probe
        probe.asked += 1
        while True:
            if self._over:
                raise StopAsyncIteration
            if probe._waiting:
                probe.pulled += 1
                return probe._waiting.popleft()
            if probe._ended:
                self._over = True
                if probe._error is not None:
                    raise probe._error
                raise StopAsyncIteration
            probe._arrived = asyncio.get_running_loop().create_future()
            await probe._arrived

    async def aclose(self) -> None:
        if not self._over:
            self._over = True
            self._probe.closed += 1
            self._probe._wake()


class SinkProbe:
    """A consumer that takes elements on demand.

        async with pipeline.execute(source) as execution:
            sink = SinkProbe(execution)
            await sink.expect("A", "B")
            source.complete()
            await sink.expect_completed()

    Args:
        output: an execution, or any async iterable.
        within: how long it waits for one thing, on the loop's clock [s].

    Attributes:
        taken: everything that it was given.
    """

    def __init__(self, output: AsyncIterable[Any], *, within: float = 60.0) -> None:
        self.taken: list[Any] = []
        self._items = aiter(output)
        self._within = within
        self._next: asyncio.Task[Any] | None = None

    async def _take(self) -> Any:
        loop = asyncio.get_running_loop()
        task = self._next
        if task is None:
            task = self._next = loop.create_task(_anext(self._items), name="rxstage:<sink probe>")
        done, _ = await asyncio.wait((task,), timeout=self._within)
        if not done:
            task.cancel()
            self._next = None
            raise AssertionError(f"nothing came within {self._within:g} s, after {self._so_far()}")
        self._next = None
        return task.result()

    def _so_far(self) -> str:
        return f"{len(self.taken)} elements: {[_payload(each) for each in self.taken[-5:]]}"

    async def request(self, n: int = 1) -> list[Any]:
        """Take `n` elements.

        Raises:
            AssertionError: it ended before, or nothing came in time.
        """
        given: list[Any] = []
        for _ in range(n):
            try:
                item = await self._take()
            except StopAsyncIteration:
                raise AssertionError(f"it completed, {n - len(given)} of {n} missing, after {self._so_far()}") from None
            self.taken.append(item)
            given.append(item)
        return given

    async def expect(self, *values: Any) -> list[Any]:
        """Take as many elements as there are values, and compare each with its own: an element or content as a
        whole, a class as the kind of its content, anything else as its payload.

        Raises:
            AssertionError: another one came, it ended before, or nothing came in time.
        """
        given: list[Any] = []
        for number, value in enumerate(values):
            (item,) = await self.request()
            given.append(item)
            if not _fits(item, value):
                raise AssertionError(f"expected {value!r} as number {number}, got {_payload(item)!r}")
        return given

    async def expect_nothing(self, seconds: float = 0.0) -> None:
        """Ask for one, and make sure that none comes for a time on the loop's clock [s]; it stays asked for.

        Raises:
            AssertionError: something came, or it ended.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(_anext(self._items), name="rxstage:<sink probe>")
        await settle()
        await asyncio.wait((self._next,), timeout=seconds)
        if self._next.done():
            task, self._next = self._next, None
            if isinstance(error := task.exception(), StopAsyncIteration):
                raise AssertionError(f"it completed, after {self._so_far()}")
            if error is not None:
                raise AssertionError(f"it failed with {error!r}") from error
            raise AssertionError(f"expected nothing, got {_payload(task.result())!r}")

    async def expect_completed(self) -> None:
        """Ask for one more, and make sure that there is none.

        Raises:
            AssertionError: something came, it failed, or nothing happened in time.
        """
        try:
            item = await self._take()
        except StopAsyncIteration:
            return
        except AssertionError:
            raise
        except BaseException as error:
            raise AssertionError(f"it failed with {error!r}, where it should have completed") from error
        raise AssertionError(f"expected the end, got {_payload(item)!r}")

    async def expect_error(self, kind: type[_E]) -> _E:
        """Ask for one more, and make sure that an error comes; gives it.

        Raises:
            AssertionError: something came, it completed, it failed with another error, or nothing happened in time.
        """
        try:
            item = await self._take()
        except StopAsyncIteration:
            raise AssertionError(f"it completed, where it should have failed with {kind.__name__}") from None
        except kind as error:
            return error
        except Exception as error:
            raise AssertionError(f"it failed with {error!r}, where it should have with {kind.__name__}") from error
        raise AssertionError(f"expected {kind.__name__}, got {_payload(item)!r}")

    async def cancel(self) -> None:
        """Want nothing more: give up what was asked for, and close the iterator."""
        task, self._next = self._next, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()


async def _anext(items: AsyncIterator[Any]) -> Any:
    return await anext(items)


def _fits(item: Any, value: Any) -> bool:
    if isinstance(item, StreamElement) and not isinstance(value, StreamElement):
        if isinstance(value, type):
            return isinstance(item.content, value)
        payload = item.payload
        if payload is item.content or type(value) is type(item.content):
            return bool(item.content == value)
        return type(payload) is type(value) and bool(payload == value)
    return bool(item == value)


def _payload(item: Any) -> Any:
    return item.payload if isinstance(item, StreamElement) else item
