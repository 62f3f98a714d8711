"""Tools of MCP servers: real ones, over stdio and streamable HTTP, that die, hang, and offer what they should not."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from rxstage import Pipeline, ProviderStage
from rxstage.adapters.mcp import MCPServer
from rxstage.content import Image, Parts, Text, ToolCall, ToolResult
from rxstage.errors import RxStageError
from rxstage.providers import Rule, ScriptedProvider
from rxstage.testing import assert_no_leaks
from rxstage.tools import Progress, Toolbox, ToolError, ToolSourceError, tool

pytestmark = [
    pytest.mark.needs("module:mcp"),
    pytest.mark.skipif(sys.platform == "win32", reason="looks at processes as POSIX has them"),
]

WAIT: Final = 60.0
DEMO: Final = str(Path(__file__).with_name("mcp_demo.py"))
NAMES: Final = ["add", "contents", "die", "environment", "fail", "picture", "pid", "slow", "steps"]


def server(mode: str = "useful", name: str = "demo", **options: Any) -> MCPServer:
    return MCPServer(name, command=[sys.executable, DEMO, mode], **options)


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run it on a loop of its own; it leaves no task, no thread, and takes no longer than WAIT."""

    async def bounded() -> Any:
        async with asyncio.timeout(WAIT), assert_no_leaks():
            return await main()

    return asyncio.run(bounded())


async def value(toolbox: Toolbox, name: str, **arguments: Any) -> Any:
    """The value of a call that is done."""
    result = await toolbox.run(ToolCall(name, arguments, "1"))
    assert not result.is_error, result.value
    return result.value


async def error(toolbox: Toolbox, name: str, **arguments: Any) -> str:
    """What is told of a call that fails."""
    result = await toolbox.run(ToolCall(name, arguments, "1"))
    assert result == ToolResult("1", result.value, name, is_error=True)
    return str(result.value)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def gone(pid: int) -> None:
    """Wait till a process has ended."""
    while alive(pid):
        await asyncio.sleep(0.01)


def test_tools_of_a_program() -> None:
    """The tools of a server over stdio are offered by name, called side by side, and its process ends with the box."""

    async def main() -> None:
        async with Toolbox([server()]) as toolbox:
            assert [spec.name for spec in toolbox.specs] == NAMES
            assert toolbox.specs[0].description == "Adds two numbers."
            assert toolbox.specs[0].parameters["required"] == ["a", "b"]
            assert await asyncio.gather(*(value(toolbox, "add", a=each, b=1) for each in range(20))) == [
                str(each + 1) for each in range(20)
            ]
            assert await error(toolbox, "add", a=1) == (
                "The arguments of 'add' do not fit: b: is missing. Its arguments are: a, b."
            )
            assert "Input should be a valid integer" in await error(toolbox, "add", a="x", b=1)
            assert "fail" in await error(toolbox, "fail")
            pid = int(await value(toolbox, "pid"))
            assert alive(pid)
        assert not alive(pid)

    run(main)


def test_contents() -> None:
    """Images come as parts; what a model cannot be shown is described in words."""

    async def main() -> None:
        async with Toolbox([server()]) as toolbox:
            picture = await value(toolbox, "picture")
            assert isinstance(picture, Parts)
            assert picture.parts[0] == Text("a pixel")
            assert isinstance(picture.parts[1], Image)
            assert picture.parts[1].mime_type == "image/png"
            assert picture.parts[1].data.startswith(b"\x89PNG")
            assert await value(toolbox, "contents") == (
                "of a file\n[the resource demo://b.bin, application/octet-stream, 3 bytes]\n[sound, audio/wav, 3 bytes]"
                "\n[resource 'c' at demo://c]\n[an image, which cannot be read]"
            )

    run(main)


def test_progress() -> None:
    """What a server reports of its progress is told while it works."""

    async def main() -> list[Any]:
        told: list[Any] = []
        async with Toolbox([server()]) as toolbox:
            await toolbox.run(ToolCall("steps", {}, "1"), progress=told.append)
        return told

    assert run(main) == [Progress(0.25, "begun"), Progress(0.5, "")]


def test_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program gets a few variables of the environment and those that were named, not the keys that lie there."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("PGPASSWORD", "secret")

    async def main() -> list[str]:
        async with Toolbox([server(env={"MINE": "1"})]) as toolbox:
            return str(await value(toolbox, "environment")).split()

    names = run(main)
    assert {"MINE", "PATH"} <= set(names)
    assert not {"OPENAI_API_KEY", "PGPASSWORD"} & set(names)


