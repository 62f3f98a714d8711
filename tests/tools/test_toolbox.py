"""Calls of tools: checked, side by side, bounded, and whatever goes wrong told to the model."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import Any, Final

import pytest

from rxstage.content import ToolCall, ToolResult
from rxstage.errors import RxStageError
from rxstage.testing import assert_no_leaks, run_virtual
from rxstage.tools import Progress, Tool, Toolbox, ToolboxStatistics, ToolContext, ToolError, ToolSource, tool

WAIT: Final = 20.0


@tool
async def add(a: int, b: int = 1) -> int:
    """Adds."""
    return a + b


@tool
def shout(text: str) -> str:
    """On a thread."""
    return f"{text.upper()} {threading.current_thread().name}"


def call(name: str, /, **arguments: Any) -> ToolCall:
    return ToolCall(name, arguments, "1")


def run(*tools: Any, name: str, progress: Callable[[Any], None] | None = None, **arguments: Any) -> ToolResult:
    """One call, in virtual time, that leaves nothing behind."""

    async def main() -> ToolResult:
        async with assert_no_leaks(), Toolbox(tools) as toolbox:
            return await toolbox.run(call(name, **arguments), progress=progress)

    return run_virtual(main)


def told(*tools: Any, name: str, **arguments: Any) -> str:
    """What one call that fails tells."""
    result = run(*tools, name=name, **arguments)
    assert result == ToolResult("1", result.value, name, is_error=True)
    return str(result.value)


# ------------------------------------------------------------------------------------------ functions of all kinds


def test_a_call() -> None:
    """A coroutine function is awaited; the result carries the id and the name of the call."""
    assert run(add, name="add", a="4") == ToolResult("1", 5, "add")


def test_a_plain_function() -> None:
    """A plain function runs on a thread of the toolbox, in the caller's context; a bare function becomes a tool."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")

    def where() -> str:
        """Says where."""
        return f"{variable.get()} {threading.current_thread().name} {threading.current_thread().daemon}"

    variable.set("mine")
    assert run(shout, name="shout", text="a").value == "A rxstage:tools"
    assert run(where, name="where").value == "mine rxstage:tools True"


def test_generators() -> None:
    """A generator, async or plain, reports progress as often as it likes and gives its result once."""

    @tool
    async def ahead() -> AsyncIterator[Any]:
        yield Progress(0.5, "half")
        await asyncio.sleep(1)
        yield "done"
        yield Progress(1.0)

    @tool
    def plain() -> Iterator[Any]:
        yield Progress(0.5, "half")
        yield "done"

    @tool
    def returns() -> Generator[Any, None, str]:
        yield Progress(None, "begun")
        return "done"

    @tool
    async def nothing() -> AsyncIterator[Any]:
        yield Progress(0.1)

    for each, steps in (
        (ahead, [Progress(0.5, "half"), Progress(1.0)]),
        (plain, [Progress(0.5, "half")]),
        (returns, [Progress(None, "begun")]),
    ):
        seen: list[Any] = []
        assert run(each, name=each.name, progress=seen.append).value == "done"
        assert seen == steps
    assert run(nothing, name="nothing") == ToolResult("1", None, "nothing")


def test_two_results() -> None:
    """A generator that gives two results is wrong, and is told so."""

    @tool
    async def rows() -> AsyncIterator[int]:
        yield 1
        yield 2

    @tool
    def plain() -> Iterator[int]:
        yield 1
        yield 2

    for each in (rows, plain):
        assert "it gave two results; a generator yields Progress(...)" in told(each, name=each.name)


