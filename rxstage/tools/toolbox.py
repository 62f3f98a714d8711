"""The tools that a model may call, and the calls: checked, bounded, side by side, each answered with a result."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from msgspec import Struct

from rxstage.content import ToolCall, ToolResult
from rxstage.errors import RxStageError
from rxstage.ports.provider import ToolSpec
from rxstage.tools.check import checked, failed
from rxstage.tools.context import ToolContext, ToolError
from rxstage.tools.lane import Lane
from rxstage.tools.result import cut, in_words, presentable
from rxstage.tools.source import ToolSource, named
from rxstage.tools.tool import Tool, tool_of

__all__ = ["Toolbox", "ToolboxStatistics"]

_STUCK: Final = 4  # times `concurrency`: calls that may be stuck before no more are taken


class ToolboxStatistics(Struct, frozen=True):
    """A toolbox at one moment, over all its event loops.

    Attributes:
        running: calls that are being done.
        waiting: calls that wait till fewer are.
        abandoned: calls that were given up and did not end when they were told to, so far.
        stuck: those of them that still have not ended.
    """

    running: int = 0
    waiting: int = 0
    abandoned: int = 0
    stuck: int = 0


class _Opened(Struct):
    """What a toolbox is on one loop."""

    lane: Lane
    opening: asyncio.Lock
    tools: dict[str, Tool]
    users: int = 0


class Toolbox:
    """Tools, and what calls them for a model.

    A toolbox with sources (MCP servers) is opened before use: `async with toolbox:`; without, that only ends its
    threads. It may be used, and opened, any number of times at once, on any number of event loops.

    Args:
        tools: tools, functions that are made tools of, and sources. The model gets them in this order every time, those
            of a source by name.
        concurrency: calls at once on one event loop; further ones wait.
        timeout: seconds for one call, where its tool does not say; None: no limit.
        max_result: characters of a result; the rest is cut off, and the model is told so.

    Raises:
        TypeError: something in `tools` is no tool.
        ValueError: two tools have one name, or a limit is not above 0.
    """

    def __init__(
        self,
        tools: Iterable[Tool | Callable[..., Any] | ToolSource] = (),
        *,
        concurrency: int = 8,
        timeout: float | None = 60.0,
        max_result: int = 100_000,
    ) -> None:
        if concurrency < 1 or max_result < 1 or (timeout is not None and timeout <= 0):
            raise ValueError(
                f"a toolbox needs concurrency, timeout and max_result above 0, got {concurrency!r}, {timeout!r}, "
                f"{max_result!r}"
            )
        self.concurrency = concurrency
        self.timeout = timeout
        self.max_result = max_result
        self._given = tuple(map(_tool_or_source, tools))
        self._sources = tuple(each for each in self._given if isinstance(each, ToolSource))
        self._own = named(self._given, {})  # what clashes is told at once
        self._opened: dict[asyncio.AbstractEventLoop, _Opened] = {}
        self._lock = threading.Lock()

    async def open(self) -> None:
        """Open the sources on the running loop.

        Raises:
            ToolSourceError: one cannot be opened; the others are closed again.
            ValueError: two sources have tools of one name.
        """
        here = self._here()
        async with here.opening:
            if not here.users:
                here.tools = await self._open_sources()
            here.users += 1

    async def aclose(self) -> None:
        """Close the sources on the running loop, and let its threads end, once everybody who opened has closed."""
        here = self._here()
        async with here.opening:
            if here.users > 1:
                here.users -= 1
                return
            opened, here.users, here.tools = here.users > 0, 0, self._own
            here.lane.close()
            if opened:
                await _close(self._sources)

    async def __aenter__(self) -> Toolbox:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools as they are offered to a model, in an order that stays.

        Raises:
            RxStageError: there are sources, and the toolbox is not open on the running loop.
        """
        return tuple(tool.spec for tool in self._tools().values())

    def find(self, name: str) -> Tool | None:
        """The tool of that name.

        Raises:
            RxStageError: there are sources, and the toolbox is not open on the running loop.
        """
        return self._tools().get(name)

    def check(self, call: ToolCall) -> ToolResult | None:
        """What is wrong with a call before it is done, as the result that tells the model; None where nothing is."""
        found = checked(call, self._tools())
        return found if isinstance(found, ToolResult) else None

    async def run(
        self,
        call: ToolCall,
        *,
        progress: Callable[[Any], None] | None = None,
        conversation: str = "",
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> ToolResult:
        """Do a call. Whatever goes wrong becomes a result that tells the model.

        Cancelling this cancels the tool at once; one that does not end within half a second is left behind and
        counted, as one is that runs on a thread.

        Args:
            call: what the model asks for.
            progress: gets what the tool reports.
            conversation: id of the conversation, for the tool.
            on_failure: gets the exception behind a result that tells of one.

        Raises:
            RxStageError: there are sources, and the toolbox is not open on the running loop.
        """
        found = checked(call, self._tools())
        if isinstance(found, ToolResult):
            return found
        tool, arguments = found
        if tool.external:
            return failed(call, f"The tool {call.name!r} is answered by the application, and it has not answered.")
        lane = self._here().lane
        lane.waiting += 1
        try:
            await lane.turns.acquire()
        finally:
            lane.waiting -= 1
        lane.running += 1
        context = ToolContext(call, conversation, progress, lane.loop)
        try:
            return await self._done(tool, arguments, context, lane, on_failure)
        finally:
            context.close()
            lane.running -= 1
            lane.turns.release()

    def statistics(self) -> ToolboxStatistics:
        """What it is doing."""
        with self._lock:
            lanes = [each.lane for each in self._opened.values()]
        return ToolboxStatistics(
            sum(lane.running for lane in lanes),
            sum(lane.waiting for lane in lanes),
            sum(lane.abandoned for lane in lanes),
            sum(lane.stuck for lane in lanes),
        )

    # ---------------------------------------------------------------- a call

    async def _done(
        self,
        tool: Tool,
        arguments: dict[str, Any],
        context: ToolContext,
        lane: Lane,
        on_failure: Callable[[BaseException], None] | None,
    ) -> ToolResult:
        call, name = context.call, tool.name
        if lane.stuck >= _STUCK * self.concurrency:
            return failed(call, f"The tool {name!r} cannot be run: {lane.stuck} earlier calls of tools are stuck.")

        async def work() -> ToolResult:
            failure: BaseException
            try:
                value = presentable(await lane.call(tool, arguments, context), self.max_result)
                return ToolResult(call.id, value, call.name)
            except ToolError as error:
                failure, told = error, cut(str(error), self.max_result)
            except (Exception, SystemExit) as error:
                failure, told = error, f"The tool {name!r} failed: {in_words(error)}"
            if on_failure is not None:
                on_failure(failure)
            return failed(call, told)

        seconds = self.timeout if tool.timeout is None else tool.timeout
        task = lane.loop.create_task(work(), name=f"rxstage:tool:{name}")
        if not await lane.within(task, seconds, context):
            told = f"The tool {name!r} took longer than {seconds:g} s and was given up; what it did till then stays."
            if on_failure is not None:
                on_failure(TimeoutError(told))
            return failed(call, told)
        if task.cancelled():
            return failed(call, f"The tool {name!r} was cancelled before it was done.")
        return task.result()

    # ---------------------------------------------------------------- the tools

    def _here(self) -> _Opened:
        """What it is on the running loop."""
        loop = asyncio.get_running_loop()
        here = self._opened.get(loop)
        if here is None:
            with self._lock:
                for each in [each for each in self._opened if each.is_closed()]:
                    del self._opened[each]
                here = self._opened[loop] = _Opened(Lane(loop, self.concurrency), asyncio.Lock(), self._own)
        return here

    def _tools(self) -> dict[str, Tool]:
        if not self._sources:
            return self._own
        here = self._here()
        if not here.users:
            names = ", ".join(each.name for each in self._sources)
            raise RxStageError(f"the toolbox has sources ({names}) and is not open: use it in `async with toolbox:`")
        return here.tools

    async def _open_sources(self) -> dict[str, Tool]:
        openings = [asyncio.ensure_future(each.open()) for each in self._sources]
        try:
            offered = await asyncio.gather(*openings)
            return named(self._given, dict(zip(self._sources, offered, strict=True)))
        except BaseException:
            for each in openings:
                each.cancel()
            if openings:
                await asyncio.wait(openings)
            done = zip(self._sources, openings, strict=True)
            await _close(source for source, each in done if not each.cancelled() and each.exception() is None)
            raise


async def _close(sources: Iterable[ToolSource]) -> None:
    await asyncio.gather(*(each.aclose() for each in sources), return_exceptions=True)


def _tool_or_source(given: Any) -> Tool | ToolSource:
    if isinstance(given, (Tool, ToolSource)):
        return given
    if not callable(given):
        raise TypeError(f"a toolbox takes tools, functions and sources, got {given!r}")
    return tool_of(given, {})
