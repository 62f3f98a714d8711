"""The tools that one message of a model asks for: side by side, with approvals, some of them in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from msgspec.structs import replace

from rxstage.content import Data, ToolCall, ToolResult
from rxstage.conversation import CONVERSATION
from rxstage.element import StreamElement
from rxstage.stage import StageContext
from rxstage.tools import Approval, Repetition, Tool, Toolbox
from rxstage.tools.result import presentable

__all__ = ["Inbox", "ToolRound"]

_STARTED: Final = "It runs in the background; its result will be told when it is there."
_LOST: Final = "It was interrupted before it finished; whether it took effect is not known."


class Inbox(Protocol):
    """Where a round gets the elements from that decide about calls, and puts those that are not for it."""

    async def take(self) -> StreamElement | None:
        """The next element that nobody has seen yet, None at the end of the input."""

    def keep(self, element: StreamElement) -> bool:
        """Keep an element for after the turn; False where no more can be kept."""


class ToolRound:
    """Runs the calls of one message.

    Args:
        calls: what the model asks for.
        toolbox: runs them.
        repetition: bounds the same call in one turn.
        inbox: brings approvals and the results of external tools.
        background: starts work that outlives the turn; given the work, the call and its schedule.
        context: of the stage.
        conversation: id, for the tools.
        patience: seconds to wait for an approval or an external result.

    Attributes:
        results: by the index of the call.
    """

    def __init__(
        self,
        calls: Sequence[ToolCall],
        *,
        toolbox: Toolbox,
        repetition: Repetition,
        inbox: Inbox,
        background: Callable[[asyncio.Task[ToolResult], ToolCall, str], None],
        context: StageContext,
        conversation: str,
        patience: float,
    ) -> None:
        self.calls = calls
        self.results: dict[int, ToolResult] = {}
        self._toolbox, self._repetition, self._inbox = toolbox, repetition, inbox
        self._background, self._context, self._conversation = background, context, conversation
        self._patience = patience
        self._running: dict[asyncio.Task[ToolResult], int] = {}
        self._pending: dict[str, int] = {}  # wait for a decision or a result from outside, by id of the call
        self._reading: asyncio.Task[StreamElement | None] | None = None

    def answers(self) -> tuple[ToolResult, ...]:
        """A result for each call, in their order; what has none was interrupted."""
        return tuple(
            self.results.get(index, ToolResult(call.id, _LOST, call.name, is_error=True))
            for index, call in enumerate(self.calls)
        )

    async def run(self) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """Run them; gives each call before it begins and each result when it is there, with metadata for it."""
        try:
            for index, call in enumerate(self.calls):
                waits = await self._begin(index, call)
                yield call, {"pending": waits} if waits else {}
                if index in self.results:
                    yield self.results[index], {}
            deadline = asyncio.get_running_loop().time() + self._patience
            while len(self.results) < len(self.calls):
                for index in await self._next(deadline):
                    yield self.results[index], {}
        finally:
            await self._leave()

    async def _begin(self, index: int, call: ToolCall) -> str:
        """Start a call, or say what it waits for."""
        tool = self._toolbox.find(call.name)
        if not self._repetition.allows(call):
            self.results[index] = _refused(
                call, "The same call was made too often in this turn; use the results that are there and answer."
            )
        elif wrong := self._toolbox.check(call):  # nobody is asked about a call that cannot be made
            self.results[index] = wrong
        elif tool is not None and tool.external:
            self._pending[call.id] = index
            return "result"
        elif tool is not None and await tool.needs_approval(call):
            self._pending[call.id] = index
            return "approval"
        else:
            self._start(index, call, tool)
        return ""

    def _start(self, index: int, call: ToolCall, tool: Tool | None) -> None:
        task = asyncio.create_task(self._one(call), name=f"rxstage:tool:{call.name}")
        if tool is not None and tool.schedule != "turn":
            self._background(task, call, tool.schedule)
            self.results[index] = ToolResult(call.id, _STARTED, call.name)
        else:
            self._running[task] = index

    async def _one(self, call: ToolCall) -> ToolResult:
        context = self._context
        begin = context.now()
        context.emit_event("tool.call.started", tool=call.name, call_id=call.id)

        def progress(value: Any) -> None:
            context.emit_event("tool.call.progress", tool=call.name, call_id=call.id, value=value)

        errors: list[BaseException] = []
        result = await self._toolbox.run(
            call, progress=progress, conversation=self._conversation, on_failure=errors.append
        )
        told = {"tool": call.name, "call_id": call.id, "duration": context.now() - begin}
        if result.is_error:
            context.emit_event("tool.call.failed", **told, error=str(errors[0] if errors else result.value))
        else:
            context.emit_event("tool.call.completed", **told)
        return result

    async def _next(self, deadline: float) -> list[int]:
        """Wait till something happens; gives the calls that have a result now."""
        loop = asyncio.get_running_loop()
        waiting: set[asyncio.Task[Any]] = set(self._running)
        if self._pending:
            if self._reading is None:
                self._reading = loop.create_task(self._inbox.take(), name="rxstage:decisions")
            waiting.add(self._reading)
        limit = max(deadline - loop.time(), 0.0) if self._pending else None
        done, _ = await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        before = set(self.results)
        for task in done & self._running.keys():
            self.results[self._running.pop(task)] = task.result()
        if self._reading is not None and self._reading.done():
            reading, self._reading = self._reading, None
            self._decide(reading.result())
        elif not done:
            self._refuse_all(f"Nobody decided about it within {self._patience:g} s.")
        return sorted(self.results.keys() - before)

    def _decide(self, element: StreamElement | None) -> None:
        """An element came while calls are pending: it may be about one of them."""
        if element is None:
            self._refuse_all("The input has ended before anybody decided about it.")
            return
        content: Any = element.content
        value = content.value if content.__class__ is Data else content
        if str(element.metadata.get(CONVERSATION, self._conversation)) != self._conversation:
            value = None  # who talks in another conversation decides nothing in this one
        if value.__class__ is ToolResult and value.call_id in self._pending:
            shown = presentable(value.value, self._toolbox.max_result)
            self.results[self._pending.pop(value.call_id)] = replace(value, value=shown)
        elif value.__class__ is Approval and value.call_id in self._pending:
            index = self._pending.pop(value.call_id)
            decided = value.decide(self.calls[index])
            if isinstance(decided, ToolResult):
                self.results[index] = decided
            else:
                self._start(index, decided, self._toolbox.find(decided.name))
        elif not self._inbox.keep(element):
            self._refuse_all("Something else came in before anybody decided about it.")

    def _refuse_all(self, why: str) -> None:
        for index in self._pending.values():
            self.results[index] = _refused(self.calls[index], why)
        self._pending.clear()

    async def _leave(self) -> None:
        """Cancel what is still running; what must not be interrupted goes on in the background, silently."""
        reading, self._reading = self._reading, None
        if reading is not None:
            await _end(reading)
            if not reading.cancelled() and reading.exception() is None and (element := reading.result()) is not None:
                self._inbox.keep(element)  # it came in the same moment
        stopped = []
        for task, index in self._running.items():
            call = self.calls[index]
            tool = self._toolbox.find(call.name)
            if tool is not None and not tool.interruptible and not self._context.cancelled:
                self._background(task, call, "silent")
            else:
                task.cancel()
                stopped.append(task)
        self._running.clear()
        if stopped:
            await asyncio.wait(stopped)


def _refused(call: ToolCall, why: str) -> ToolResult:
    return ToolResult(call.id, why, call.name, is_error=True)


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait((task,))
