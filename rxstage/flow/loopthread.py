"""An event loop on a thread of ours, for executions that are started where no loop runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final

__all__ = ["LoopThread", "shared_loop"]

_LAST: Final = 1.0  # seconds that tasks get to end when the loop is closed under them


class LoopThread:
    """A daemon thread that runs one loop until it is closed.

    A stage that raises KeyboardInterrupt or SystemExit fails its execution; the loop itself goes on.
    """

    def __init__(self, name: str = "rxstage-loop") -> None:
        self.loop = asyncio.new_event_loop()
        self._closing = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._closing:
            try:
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                continue  # a task raised it and keeps it as its error: whoever owns that task is told
        try:
            left = asyncio.all_tasks(self.loop)  # only where an execution was left behind
            for task in left:
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.wait(left, timeout=_LAST))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function on the loop's thread."""
        self.loop.call_soon_threadsafe(function, *args)

    def close(self, wait: float = 1.0) -> None:
        """Stop the loop; waits for its thread for `wait` seconds at most, and not at all on that thread itself."""

        def stop() -> None:
            self._closing = True
            self.loop.stop()

        self.loop.call_soon_threadsafe(stop)
        if threading.current_thread() is not self.thread:
            self.thread.join(wait)


class _Shared:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: LoopThread | None = None
        self._users = 0

    def acquire(self) -> LoopThread:
        with self._lock:
            if self._current is None:
                self._current = LoopThread()
            self._users += 1
            return self._current

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            last, self._current = self._current, None
        if last is not None:
            last.close(wait=0.0 if threading.current_thread() is last.thread else 1.0)


shared_loop = _Shared()
"""The loop of executions in operator form: its thread lives while one of them does."""