def test_progress_is_told_at_once() -> None:
    """Progress arrives when it is reported, not with the next step; after the end nothing arrives."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, Any]] = []
        kept: list[ToolContext] = []

        @tool
        async def steps(context: ToolContext) -> str:
            kept.append(context)
            for number in range(3):
                context.progress(number / 3)
                await asyncio.sleep(1)
            context.progress(text="last")
            return "done"

        await Toolbox([steps]).run(call("steps"), progress=lambda each: seen.append((loop.time(), each)))
        assert seen == [(0, Progress(0)), (1, Progress(1 / 3)), (2, Progress(2 / 3)), (3, Progress(None, "last"))]
        assert kept[0].cancelled
        kept[0].progress(1.0)
        await asyncio.sleep(0)
        assert len(seen) == 4

    run_virtual(main)


def test_progress_from_a_thread_is_bounded() -> None:
    """Reports of a thread arrive on the loop, in order; of more than the loop can take the newest stay."""

    @tool
    def busy(context: ToolContext) -> str:
        for number in range(1000):
            context.progress(number)
        return threading.current_thread().name

    async def main() -> None:
        seen: list[float] = []
        home: set[str] = set()

        def hear(progress: Progress) -> None:
            seen.append(progress.fraction or 0)
            home.add(threading.current_thread().name)

        async with Toolbox([busy]) as toolbox:
            assert (await toolbox.run(call("busy"), progress=hear)).value == "rxstage:tools"
        assert seen == sorted(seen)
        assert seen[-1] == 999
        assert home == {threading.current_thread().name}

    asyncio.run(main())


def test_who_hears_of_progress_raises() -> None:
    """What the listener raises is the loop's to handle, not the tool's failure."""

    def deaf(progress: Progress) -> None:
        raise ValueError("deaf")

    @tool
    async def steps(context: ToolContext) -> str:
        context.progress(0.5)
        await asyncio.sleep(1)
        return "done"

    async def main() -> None:
        seen: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))
        result = await Toolbox([steps]).run(call("steps"), progress=deaf)
        assert result.value == "done"
        assert [str(each) for each in seen] == ["deaf"]

    run_virtual(main)


def test_the_context() -> None:
    """A tool may ask for the call and the conversation that it serves."""

    @tool
    async def who(x: int, context: ToolContext) -> list[Any]:
        return [context.call.id, context.call.arguments, context.conversation, context.cancelled]

    async def main() -> Any:
        return (await Toolbox([who]).run(call("who", x=1), conversation="c7")).value

    assert run_virtual(main) == ["1", {"x": 1}, "c7", False]


def test_a_context_without_a_toolbox() -> None:
    """A function that wants a context can be tested alone."""
    seen: list[Any] = []
    context = ToolContext(call("x"), tell=seen.append)
    context.progress(0.5, "half")
    ToolContext(call("x")).progress(0.5)
    assert seen == [Progress(0.5, "half")]
    assert not context.cancelled


def test_a_plain_function_that_gives_an_awaitable() -> None:
    """What a plain function gives is awaited where it has to be."""
    assert run(tool(lambda: asyncio.sleep(3, "slept"), name="x"), name="x").value == "slept"


# ------------------------------------------------------------------------------------------ what goes wrong


class Odd(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (ValueError("no such city"), "The tool 'x' failed: ValueError: no such city"),
        (ToolError("Ask for a city in Europe."), "Ask for a city in Europe."),
        (KeyError(), "The tool 'x' failed: KeyError"),
        (Odd(), "The tool 'x' failed: Odd"),
        (StopIteration(3), "The tool 'x' failed: RuntimeError: "),
        (SystemExit(2), "The tool 'x' failed: SystemExit: 2"),
        (TimeoutError(), "The tool 'x' failed: TimeoutError"),
        (asyncio.CancelledError(), "The tool 'x' was cancelled before it was done."),
        (ExceptionGroup("two", [ValueError("a"), ValueError("b")]), "The tool 'x' failed: ValueError: a"),
    ],
)
def test_errors(error: BaseException, what: str) -> None:
    """Whatever a tool raises is told by type and message; a `ToolError` in its own words."""

    async def slowly() -> None:
        raise error

    def plainly() -> None:
        raise error

    assert told(tool(slowly, name="x"), name="x").startswith(what)
    assert told(tool(plainly, name="x"), name="x").startswith(what)


def test_the_exception_can_be_had() -> None:
    """Who runs a call may have the exception behind a failure, for events and logs."""
    seen: list[BaseException] = []
    error = ValueError("x")

    @tool
    async def fails() -> None:
        raise error

    @tool(timeout=1)
    async def sleeps() -> None:
        await asyncio.sleep(9)

    async def main() -> None:
        toolbox = Toolbox([fails, sleeps])
        for name in ("fails", "sleeps", "unknown"):
            await toolbox.run(call(name), on_failure=seen.append)

    run_virtual(main)
    assert seen[0] is error
    assert [type(each) for each in seen] == [ValueError, TimeoutError]


def test_keyboard_interrupt_goes_through() -> None:
    """A KeyboardInterrupt is not a tool's error."""

    @tool
    async def stop() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        await Toolbox([stop]).run(call("stop"))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


