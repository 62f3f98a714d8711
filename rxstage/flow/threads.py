"""Threads for functions that block: daemons, so that one that never returns keeps nothing else from ending."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

__all__ = ["StageThreads"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StageThreads(Executor):
    """Up to `limit` daemon threads, started when they are needed; a shutdown does not wait for busy ones.

    A thread that was given up with `abandon` no longer counts against the limit.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._open = 0  # calls that wait for a thread or run on one
        self._closed = False

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Run `fn` on a thread, in the caller's context."""
        future: Future[_T] = Future()
        context = contextvars.copy_context()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return self._ended()
            try:
                result = context.run(fn, *args, **kwargs)
            except BaseException as error:
                self._ended()
                future.set_exception(error)
            else:
                self._ended()  # first: who waits for the result may submit the next call
                future.set_result(result)

        with self._lock:
            if self._closed:
                raise RuntimeError(f"the threads of stage {self._name!r} are closed")
            self._open += 1
            self._grow()
            self._work.put(work)
        return future

    def abandon(self) -> None:
        """Count one busy thread as lost: another may take its place."""
        with self._lock:
            self._limit += 1
            self._grow()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end; the idle ones at once."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in range(self._threads):
                    self._work.put(None)

    def _grow(self) -> None:
        """Start a thread if all are taken and one more may be; the lock is held."""
        if self._threads < min(self._open, self._limit) and not self._closed:
            self._threads += 1
            threading.Thread(target=self._run, name=f"rxstage:{self._name}", daemon=True).start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # the last call's element must not live on in an idle thread

    def _ended(self) -> None:
        with self._lock:
            self._open -= 1
