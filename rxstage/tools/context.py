"""What a tool may say while it works, and what it may ask of the call that it serves."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct

from rxstage import wire
from rxstage.content import ToolCall
from rxstage.errors import RxStageError

__all__ = ["Progress", "ToolContext", "ToolError"]

_MOST: Final = 64  # reports that wait for the loop; the oldest go


class ToolError(RxStageError):
    """Raised by a tool to tell the model, in the tool's own words, what went wrong.

    The message of any other exception is told with its type, shortened and without paths of files.
    """


class Progress(Struct, frozen=True):
    """How far a tool has come: a part of the whole from 0 to 1 (None where unknown), and words."""

    fraction: float | None = None
    text: str = ""


wire.register(Progress, "rxstage.Progress")


class ToolContext:
    """What a tool's function may ask of the call that it serves: a parameter of this type gets it.

    Args:
        call: what the model asked for.
        conversation: id of the conversation, or "".
        tell: gets each `Progress`, on the loop; None: nobody wants to know.
        loop: of the call; without one, as in a test of the function alone, `tell` is called at once.
    """

    def __init__(
        self,
        call: ToolCall,
        conversation: str = "",
        tell: Callable[[Any], object] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.call = call
        self.conversation = conversation
        self._tell = tell
        self._loop = loop
        self._home = threading.get_ident()
        self._waiting: deque[Progress] = deque(maxlen=_MOST)
        self._scheduled = False
        self._over = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more: work on a thread should stop."""
        return self._over

    def progress(self, fraction: float | None = None, text: str = "") -> None:
        """Report how far the work has come; from any thread."""
        self.report(Progress(fraction, text))

    def report(self, progress: Progress) -> None:
        """Report progress; once the call is over, nothing happens."""
        if self._tell is None or self._over:
            return
        if self._loop is None:
            self._tell(progress)
            return
        self._waiting.append(progress)
        if not self._scheduled:
            self._scheduled = True
            if threading.get_ident() == self._home:
                self._loop.call_soon(self._deliver)
            else:
                with suppress(RuntimeError):  # the loop was closed under a thread that was given up
                    self._loop.call_soon_threadsafe(self._deliver)

    def close(self) -> None:
        """The call is over: nothing is reported any more."""
        self._over = True

    def _deliver(self) -> None:
        self._scheduled = False  # before taking, so that what comes meanwhile is not left lying
        while self._waiting and not self._over:
            progress = self._waiting.popleft()
            if self._tell is not None:
                self._tell(progress)
