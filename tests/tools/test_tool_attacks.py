"""What a model that was talked into it, or a hostile answer of a provider, may ask of tools."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from rxstage.content import ToolCall, ToolResult
from rxstage.testing import assert_no_leaks, run_virtual
from rxstage.tools import Progress, Toolbox, ToolContext, tool

WAIT: Final = 60.0


class Address(BaseModel):
    """Where a mail goes."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(pattern=r"^[a-z]+$")


class Box:
    """A toolbox over which everything that reaches a function is written down."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        seen = self.seen.append

        @tool
        async def mail(to: Address, subject: str, urgent: bool = False) -> str:
            """Sends a mail."""
            seen((to, subject, urgent))
            return "sent"

        @tool
        async def read(name: Annotated[str, Field(pattern=r"^[a-z]+\.txt$")], mode: Literal["text"] = "text") -> str:
            """Reads a file."""
            seen((name, mode))
            return "content"

        @tool
        async def secret(context: ToolContext, limit: Annotated[int, Field(ge=0, le=10)] = 1) -> str:
            """Knows its context."""
            seen((context, limit))
            return context.conversation

        self.toolbox = Toolbox([mail, read, secret], max_result=1000)

    def run(self, name: Any, arguments: Any) -> ToolResult:
        """The result, for a call that may be anything."""
        return run_virtual(lambda: self.toolbox.run(ToolCall(name, arguments, "1"), conversation="mine"))


def deep(levels: int) -> Any:
    nested: Any = "x"
    for _ in range(levels):
        nested = {"a": nested}
    return nested


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        # arguments that do not fit
        ("mail", {"to": "root", "subject": "s"}),
        ("mail", {"to": {"user": "root; rm -rf /"}, "subject": "s"}),
        ("mail", {"to": {"user": "a"}, "subject": ["s"]}),
        ("mail", {"to": {"user": "a"}, "subject": "s", "urgent": "perhaps"}),
        ("mail", {"to": {"user": None}, "subject": "s"}),
        ("mail", {}),
        ("secret", {"limit": 11}),
        ("secret", {"limit": 10**1000}),
        ("secret", {"limit": float("nan")}),
        ("secret", {"limit": float("inf")}),
        ("secret", {"limit": "١٠x"}),
        # path-like arguments and names
        ("read", {"name": "../../etc/passwd"}),
        ("read", {"name": "a.txt\n../../etc/passwd"}),
        ("read", {"name": "a.txt\x00.png"}),
        ("read", {"name": "a.txt", "mode": "bytes"}),
        ("../read", {"name": "a.txt"}),
        ("read/../secret", {}),
        ("/etc/passwd", {}),
        ("C:\\Windows\\read", {}),
        ("file:///etc/passwd", {}),
        # names that are none
        ("", {}),
        ("Read", {"name": "a.txt"}),
        ("read ", {"name": "a.txt"}),
        ("read\x00", {"name": "a.txt"}),
        ("reаd", {"name": "a.txt"}),  # with a Cyrillic letter
        ("__class__", {}),
        ("__init__", {}),
        ("toolbox", {}),
        ("run", {}),
        ("os.system", {"command": "id"}),
        ("x" * 10_000_000, {}),
        (None, {}),
        (["read"], {"name": "a.txt"}),
        # extra arguments
        ("mail", {"to": {"user": "a"}, "subject": "s", "bcc": "thief@example.com"}),
        ("mail", {"to": {"user": "a", "domain": "thief.example.com"}, "subject": "s"}),
        ("secret", {"context": {"conversation": "theirs"}}),
        ("secret", {"conversation": "theirs"}),
        ("secret", {"self": 1}),
        ("secret", {"__proto__": {"limit": 5}}),
        ("secret", {"*args": [1]}),
        # malformed and huge
        ("secret", {"": '{"limit": 1'}),
        ("secret", []),
        ("secret", "limit=1"),
        ("secret", None),
        ("mail", {"to": {"user": "a"}, "subject": "s" * 1_000_000}),
        ("mail", {"to": {"user": "a"}, "subject": "s", "x" * 1_000_000: 1}),
        ("mail", {"to": {"user": "a"}, "subject": [[0] * 1000] * 1000}),
        ("mail", {"to": {"user": "a"}, "subject": deep(70)}),
        ("mail", {"to": deep(900), "subject": "s"}),
        ("secret", {str(number): number for number in range(100_000)}),
    ],
)
def test_it_does_not_reach_a_function(name: Any, arguments: Any) -> None:
    """No such call reaches a function; the model is told in a short sentence what is wrong, and of nothing else."""
    box = Box()
    result = box.run(name, arguments)
    assert box.seen == []
    assert result.is_error
    assert result.call_id == "1"
    assert isinstance(result.value, str)
    assert 0 < len(result.value) < 2100
    assert "Traceback" not in result.value
    assert str(Path(__file__).parent) not in result.value
    result.value.encode()


def test_what_fits_does() -> None:
    """The same tools do what they are there for."""
    box = Box()
    assert box.run("mail", {"to": {"user": "anna"}, "subject": "s"}).value == "sent"
    assert box.run("read", {"name": "a.txt"}).value == "content"
    assert box.run("secret", {"limit": 10}).value == "mine"
    assert box.seen[0] == (Address(user="anna"), "s", False)


def test_arguments_are_not_the_callers() -> None:
    """What a tool does to its arguments does not change the call, which the history keeps."""

    @tool
    async def spoil(items: list[str], options: dict[str, Any]) -> None:
        items.clear()
        options.clear()

    call = ToolCall("spoil", {"items": ["a"], "options": {"b": 1}}, "1")
    run_virtual(lambda: Toolbox([spoil]).run(call))
    assert call.arguments == {"items": ["a"], "options": {"b": 1}}


def test_huge_results() -> None:
    """A result of any size or form is cut to what was allowed."""

    @tool
    async def text() -> str:
        return "x" * 50_000_000

    @tool
    async def rows() -> list[dict[str, int]]:
        return [{"n": number} for number in range(100_000)]

    @tool
    async def nested() -> Any:
        return deep(5000)

    @tool
    async def raises() -> None:
        raise ValueError("y" * 50_000_000)

    toolbox = Toolbox([text, rows, nested, raises], max_result=1000)

    async def main() -> list[ToolResult]:
        return [await toolbox.run(ToolCall(spec.name, {}, "1")) for spec in toolbox.specs]

    results = run_virtual(main)
    assert [each.is_error for each in results] == [False, False, False, True]
    assert all(len(str(each.value)) < 1100 for each in results)


def test_an_error_keeps_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an error the model hears type and message: no traceback, no source, no folder, no environment."""
    monkeypatch.setenv("SECRET_OF_THE_TEST", "s3cr3t")

    @tool
    def leaks() -> str:
        try:
            return open("/root/.ssh/id_rsa/x").read()
        except OSError as error:
            raise RuntimeError(f"{error} in {__file__}") from error

    result = run_virtual(lambda: Toolbox([leaks]).run(ToolCall("leaks", {}, "1")))
    assert result.is_error
    assert "/" not in result.value
    assert "s3cr3t" not in result.value
    assert "test_tool_attacks.py" in result.value