def test_unknown_tools() -> None:
    """A tool that is not there is told of, with the one that may have been meant, or with those that there are."""
    assert told(add, shout, name="ad") == "There is no tool 'ad'. Did you mean 'add'?"
    assert told(add, shout, name="xyz") == "There is no tool 'xyz'. There are: add, shout."
    assert told(name="xyz") == "There is no tool 'xyz'. There are none."


def test_arguments_that_do_not_fit() -> None:
    """Arguments that do not fit are told, and the function is not called."""
    assert told(add, name="add", a="x").startswith("The arguments of 'add' do not fit: a: Input should be a valid int")
    assert told(add, name="add", **{"": '{"a": 1'}) == "The arguments of 'add' were no JSON object: '{\"a\": 1'"


def test_check() -> None:
    """A call can be checked before it is done, so that nobody is asked to allow what cannot be done."""
    pay = Tool.external("pay", parameters={"type": "object", "properties": {}, "required": ["sum"]})
    toolbox = Toolbox([add, pay])
    assert toolbox.check(call("add", a=1)) is None
    assert toolbox.check(call("pay", sum=1)) is None
    for wrong in (call("add"), call("pay"), call("other")):
        result = toolbox.check(wrong)
        assert result is not None
        assert result.is_error


def test_an_external_tool_is_not_run() -> None:
    """A tool that the application answers is told to have no answer where it is run here."""
    assert told(Tool.external("pay"), name="pay") == (
        "The tool 'pay' is answered by the application, and it has not answered."
    )


# ------------------------------------------------------------------------------------------ time


def test_timeouts() -> None:
    """A tool that takes too long is cancelled and told; its own limit goes before the toolbox's."""
    ended: list[str] = []

    async def sleeps() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("cancelled")

    async def main() -> tuple[Any, float]:
        loop = asyncio.get_running_loop()
        toolbox = Toolbox([tool(sleeps, name="long"), tool(sleeps, name="short", timeout=3)], timeout=50)
        results = await asyncio.gather(*(toolbox.run(call(name)) for name in ("long", "short")))
        assert toolbox.statistics() == ToolboxStatistics()
        return [each.value for each in results], loop.time()

    values, time = run_virtual(main)
    assert values == [
        f"The tool '{name}' took longer than {seconds} s and was given up; what it did till then stays."
        for name, seconds in (("long", 50), ("short", 3))
    ]
    assert time == 50
    assert ended == ["cancelled", "cancelled"]


def test_no_timeout() -> None:
    """Without a limit a tool may take as long as it likes."""

    async def main() -> Any:
        return await Toolbox([tool(lambda: asyncio.sleep(5000, "done"), name="x")], timeout=None).run(call("x"))

    assert run_virtual(main).value == "done"


def test_cancelling_cancels_at_once() -> None:
    """Cancelling a call cancels its tool at once, lets it clean up, and raises."""
    ended: list[float] = []

    @tool
    async def sleeps() -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.2)
            ended.append(loop.time())

    async def main() -> None:
        async with assert_no_leaks():
            task = asyncio.create_task(Toolbox([sleeps]).run(call("sleeps")))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended == [1.2]

    run_virtual(main)


def test_a_coroutine_that_ignores_its_cancellation() -> None:
    """A tool that does not end when it is cancelled is left behind after half a second, and counted while it lives."""

    @tool(timeout=1)
    async def stubborn() -> str:
        for _ in range(3):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                continue
        return "late"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        toolbox = Toolbox([stubborn])
        result = await toolbox.run(call("stubborn"))
        assert "took longer than 1 s" in result.value
        assert loop.time() == 1.5
        assert toolbox.statistics() == ToolboxStatistics(abandoned=1, stuck=1)
        await asyncio.sleep(100)
        assert toolbox.statistics() == ToolboxStatistics(abandoned=1)

    run_virtual(main)


def test_a_thread_that_does_not_end() -> None:
    """A plain function that takes too long is abandoned with its thread, learns of it, and keeps nobody waiting."""
    gate, saw = threading.Event(), threading.Event()

    @tool(timeout=0.05)
    def blocks(context: ToolContext) -> None:
        assert gate.wait(WAIT)
        if context.cancelled:
            saw.set()

    async def main() -> None:
        async with assert_no_leaks(), Toolbox([blocks, shout], concurrency=1) as toolbox:
            assert "took longer than 0.05 s" in (await toolbox.run(call("blocks"))).value
            assert toolbox.statistics() == ToolboxStatistics(abandoned=1, stuck=1)
            assert (await toolbox.run(call("shout", text="a"))).value == "A rxstage:tools"  # its place was taken
            gate.set()
            assert await asyncio.to_thread(saw.wait, WAIT)
            while toolbox.statistics().stuck:
                await asyncio.sleep(0.001)

    asyncio.run(main())