def test_stderr(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What a program says on stderr, and what it sends amiss, is not on the terminal; a file can have it."""

    async def main() -> None:
        async with Toolbox([server(stderr=tmp_path / "log"), server("babbles", "other")]) as toolbox:
            assert await value(toolbox, "other_add", a=1, b=2) == "3"

    run(main)
    assert capfd.readouterr() == ("", "")
    assert "a word on stderr" in (tmp_path / "log").read_text()


def test_a_server_that_dies() -> None:
    """The call that a server dies in is answered with an error, and the next one starts it again."""

    async def main() -> None:
        async with Toolbox([server()]) as toolbox:
            first = int(await value(toolbox, "pid"))
            told = await asyncio.gather(error(toolbox, "slow"), error(toolbox, "die"))
            assert all("broke while it worked on this, and whether it was done is not known" in each for each in told)
            await gone(first)
            second = int(await value(toolbox, "pid"))
            assert second != first
            assert await value(toolbox, "add", a=1, b=2) == "3"
        assert not alive(second)

    run(main)


def test_a_server_that_died_between_calls() -> None:
    """A server that died while nobody called it is started again before the next call, which does not notice."""

    async def main() -> None:
        async with Toolbox([server()]) as toolbox:
            pid = int(await value(toolbox, "pid"))
            os.kill(pid, signal.SIGKILL)
            await gone(pid)
            result = await toolbox.run(ToolCall("add", {"a": 1, "b": 2}, "1"))
            if result.is_error:  # it is gone, but its pipe has not told so yet: the call went into it
                assert "broke while it worked on this" in result.value
                result = await toolbox.run(ToolCall("add", {"a": 1, "b": 2}, "2"))
            assert result.value == "3"

    run(main)


def test_a_server_that_is_down(tmp_path: Path) -> None:
    """A server that does not come up again is told of and tried more rarely, and used once it is up."""
    program = tmp_path / "program"
    command = ["/bin/sh", "-c", f"exec {sys.executable} {DEMO} $(cat {program})"]
    program.write_text("useful")

    async def main() -> None:
        async with Toolbox([MCPServer("demo", command=command)]) as toolbox:
            program.write_text("ends")
            await error(toolbox, "die")
            assert await error(toolbox, "pid") == "The server 'demo' is down and could not be started again."
            assert await error(toolbox, "pid") == "The server 'demo' is down. It is tried again in 1 s."
            program.write_text("useful")
            while (result := await toolbox.run(ToolCall("add", {"a": 1, "b": 2}, "1"))).is_error:
                assert "is down" in result.value
                await asyncio.sleep(0.05)
            assert result.value == "3"

    run(main)


def test_a_slow_call_is_given_up() -> None:
    """A call that takes too long is given up and told; the server goes on serving."""

    async def main() -> None:
        async with Toolbox([server(timeout=0.3)]) as toolbox:
            assert "took longer than 0.3 s" in await error(toolbox, "slow")
            assert await value(toolbox, "add", a=1, b=2) == "3"
            assert toolbox.statistics().stuck == 0

    run(main)


def test_a_call_is_cancelled() -> None:
    """Cancelling a call leaves the server as it is."""

    async def main() -> None:
        async with Toolbox([server()]) as toolbox:
            call = asyncio.create_task(toolbox.run(ToolCall("slow", {}, "1")))
            await asyncio.sleep(0.1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await value(toolbox, "add", a=1, b=2) == "3"

    run(main)


@pytest.mark.parametrize("mode", ["hangs", "stubborn"])
def test_a_server_that_hangs_at_its_start(mode: str, tmp_path: Path) -> None:
    """A program that never answers is given up in time, and its process is gone, even if it ignores SIGTERM."""
    log = tmp_path / "log"

    async def main() -> None:
        begun = time.monotonic()
        with pytest.raises(ToolSourceError, match=r"'demo' was not ready within 1 s; stderr= writes to a file"):
            await Toolbox([server(mode, start_timeout=1.0, stderr=log)]).open()
        assert time.monotonic() - begun < 30.0

    run(main)
    if mode == "stubborn":
        assert not alive(int(log.read_text()))


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ([sys.executable, DEMO, "ends"], "did not start: MCPError: Connection closed"),
        (["/no/such/program"], "did not start: FileNotFoundError: No such file or directory"),
    ],
)
def test_a_server_that_does_not_start(command: list[str], why: str) -> None:
    """A program that ends at once, or is not there, is an error that names the server; the others are closed again."""

    async def main() -> int:
        good = server()
        with pytest.raises(ToolSourceError, match=f"MCP server 'bad' {why}"):
            await Toolbox([good, MCPServer("bad", command=command)]).open()
        async with Toolbox([good]) as toolbox:
            return int(await value(toolbox, "pid"))

    assert not alive(run(main))


def test_it_is_shared_and_closed_with_the_last() -> None:
    """Toolboxes on one loop share a connection; it is closed with the last, and a call after that is told so."""

    async def main() -> None:
        one = server()
        first, second = Toolbox([one]), Toolbox([one])
        await first.open()
        async with second:
            pid = await value(first, "pid")
            assert pid == await value(second, "pid")
            kept = second.find("pid")
            await first.aclose()
            assert pid == await value(second, "pid")
        assert not alive(int(pid))
        assert kept is not None
        async with Toolbox([kept]) as third:
            assert await error(third, "pid") == "The server 'demo' is closed."
        with pytest.raises(RxStageError, match=r"has sources \(demo\) and is not open"):
            await first.run(ToolCall("pid", {}, "1"))

    run(main)


def test_each_loop_has_its_own() -> None:
    """One server object serves several event loops, each with a process of its own."""
    one = server()

    async def main() -> str:
        async with Toolbox([one]) as toolbox:
            return str(await value(toolbox, "pid"))

    assert run(main) != run(main)


def test_nothing_is_left_where_nobody_closed() -> None:
    """A process ends with its loop, though the toolbox was never closed."""

    async def main() -> int:
        toolbox = Toolbox([server()])
        await toolbox.open()
        return int(await value(toolbox, "pid"))

    assert not alive(asyncio.run(main()))


def test_hostile_names() -> None:
    """Whatever a server calls its tools, they have names that models take, the same every time, and it gets its own."""

    @tool
    def add() -> str:
        """The application's own."""
        return "ours"

    async def main() -> tuple[list[str], list[str]]:
        async with Toolbox([server("names", "bad"), add]) as toolbox:
            names = [spec.name for spec in toolbox.specs]
            told = [str(await value(toolbox, name)) for name in names]
        return names, told

    names, told = run(main)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names)
    assert names[-1] == "add"
    assert told[-1] == "ours"
    assert len(set(names)) == len(names) == 11
    by_name = dict(zip(names, (each.rpartition(": ")[0] for each in told), strict=True))
    assert by_name["a_b"] == "a_b"  # what fits keeps its name
    assert by_name["bad_add"] == "add"  # and never takes the application's
    assert by_name["______etc_passwd"] == "../../etc/passwd"
    assert by_name["tool"] == ""
    assert sorted(own for name, own in by_name.items() if name.startswith("a_b_")) == ["a b", "a?b"]
    assert run(main)[0] == names


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("array", "did not start: ValidationError: tools.0.inputSchema.type: Input should be 'object'"),
        ("properties", "the arguments of its tool 'list' are no object; name the tools that are wanted with only="),
        ("deep", "the arguments of its tool 'deep' are nested deeper than 64 levels"),
        ("many", "offers more than 512 tools, or has no end of them"),
    ],
)
def test_hostile_schemas(mode: str, why: str) -> None:
    """Schemas that are no objects or have no end, and lists of tools without one, are errors that say so."""

    async def main() -> None:
        with pytest.raises(ToolSourceError, match=f"MCP server 'bad'.*{re.escape(why)}"):
            await Toolbox([server(mode, "bad")]).open()

    run(main)


