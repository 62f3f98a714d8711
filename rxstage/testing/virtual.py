"""An asyncio loop in virtual time: waiting costs nothing, and what waits for ever is named."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import selectors
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, TypeVarTuple, overload

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Deadlock", "LeftBehind", "StillBusy", "VirtualLoop", "run_virtual", "virtual", "virtual_loop"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_Events = list[tuple[selectors.SelectorKey, int]]

_PATIENCE: Final = 1.0  # real seconds for threads that may yet call, before a deadlock is one
_SLICE: Final = 0.01  # real seconds between two looks at whether those threads are still alive
_TEAR_DOWN: Final = 60.0  # virtual seconds for cancelled tasks to end
_ROUNDS: Final = 3  # of cancelling: what is cancelled may start something else


class Deadlock(AssertionError):
    """Nothing is ready, no timer is set and nothing is under way elsewhere: the loop would wait for ever."""


class StillBusy(AssertionError):
    """Work on another thread did not end within the real-time limit."""


class LeftBehind(AssertionError):
    """Something outlived its block. `left` names each."""

    def __init__(self, message: str, left: Iterable[str] = ()) -> None:
        self.left: tuple[str, ...] = tuple(left)
        super().__init__(f"{message}:" + "".join(f"\n  - {each}" for each in self.left) if self.left else message)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and jumps to the next timer when nothing is ready.

    Work in an executor (`run_in_executor`, `asyncio.to_thread`, a blocking stage) is waited for in real time
    before the clock moves. Of other threads nobody can know whether they will call: a new one, and one that has
    called `call_soon_threadsafe`, gets `grace` of real quiet before the clock moves on; so does a socket or pipe.

    Args:
        limit: longest real-time wait for work elsewhere [s].
        grace: real time in which a thread, socket or pipe is given a chance to be heard [s].
        horizon: virtual time past which something that repeats itself for ever is taken for a deadlock [s].
    """

    def __init__(self, *, limit: float = 30.0, grace: float = 0.05, horizon: float = 1e6) -> None:
        self._now = 0.0
        self._limit = limit
        self._grace = grace
        self._horizon = horizon
        self._elsewhere: dict[object, str] = {}  # what is under way on other threads
        self._callers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._workers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # they only bring results
        self._quiet: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # had their chance
        self._quiet_files: set[int] = set()
        self._before = weakref.WeakSet(threading.enumerate())
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Seconds since the loop was made, in virtual time."""
        return self._now

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        """As in any loop; time stands still till the work is done or given up."""
        future = super().run_in_executor(executor, func, *args)
        self._elsewhere[future] = f"{_named(func)} in an executor"
        future.add_done_callback(self._came_back)
        return future

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As in any loop; a thread that calls is listened to from then on."""
        thread = threading.current_thread()
        if args and isinstance(args[0], asyncio.Future) and args[0] in self._elsewhere:
            self._workers.add(thread)  # the result of work that was counted; nothing comes after it
        else:
            self._callers.add(thread)
            self._quiet.discard(thread)
        return super().call_soon_threadsafe(callback, *args, context=context)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As in any loop, but bounded by the loop's real-time limit: threads do not end in virtual time."""
        self._executor_shutdown_called = True
        executor = self._private("_default_executor")
        if executor is None:
            return
        ended = self.create_future()

        def end() -> None:
            executor.shutdown()
            with suppress(RuntimeError):  # the loop gave up on it and is closed
                self.call_soon_threadsafe(ended.set_result, None)

        self._elsewhere[ended] = "the threads of the default executor"
        ended.add_done_callback(self._came_back)
        # A daemon, and not the method of the base class, which would join a thread that never ends.
        threading.Thread(target=end, name="virtual loop: default executor", daemon=True).start()
        await ended

    def _came_back(self, future: object) -> None:
        self._elsewhere.pop(future, None)

    # ---------------------------------------------------------------- what happens when nothing is ready

    def _idle(self, poll: Callable[[float], _Events]) -> _Events:
        """Wait for what is under way elsewhere, else jump to the next timer.

        Raises:
            StillBusy: work elsewhere took more than the limit.
            Deadlock: there is nothing to wait for.
        """
        began = time.monotonic()
        while True:
            events = poll(0.0)
            if events or self._private("_ready"):
                self._quiet_files.difference_update(key.fd for key, _ in events)
                return events
            waited = time.monotonic() - began
            when = self._next_timer()
            if self._elsewhere:
                if waited >= self._limit:
                    raise StillBusy(
                        f"after {self._limit} s of real time the loop still waits for "
                        f"{', '.join(self._elsewhere.values())}; {self._waiting()}"
                    )
                poll(self._limit - waited)
            elif threads_and_files := self._unheard(last_chance=when is None):
                threads, files = threads_and_files
                if waited < self._chance(files, last_chance=when is None):
                    poll(_SLICE)
                else:
                    self._quiet.update(threads)
                    self._quiet_files.update(files)
                    if when is None:
                        raise self._deadlock("no timer is set")
            elif when is None:
                raise self._deadlock("no timer is set")
            elif when > self._horizon:
                raise self._deadlock(f"virtual time has come to the horizon of {self._horizon} s")
            else:
                self._now = when
                # What is due is what lies within the resolution; far out, that is less than a float can tell.
                self._clock_resolution = max(1e-9, 2 * math.ulp(when))
                return []

    def _next_timer(self) -> float | None:
        timers = self._private("_scheduled")
        when: float = timers[0].when() if timers else math.inf
        return None if when == math.inf else when

    def _chance(self, files: set[int], last_chance: bool) -> float:
        if not last_chance:
            return self._grace
        return self._limit if files else max(_PATIENCE, self._grace)

    def _unheard(self, last_chance: bool) -> tuple[set[threading.Thread], set[int]] | None:
        """Threads and files that may bring something and have not had their chance."""
        own = threading.current_thread()
        threads = {
            thread
            for thread in threading.enumerate()
            if thread is not own
            and thread not in self._workers
            and (
                thread in self._callers
                or thread not in self._before
                or (last_chance and (thread.name.startswith("rxstage") or not thread.daemon))
            )
            and (last_chance or thread not in self._quiet)
        }
        files = {key.fd for key in self._private("_selector").get_map().values()}
        files.discard(self._private("_ssock").fileno())  # others wake the loop with it
        if not last_chance:
            files -= self._quiet_files
        return (threads, files) if threads or files else None

    def _private(self, name: str) -> Any:
        # asyncio has no public question for these; 3.11 to 3.14 agree on their names.
        return getattr(self, name)

    def _deadlock(self, why: str) -> Deadlock:
        return Deadlock(f"nothing can go on at {self._now:g} s: nothing is ready and {why}; {self._waiting()}")

    def _waiting(self) -> str:
        names = "".join(f"\n  - {describe_task(task)}" for task in _pending(self))
        return f"waiting are:{names}" if names else "no task is waiting"


