"""The proof that a block leaves nothing behind: no task, no thread, no open subscription."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Final

from reactivex.observer.autodetachobserver import AutoDetachObserver

from rxstage.testing.virtual import LeftBehind, describe_task

__all__ = ["assert_no_leaks"]

_SLICE: Final = 0.005  # real seconds of one wait for a thread, where a loop has to go on meanwhile
_TURNS: Final = 10  # of the loop, for callbacks that are on their way


class assert_no_leaks:
    """Check that a block leaves no asyncio task, thread or open subscription that was not there before.

        with assert_no_leaks():
            pipeline.execute_sync("hello")

        async with assert_no_leaks():  # in a coroutine: lets the loop finish what is just ending
            await pipeline.execute("hello")

    What is just ending gets a moment. Tasks of every loop count, and subscriptions that reactivex itself makes
    behind an operator. An error of the block goes first.

    Args:
        wait: longest real time for things to end [s].
        ignore: beginnings of names of threads that do not count; by default those of a loop's own executor.

    Raises:
        LeftBehind: names the tasks by where they wait, the threads by where they are, and the subscriptions by
            where they were made.
    """

    def __init__(self, *, wait: float = 2.0, ignore: Sequence[str] = ("asyncio_",)) -> None:
        self._wait = wait
        self._ignore = tuple(ignore)
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._subscriptions = _Subscriptions()

    def __enter__(self) -> None:
        self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._subscriptions.end()
        if error is not None:
            return
        deadline = time.monotonic() + self._wait
        for thread in self._new_threads():
            thread.join(max(0.0, deadline - time.monotonic()))
        self._judge()

    async def __aenter__(self) -> None:
        self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._subscriptions.end()
        if error is not None:
            return
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        tasks = [task for task in asyncio.all_tasks() if task not in self._tasks]
        if ending := [task for task in tasks if _is_ending(task)]:
            await asyncio.wait(ending, timeout=self._wait)
        deadline = time.monotonic() + self._wait
        while (threads := self._new_threads()) and time.monotonic() < deadline:
            threads[0].join(_SLICE)
            await asyncio.sleep(0)  # it may need the loop to end
        self._judge()

    def _begin(self) -> None:
        self._tasks.update(_pending_tasks())
        self._threads.update(threading.enumerate())
        self._subscriptions.begin()

    def _new_threads(self) -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if thread not in self._threads and not thread.name.startswith(self._ignore)
        ]

    def _judge(self) -> None:
        left = [f"task {describe_task(task)}" for task in _pending_tasks() if task not in self._tasks]
        left += [f"thread {_describe_thread(thread)}" for thread in self._new_threads()]
        left += [f"subscription {each}" for each in self._subscriptions.open()]
        if left:
            raise LeftBehind("the block left behind", left)


def _pending_tasks() -> list[asyncio.Task[Any]]:
    """Those of every loop, on whatever thread."""
    if sys.version_info >= (
        3,
        14,
    ):  # tasks stand in no set there any more: looking at every object is slow, but finds them
        return [each for each in gc.get_objects() if issubclass(type(each), asyncio.Task) and not each.done()]
    kept = [getattr(asyncio.tasks, name, ()) for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks")]
    while True:
        try:
            return [task for tasks in kept for task in tuple(tasks) if not task.done()]
        except RuntimeError:
            continue  # another thread has made a task meanwhile


def _is_ending(task: asyncio.Task[Any]) -> bool:
    """Whether it was cancelled, or can go on at once; any other would wait as long as before."""
    return bool(task.cancelling()) or getattr(task, "_fut_waiter", None) is None


def _describe_thread(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return f"{thread.name}{_place(frame)}"


def _place(frame: FrameType | None) -> str:
    return "" if frame is None else f" at {frame.f_code.co_filename}:{frame.f_lineno}"


class _Subscriptions:
    """Every subscription of reactivex that is made from `begin` to `end`, with the place it was made at.

    reactivex makes an `AutoDetachObserver` for each and keeps no list of them, so its constructor is listened to.
    """

    def __init__(self) -> None:
        self.made: list[tuple[weakref.ref[AutoDetachObserver[Any]], str]] = []

    def begin(self) -> None:
        with _lock:
            if not _listening:
                AutoDetachObserver.__init__ = _listened  # type: ignore[method-assign]
            _listening.append(self)

    def end(self) -> None:
        with _lock:
            if self in _listening:
                _listening.remove(self)
            if not _listening:
                AutoDetachObserver.__init__ = _unheard  # type: ignore[method-assign]

    def open(self) -> list[str]:
        """Where those were made that have neither ended nor been disposed, and that anything still holds."""
        if any(_is_open(made()) for made, _ in self.made):
            gc.collect()
        return [place for made, place in self.made if _is_open(made())]


_listening: list[_Subscriptions] = []
_lock: Final = threading.Lock()
_unheard: Final = AutoDetachObserver.__init__


def _listened(self: AutoDetachObserver[Any], *args: Any, **kwargs: Any) -> None:
    _unheard(self, *args, **kwargs)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "reactivex":
        frame = frame.f_back
    of = getattr(self._on_next, "__qualname__", repr(self._on_next))
    for each in tuple(_listening):
        each.made.append((weakref.ref(self), f"of {of} made{_place(frame)}"))


def _is_open(observer: AutoDetachObserver[Any] | None) -> bool:
    return observer is not None and not observer.is_stopped