def test_an_answer_that_cannot_be_read() -> None:
    """A list of tools that is nested without end is never understood, and not waited for without end."""

    async def main() -> None:
        with pytest.raises(ToolSourceError, match="'bad' was not ready within 3 s"):
            await Toolbox([server("abyss", "bad", start_timeout=3.0)]).open()

    run(main)


def test_a_lawless_server() -> None:
    """An answer of another form is told as an error; a server that wants to ask our model is refused."""

    async def main() -> None:
        async with Toolbox([server("lawless", "bad")]) as toolbox:
            assert "The tool 'form' failed: ValidationError" in await error(toolbox, "form")
            assert await value(toolbox, "ask") == "error -32600"
            assert await value(toolbox, "evil") == {"x": "a" * 60 + "!"}  # whose schema would take for ever to check

    run(main)


def test_only() -> None:
    """Only the tools that are named are there, whatever else is offered; one that is not offered is an error."""

    async def main() -> None:
        async with Toolbox([server("deep", "bad", only=["fine"])]) as toolbox:
            assert [spec.name for spec in toolbox.specs] == ["fine"]
        with pytest.raises(ToolSourceError, match="MCP server 'bad' does not offer nothing, void"):
            await Toolbox([server("deep", "bad", only=["fine", "void", "nothing"])]).open()

    run(main)


def test_huge_texts() -> None:
    """A description and a result without end are cut."""

    async def main() -> None:
        async with Toolbox([server("huge", "bad")], max_result=1000) as toolbox:
            assert len(toolbox.specs[0].description) < 9000
            text = str(await value(toolbox, "huge"))
            assert len(text) < 1100
            assert text.endswith("[cut: these are the first 1000 of 3000008 characters]")

    run(main)