class _Selector(selectors.DefaultSelector):
    """Asks the loop what to do whenever it would sleep."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = weakref.ref(loop)

    def select(self, timeout: float | None = None) -> _Events:
        poll = super().select
        loop = self._loop()
        if loop is None or (timeout is not None and timeout <= 0):
            return poll(0)
        return loop._idle(poll)


@contextmanager
def virtual_loop(
    *, limit: float = 30.0, grace: float = 0.05, horizon: float = 1e6, check: bool = True
) -> Iterator[VirtualLoop]:
    """An event loop in virtual time, for one block.

        with virtual_loop() as loop:
            loop.run_until_complete(asyncio.sleep(30))  # milliseconds
            assert loop.time() == 30

    On leaving, what is left is cancelled and the loop is closed.

    Args:
        limit: longest real-time wait for work on other threads [s].
        grace: real time in which a thread, socket or pipe is given a chance to be heard [s].
        horizon: virtual time past which something that repeats itself for ever is taken for a deadlock [s].
        check: whether tasks that are left are an error.

    Raises:
        LeftBehind: tasks were left; an error of the block itself goes first.
        Deadlock: nothing is ready, no timer is set and nothing is under way on another thread.
        StillBusy: work on another thread took more than the limit.
    """
    loop = VirtualLoop(limit=limit, grace=grace, horizon=horizon)
    try:
        yield loop
    except BaseException as error:
        try:
            left = _tear_down(loop, wait=not isinstance(error, StillBusy))
        except AssertionError as second:
            error.add_note(f"and at its end: {second}")
        else:
            if left and not isinstance(error, (Deadlock, StillBusy)):  # which name them
                error.add_note("left behind in the virtual loop: " + "; ".join(left))
        raise
    left = _tear_down(loop)
    if left and check:
        raise LeftBehind("tasks were left behind in the virtual loop", left)


def run_virtual(main: Coroutine[Any, Any, _T] | Callable[[], Coroutine[Any, Any, _T]], **options: Any) -> _T:
    """Run a coroutine to its end in virtual time.

    Args:
        main: a coroutine, or an async function without arguments.
        options: those of `virtual_loop`.

    Returns:
        What the coroutine returns.

    Raises:
        LeftBehind, Deadlock, StillBusy: as `virtual_loop`.
    """
    with virtual_loop(**options) as loop:
        return loop.run_until_complete(main() if callable(main) else main)


@overload
def virtual(test: Callable[_P, Coroutine[Any, Any, _T]], /) -> Callable[_P, _T]: ...
@overload
def virtual(**options: Any) -> Callable[[Callable[_P, Coroutine[Any, Any, _T]]], Callable[_P, _T]]: ...
def virtual(test: Any = None, /, **options: Any) -> Any:
    """Make an async test function a plain one that runs in virtual time; it keeps its fixtures and marks.

        @virtual
        async def test_silence() -> None: ...

        @virtual(limit=5.0)
        async def test_blocking_stage() -> None: ...

    Args:
        test: the async function.
        options: those of `virtual_loop`.

    Raises:
        TypeError: `test` is not an async function.
    """
    if test is None:
        return functools.partial(virtual, **options)
    if not inspect.iscoroutinefunction(test):
        raise TypeError(f"virtual is for async functions, got {test!r}; a plain function can use virtual_loop()")

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        return run_virtual(test(*args, **kwargs), **options)

    return run


def describe_task(task: asyncio.Task[Any]) -> str:
    """A task by its name, its function and the line of ours at which it waits."""
    waits: Any = task.get_coro()
    name = getattr(waits, "__qualname__", repr(waits))
    place = ""
    while waits is not None:
        frame = next((each for kind in ("cr", "gi", "ag") if (each := getattr(waits, f"{kind}_frame", None))), None)
        if frame is not None and not frame.f_code.co_filename.startswith(_ASYNCIO):
            place = f" at {frame.f_code.co_filename}:{frame.f_lineno}"
        waits = next((getattr(waits, each) for each in _AWAITED if hasattr(waits, each)), None)
    return f"{task.get_name()}: {name}{place}"


_ASYNCIO: Final = asyncio.__file__.removesuffix("__init__.py")
_AWAITED: Final = ("cr_await", "gi_yieldfrom", "ag_await")


def _named(func: object) -> str:
    while isinstance(func, functools.partial):
        in_context = isinstance(getattr(func.func, "__self__", None), Context) and func.args  # as to_thread does
        func = func.args[0] if in_context else func.func
    return str(getattr(func, "__qualname__", None) or repr(func))


def _pending(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    return sorted((task for task in asyncio.all_tasks(loop) if not task.done()), key=lambda task: task.get_name())


def _tear_down(loop: VirtualLoop, wait: bool = True) -> list[str]:
    """Cancel what is left, close the loop, and say what it was."""
    if loop.is_closed():
        return []
    left: list[str] = []
    named: set[asyncio.Task[Any]] = set()
    try:
        loop._horizon = loop.time() + 2 * (_ROUNDS + 1) * _TEAR_DOWN
        for _ in range(_ROUNDS):
            tasks = _pending(loop)
            if not tasks:
                break
            left += [describe_task(task) for task in tasks if task not in named]
            named.update(tasks)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=_TEAR_DOWN))
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.exception()  # taken: that it was left is what counts
        for task in _pending(loop):
            left.append(f"{describe_task(task)} (ignores its cancellation)")
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is told here
        try:
            loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), _TEAR_DOWN))
        except TimeoutError:
            left.append(f"an asynchronous generator that does not close in {_TEAR_DOWN:g} s")
        if wait:
            loop.run_until_complete(loop.shutdown_default_executor())
        return left
    finally:
        loop.close()
