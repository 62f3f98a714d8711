"""`rxstage chat` in a terminal: the real program on a pseudo terminal, and what a person would see there."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from llm_server import LlmServer, llm_server

if os.name != "posix":
    pytest.skip("pseudo terminals are POSIX", allow_module_level=True)

import fcntl
import struct
import termios

LIMIT: Final = 60.0  # seconds for one thing to happen
PROGRAM: Final = """
import fcntl, runpy, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C comes as a signal
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules.update(dict.fromkeys(MISSING))
runpy.run_module("rxstage", run_name="__main__")
"""
KEYS: Final = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY", "RXSTAGE_MODEL", "NO_COLOR")

pytestmark = [pytest.mark.needs("module:pyte", "module:prompt_toolkit", "module:openai")]


class Terminal:
    """A program in a terminal of its own.

    Attributes:
        raw: all that it has written.
    """

    def __init__(self, process: subprocess.Popen[bytes], master: int, columns: int, rows: int) -> None:
        import pyte

        self.raw = b""
        self._process, self._master = process, master
        self._screen: Any = pyte.HistoryScreen(columns, rows, history=10_000, ratio=1)
        setattr(self._screen, "write_process_input", lambda answer: os.write(master, answer.encode()))
        self._stream = pyte.ByteStream(self._screen)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Make the window larger or smaller."""
        self._screen.resize(rows, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def lines(self) -> list[str]:
        """All rows, those that have left the screen at its top first."""
        screen = self._screen
        rows = [*screen.history.top, *(screen.buffer[row] for row in range(screen.lines))]
        return ["".join(row[column].data for column in range(screen.columns)).rstrip() for row in rows]

    def until(self, wanted: str, *, after: str = "") -> None:
        """Wait until something can be read, behind something else."""
        self._wait(lambda: wanted in ("\n".join(self.lines).rpartition(after)[2] if after else "\n".join(self.lines)))

    def ready(self) -> None:
        """Wait until there is a prompt with nothing on it."""
        self._wait(lambda: [line for line in self.lines if line][-1:] == [">"])

    def end(self) -> int:
        """Wait for the end of the program; gives its exit code."""
        end = time.monotonic() + LIMIT
        while self._read(end):
            assert time.monotonic() < end, self.lines
        return self._process.wait(LIMIT)

    def _wait(self, there: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT
        while not there():
            assert self._read(end), "\n".join(self.lines).rstrip()

    def _read(self, end: float) -> bool:
        if not select.select([self._master], [], [], max(end - time.monotonic(), 0.0))[0]:
            return False
        try:
            got = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += got
        self._stream.feed(got)
        return bool(got)


@contextmanager
def terminal(
    *arguments: str, columns: int = 80, rows: int = 24, missing: tuple[str, ...] = (), **variables: str
) -> Iterator[Terminal]:
    """`rxstage chat` in a terminal; it does not outlive the block."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in (*KEYS, "COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color", **variables}
    command = [sys.executable, "-c", f"MISSING = {missing!r}\n{PROGRAM}", "chat", *arguments]
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    ) as process:
        os.close(slave)
        try:
            yield Terminal(process, master, columns, rows)
        finally:
            process.kill()
            os.close(master)


@pytest.fixture
def server() -> Iterator[LlmServer]:
    """A server with a model."""
    with llm_server() as running:
        yield running


def test_a_conversation(server: LlmServer) -> None:
    """One types, the answer streams, the next turn knows the one before, and /quit leaves with the totals."""
    with terminal("--base-url", server.url) as seen:
        seen.ready()
        seen.type("hello\r")
        seen.until("hello, you said in message 1 to first.")
        seen.until("10 tokens in, 20 out")
        seen.type("again\r")
        seen.until("again, you said in message 3 to first.")
        seen.ready()
        seen.type("/quit\r")
        assert seen.end() == 0
        assert "2 answers: 20 tokens in, 40 out" in seen.lines


def test_markdown_longer_than_the_screen(server: LlmServer) -> None:
    """An answer that is longer than the screen is there as a whole in what one can scroll back to, once, in order."""
    with terminal("--base-url", server.url, columns=40, rows=10) as seen:
        seen.ready()
        seen.type("long\r")
        seen.until("10 tokens in")
        parts = [line for line in seen.lines if line.startswith(("Part", " • item", "  return"))]
        assert parts == [row for n in range(1, 9) for row in (f"Part {n}", f" • item {n}", f"  return {n}")]
        assert sum("日本語" in line for line in seen.lines) == 8
        seen.type("\x04")
        assert seen.end() == 0


def test_ctrl_c_stops_an_answer(server: LlmServer) -> None:
    """Ctrl-C in the middle of an answer stops it, the call is cancelled, and the next turn is answered."""
    with terminal("--base-url", server.url) as seen:
        seen.ready()
        seen.type("stall\r")
        seen.until("I begin")
        seen.type("\x03")
        seen.until("stopped")
        assert server.left.wait(LIMIT)
        seen.ready()
        seen.type("hello\r")
        seen.until("hello, you said in message 3 to first.")  # what was heard of the answer is remembered
        seen.ready()
        seen.type("\x04")
        assert seen.end() == 0


def test_what_is_typed_ahead_waits(server: LlmServer) -> None:
    """What is typed while an answer comes does not disturb it, and is the next turn."""
    with terminal("--base-url", server.url) as seen:
        seen.ready()
        seen.type("gate\r")
        seen.until("I begin")
        seen.type("next\r")
        server.gate.set()
        seen.until("next, you said in message 3")
        assert "I begin and end" in seen.lines


def test_it_is_remembered(tmp_path: Path) -> None:
    """What was said in one process is known in the next."""
    kept = ("--store", f"sqlite:///{tmp_path / 'kept.db'}", "--conversation", "a")
    with terminal(*kept) as seen:
        seen.ready()
        seen.type("my name is Ada\r")
        seen.until("Nice to meet you, Ada.")
        seen.ready()
        seen.type("/quit\r")
        assert seen.end() == 0
        assert "no model is named and no API key set: the local default answers" in seen.raw.decode()
    with terminal(*kept) as seen:
        seen.until("'a' kept by sqlite, 2 messages")
        seen.type("what is my name?\r")
        seen.until("Your name is Ada.")
        seen.ready()
        seen.type("\x1b[A")  # up: what was said last
        seen.until("> what is my name?", after="tokens in")


@pytest.mark.parametrize("options", [(), ("--plain",)])
def test_escape_sequences_do_not_arrive(server: LlmServer, options: tuple[str, ...]) -> None:
    """Control characters of a model, in an answer or in an error, never reach the terminal."""
    with terminal("--base-url", server.url, *options) as seen:
        seen.ready()
        seen.type("evil\r")
        seen.until("10 tokens in")
        seen.type("refuse\r")
        seen.until("openai answered 400")
        seen.ready()
        shown = "\n".join(seen.lines)
    assert "evil \ufffd[31mred \ufffd]0;title\ufffd\ufffd32m" in shown
    for evil in (b"\x1b[31mred", b"\x1b]0;", b"\x07", "\x9b".encode(), b"\x1b[33m "):
        assert evil not in seen.raw


def test_tools_are_shown() -> None:
    """A call of a tool and its result stand beside the answer, one row each."""
    with terminal("--model", "local", columns=40) as seen:
        seen.ready()
        seen.type(f"what is {'1 + ' * 20}1?\r")
        seen.until("calculate: 21")
        calls = [line for line in seen.lines if line.startswith(("→", "←"))]
        assert len(calls) == 2
        assert calls[0].startswith("→ calculate(expression='1 + 1")
        assert calls[0].endswith("…")
        assert calls[1] == "← 21"


def test_commands(tmp_path: Path) -> None:
    """Tab completes a command, /save asks before it overwrites, and an unknown command is told."""
    path = tmp_path / "talk.md"
    path.write_text("mine")
    with terminal("--model", "local", "--plain", columns=250) as seen:
        seen.ready()
        seen.type("hello\r")
        seen.until("tokens in")
        seen.ready()
        seen.type("/to\t")
        seen.until("> /tools")
        seen.type("\r")
        seen.until("now(timezone)")
        seen.ready()
        seen.type(f"/save {path}\r")
        seen.until("Overwrite it? [y/N]")
        seen.type("n\r")
        seen.ready()
        assert path.read_text() == "mine"
        seen.type(f"/save {path}\r")
        seen.until("Overwrite it? [y/N]", after="not saved")
        seen.type("y\r")
        seen.until("2 messages saved in")
        assert "## User\n\nhello\n" in path.read_text()
        seen.type("/sav\r")
        seen.until("there is no /sav; did you mean /save?")


def test_several_lines() -> None:
    """Lines that are pasted, or begun with Alt-Enter, are one message."""
    with terminal("--model", "local", "--plain") as seen:
        seen.ready()
        seen.type("\x1b[200~one\ntwo\x1b[201~\x1b\rthree\r")
        seen.until("You said: one two three")


def test_ctrl_c_at_the_prompt() -> None:
    """Ctrl-C empties a line; on an empty one, the second in a row leaves with 130."""
    with terminal("--model", "local") as seen:
        seen.ready()
        seen.type("never said")
        seen.until("> never said")
        seen.type("\x03hello\r")
        seen.until("Hello. I am the local default")
        seen.ready()
        seen.type("\x03")
        seen.until("Ctrl-C once more leaves")
        seen.ready()
        seen.type("\x03")
        assert seen.end() == 130
        assert "1 answer: " in "\n".join(seen.lines)


def test_no_color(server: LlmServer) -> None:
    """With NO_COLOR nothing is coloured."""
    with terminal("--base-url", server.url, NO_COLOR="1") as seen:
        seen.ready()
        seen.type("long\r")
        seen.until("10 tokens in")
    answer = seen.raw[seen.raw.index(b"Part 1") :]
    assert b"\x1b[1m" in answer
    assert [code for code in range(30, 38) if f"\x1b[{code}m".encode() in answer] == []


def test_a_dumb_terminal() -> None:
    """A terminal that can do nothing gets nothing but text."""
    with terminal("--model", "local", TERM="dumb") as seen:
        seen.ready()
        seen.type("show markdown\r")
        seen.until("| provider | answers |")
        seen.ready()
        seen.type("/quit\r")
        assert seen.end() == 0
        shown = seen.raw.replace(b"\x1b[?12l", b"").replace(b"\x1b[?25h", b"")  # prompt_toolkit shows its cursor
        assert b"\x1b" not in shown


def test_a_window_that_changes(server: LlmServer) -> None:
    """Another size in the middle of an answer is heeded from then on."""
    with terminal("--base-url", server.url, columns=70) as seen:
        seen.ready()
        seen.type("gate\r")
        seen.until("I begin")
        seen.resize(40, 12)
        server.gate.set()
        seen.until("I begin and end")
        seen.ready()
        seen.type("long\r")
        seen.until("tokens in", after="return 8")
        assert max(len(line) for line in seen.lines[-12:]) <= 40


def test_a_package_is_missing() -> None:
    """Without prompt_toolkit it is told which extra brings it."""
    with terminal("--model", "local", missing=("prompt_toolkit",)) as seen:
        assert seen.end() == 1
        assert b"rxstage: this needs the package 'prompt_toolkit': pip install 'rxstage[chat]'\r\n" in seen.raw