def test_a_tool_that_never_ends() -> None:
    """Tools that never end, in each way that there is, are given up in time, all at once, and block nobody else."""
    gate = threading.Event()

    @tool
    async def waits() -> None:
        await asyncio.Event().wait()

    @tool
    async def swallows() -> None:
        while not gate.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass

    @tool
    def blocks() -> None:
        gate.wait(WAIT)

    @tool
    def turns() -> Iterator[Progress]:
        while True:
            gate.wait(0.001)
            yield Progress()

    @tool
    async def fine() -> str:
        return "fine"

    async def main() -> None:
        async with assert_no_leaks():
            async with Toolbox([waits, swallows, blocks, turns, fine], timeout=0.2) as toolbox:
                names = ["waits", "swallows", "blocks", "turns", "fine"]
                results = await asyncio.gather(*(toolbox.run(ToolCall(name, {}, name)) for name in names))
                assert [each.is_error for each in results] == [True, True, True, True, False]
                gate.set()

    asyncio.run(asyncio.wait_for(main(), WAIT))


def test_the_interpreter_ends() -> None:
    """A process ends though a tool of it never does."""
    program = (
        "import asyncio, threading\n"
        "from rxstage.content import ToolCall\n"
        "from rxstage.tools import Toolbox, tool\n"
        "@tool(timeout=0.05)\n"
        "def blocks() -> None:\n"
        "    threading.Event().wait()\n"
        "async def main():\n"
        "    async with Toolbox([blocks]) as toolbox:\n"
        "        print((await toolbox.run(ToolCall('blocks', {}, '1'))).is_error)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