def test_a_plain_generator_ends_when_it_is_given_up() -> None:
    """A plain generator without an end stops at its next step, and is closed."""
    closed = threading.Event()

    @tool(timeout=0.05)
    def endless() -> Iterator[Progress]:
        try:
            while True:
                yield Progress()
        finally:
            closed.set()

    async def main() -> None:
        async with assert_no_leaks(), Toolbox([endless]) as toolbox:
            assert "took longer than 0.05 s" in (await toolbox.run(call("endless"))).value
            assert await asyncio.to_thread(closed.wait, WAIT)

    asyncio.run(main())


def test_stuck_calls_are_bounded() -> None:
    """Where too many calls are stuck, no more are taken, and the model is told so; once they end, all is well."""
    gate = threading.Event()

    @tool(timeout=0.01)
    def blocks() -> None:
        assert gate.wait(WAIT)

    async def main() -> None:
        async with assert_no_leaks(), Toolbox([blocks, add], concurrency=2) as toolbox:
            for _ in range(8):
                assert "took longer than" in (await toolbox.run(call("blocks"))).value
            assert (await toolbox.run(call("add", a=1))).value == (
                "The tool 'add' cannot be run: 8 earlier calls of tools are stuck."
            )
            gate.set()
            while toolbox.statistics().stuck:
                await asyncio.sleep(0.001)
            assert (await toolbox.run(call("add", a=1))).value == 2

    asyncio.run(main())


# ------------------------------------------------------------------------------------------ many at once


def test_side_by_side() -> None:
    """Calls run side by side, at most `concurrency` of them; a call's time begins with its turn."""
    running = peak = 0

    @tool(timeout=1.5)
    async def work(n: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(1)
        running -= 1
        return n

    async def main() -> float:
        loop = asyncio.get_running_loop()
        toolbox = Toolbox([work], concurrency=3)
        calls = [asyncio.create_task(toolbox.run(call("work", n=n))) for n in range(9)]
        await asyncio.sleep(0.5)
        assert toolbox.statistics() == ToolboxStatistics(running=3, waiting=6)
        assert [(await each).value for each in calls] == list(range(9))
        assert toolbox.statistics() == ToolboxStatistics()
        return loop.time()

    assert run_virtual(main) == 3
    assert peak == 3


def test_a_cancelled_call_gives_its_turn_back() -> None:
    """A call that is cancelled, while it runs or while it waits, frees its place."""

    async def main() -> None:
        toolbox = Toolbox([tool(lambda: asyncio.sleep(100, "x"), name="x"), add], concurrency=1)
        tasks = [asyncio.create_task(toolbox.run(call("x"))) for _ in range(3)]
        await asyncio.sleep(1)
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)
        assert all(each.cancelled() for each in tasks)
        assert (await toolbox.run(call("add", a=1))).value == 2
        await toolbox.aclose()

    run_virtual(main)


def test_several_loops() -> None:
    """One toolbox of the same tools serves several event loops at once, each with its own limit."""
    meeting = threading.Barrier(3)

    @tool
    def meet() -> str:
        """Returns once three calls are here."""
        meeting.wait(WAIT)
        return "met"

    toolbox = Toolbox([meet, add], concurrency=1)

    async def main() -> Any:
        async with toolbox:
            return [(await toolbox.run(call("meet"))).value, (await toolbox.run(call("add", a=1))).value]

    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(asyncio.run(main()))) for _ in range(3)]
    with assert_no_leaks():
        for each in threads:
            each.start()
        for each in threads:
            each.join(WAIT)
    assert results == [["met", 2]] * 3


def test_loops_that_have_gone_are_forgotten() -> None:
    """A toolbox that is never closed keeps neither old loops nor their threads."""
    loops: list[weakref.ref[Any]] = []

    async def main(toolbox: Toolbox) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(toolbox.run(call("shout", text="a")) for _ in range(3)))

    with assert_no_leaks():
        toolbox = Toolbox([shout], concurrency=1)
        for _ in range(4):
            asyncio.run(main(toolbox))
        gc.collect()
        assert sum(each() is not None for each in loops) <= 1
        del toolbox
        gc.collect()