def test_options_of_its_tools() -> None:
    """What is said of the server holds for each of its tools."""

    async def main() -> None:
        async with Toolbox([server(approval=True, schedule="when_idle", timeout=3.0)]) as toolbox:
            found = toolbox.find("add")
            assert found is not None
            assert (found.approval, found.schedule, found.timeout) == (True, "when_idle", 3.0)

    run(main)


def test_in_a_pipeline() -> None:
    """A stage opens and closes the server with its execution, and the model uses its tools."""

    async def main() -> list[Any]:
        model = ScriptedProvider(
            [ToolCall("add", {"a": 1, "b": 2}, "1"), ToolCall("pid", {}, "2")], rules=[Rule("3", "It is three.")]
        )
        stage = ProviderStage(provider=model, tools=[server()])
        result = await Pipeline.of(stage).execute("How much is it?")
        assert result.messages[-1].text == "It is three."
        return [each.value for each in result.contents if isinstance(each, ToolResult)]

    total, pid = run(main)
    assert total == "3"
    assert not alive(int(pid))


@pytest.fixture
def endpoint() -> Iterator[tuple[str, Callable[[], None]]]:
    """A server over streamable HTTP on a port of this machine: its URL, and what kills it and starts it again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        for each in processes:
            each.kill()
            each.wait(WAIT)
        quiet = subprocess.DEVNULL
        processes.append(
            subprocess.Popen([sys.executable, DEMO, "http", str(port)], stdout=quiet, stderr=quiet, stdin=quiet)
        )
        deadline = time.monotonic() + WAIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    start()
    yield f"http://127.0.0.1:{port}/mcp", start
    for each in processes:
        each.kill()
        each.wait(WAIT)


def test_over_http(endpoint: tuple[str, Callable[[], None]]) -> None:
    """The same over streamable HTTP; the server is not ours and stays."""
    url, _ = endpoint

    async def main() -> None:
        told: list[Any] = []
        async with Toolbox([MCPServer("web", url=url)]) as toolbox:
            assert [spec.name for spec in toolbox.specs] == NAMES
            assert await asyncio.gather(*(value(toolbox, "add", a=each, b=1) for each in range(5))) == list("12345")
            assert (await toolbox.run(ToolCall("steps", {}, "1"), progress=told.append)).value == "done"
            assert told == [Progress(0.25, "begun"), Progress(0.5, "")]
            assert isinstance(await value(toolbox, "picture"), Parts)
            pid = int(await value(toolbox, "pid"))
        assert alive(pid)

    run(main)


def test_http_server_that_dies(endpoint: tuple[str, Callable[[], None]]) -> None:
    """A call to a server over HTTP that has gone is told so, and once it is up again it is used again."""
    url, restart = endpoint

    async def main() -> None:
        async with Toolbox([MCPServer("web", url=url)]) as toolbox:
            first = await value(toolbox, "pid")
            assert "broke while it worked on this" in await error(toolbox, "die")
            assert await error(toolbox, "pid") == "The server 'web' is down and could not be started again."
            await asyncio.to_thread(restart)
            while (result := await toolbox.run(ToolCall("pid", {}, "1"))).is_error:
                await asyncio.sleep(0.05)
            assert result.value != first

    run(main)


def test_http_server_that_was_restarted(endpoint: tuple[str, Callable[[], None]]) -> None:
    """A server that has forgotten the session is connected again."""
    url, restart = endpoint

    async def main() -> None:
        async with Toolbox([MCPServer("web", url=url)]) as toolbox:
            assert await value(toolbox, "add", a=1, b=2) == "3"
            await asyncio.to_thread(restart)
            while (result := await toolbox.run(ToolCall("add", {"a": 1, "b": 2}, "1"))).is_error:
                await asyncio.sleep(0.05)
            assert result.value == "3"

    run(main)


def test_nobody_at_the_url() -> None:
    """A URL that nobody answers at is an error that names the server."""

    async def main() -> None:
        with pytest.raises(ToolSourceError, match="MCP server 'web' did not start: ConnectError"):
            await Toolbox([MCPServer("web", url="http://127.0.0.1:9/mcp")]).open()

    run(main)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "needs either command="),
        ({"command": ["a"], "url": "b"}, "needs either command="),
        ({"command": "a b"}, "needs either command="),
        ({"command": []}, "needs either command="),
    ],
)
def test_what_it_needs(arguments: dict[str, Any], why: str) -> None:
    """A server is a program or a URL."""
    with pytest.raises(ValueError, match=why):
        MCPServer("demo", **arguments)
    with pytest.raises(ValueError, match="an MCP server's name has"):
        MCPServer("../demo", url="http://127.0.0.1")


def test_it_shows_no_secrets() -> None:
    """Headers and variables are not in its text."""
    server = MCPServer("web", url="https://user:secret@example.com", headers={"Authorization": "Bearer secret"})
    assert repr(server) == "MCPServer('web')"
    assert "secret" not in str(ToolError(str(server)))
