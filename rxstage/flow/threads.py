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
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Run `fn` on a thread, in the caller's context."""
        future: Future[_T] = Future()
        context = contextvars.copy_context()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = context.run(fn, *args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._closed:
                raise RuntimeError(f"the threads of stage {self._name!r} are closed")
            if self._idle:
                self._idle -= 1
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._run, name=f"rxstage:{self._name}", daemon=True).start()
            self._work.put(work)
        return future

    def abandon(self) -> None:
        """Count one busy thread as lost: another may take its place."""
        with self._lock:
            self._limit += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end; the idle ones at once."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in range(self._threads):
                    self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # the last call's element must not live on in an idle thread
            with self._lock:
                self._idle += 1