# ------------------------------------------------------------------------------------------ names and sources


class Shelf(ToolSource):
    """A source with given tools that counts how often it was opened."""

    def __init__(self, name: str, *names: str, error: Exception | None = None, takes: float = 0.0) -> None:
        self.name = name
        self.users = 0
        self._tools = [tool(lambda: name, name=each) for each in names]
        self._error, self._takes = error, takes

    async def open(self) -> Sequence[Tool]:
        """As often as somebody asks."""
        await asyncio.sleep(self._takes)
        if self._error is not None:
            raise self._error
        self.users += 1
        return self._tools

    async def aclose(self) -> None:
        """Once more closed."""
        self.users -= 1


def names(toolbox: Toolbox) -> list[str]:
    return [spec.name for spec in toolbox.specs]


def test_the_order_stays() -> None:
    """The tools are offered in the order given, those of a source by name, the same in 100 calls."""

    async def main() -> None:
        async with Toolbox([shout, Shelf("s", "zoo", "ant"), add, Shelf("r", "bee")]) as toolbox:
            for _ in range(100):
                assert names(toolbox) == ["shout", "ant", "zoo", "add", "bee"]

    run_virtual(main)


def test_sources_never_take_a_name() -> None:
    """A source's tool whose name is taken goes by the source's name and its own, wherever the source stands."""

    async def main() -> None:
        async with Toolbox([Shelf("evil", "add", "x"), add, Shelf("other", "x")]) as toolbox:
            assert names(toolbox) == ["evil_add", "x", "add", "other_x"]
            assert (await toolbox.run(call("add", a=1))).value == 2
            assert (await toolbox.run(call("evil_add"))).value == "evil"
            assert (await toolbox.run(call("other_x"))).value == "other"

    run_virtual(main)


def test_names_that_clash() -> None:
    """Two tools of one name are an error that says where both come from."""
    with pytest.raises(ValueError, match="two tools are called 'add': one of the application, one of the application"):
        Toolbox([add, tool(lambda: 1, name="add")])

    async def main() -> None:
        first, second = Shelf("s", "a"), Shelf("s", "a", "s_a")
        with pytest.raises(ValueError, match="two tools are called 's_a': one of source 's', one of source 's'"):
            await Toolbox([first, second]).open()
        assert (first.users, second.users) == (0, 0)

    run_virtual(main)


def test_sources_are_opened_and_closed() -> None:
    """Sources are opened together, once, however often the box is, and closed with the last."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        shelves = [Shelf("a", "x", takes=2), Shelf("b", "y", takes=3)]
        toolbox = Toolbox(shelves)
        with pytest.raises(RxStageError, match=r"sources \(a, b\) and is not open: use it in `async with toolbox:`"):
            names(toolbox)
        async with toolbox, toolbox:
            assert loop.time() == 3
            assert [each.users for each in shelves] == [1, 1]
            await toolbox.open()
            await toolbox.aclose()
            assert names(toolbox) == ["x", "y"]
            assert toolbox.find("x") is not None
            assert toolbox.find("z") is None
        assert [each.users for each in shelves] == [0, 0]
        await toolbox.aclose()
        assert [each.users for each in shelves] == [0, 0]
        with pytest.raises(RxStageError, match="is not open"):
            await toolbox.run(call("x"))

    run_virtual(main)


def test_a_source_that_does_not_open() -> None:
    """Where a source does not open, or the opening is cancelled, the others are closed again."""

    async def main() -> None:
        good, slow = Shelf("a", "x"), Shelf("b", "y", takes=1000)
        with pytest.raises(OSError, match="broken"):
            await Toolbox([good, slow, Shelf("c", error=OSError("broken"), takes=1)]).open()
        assert (good.users, slow.users) == (0, 0)
        opening = asyncio.create_task(Toolbox([good, slow]).open())
        await asyncio.sleep(1)
        assert good.users == 1
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert (good.users, slow.users) == (0, 0)

    run_virtual(main)


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"timeout": 0}, {"max_result": 0}])
def test_limits(options: dict[str, Any]) -> None:
    """Limits that allow nothing are refused, and so is what is no tool."""
    with pytest.raises(ValueError, match="needs concurrency, timeout and max_result above 0"):
        Toolbox(**options)
    with pytest.raises(TypeError, match="takes tools, functions and sources, got 3"):
        Toolbox([3])  # type: ignore[list-item]
