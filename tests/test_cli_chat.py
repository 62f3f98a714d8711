"""`rxstage chat` through a pipe, its commands, its choice of a model, and how it draws; see also its terminal tests."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from llm_server import EVIL, LONG, LlmServer, llm_server
from rich.console import Console
from typer.testing import CliRunner

import rxstage.cli.chat_talk
from rxstage import Message, ToolCall, ToolResult, Usage
from rxstage.adapters.memory import MemoryStore
from rxstage.adapters.stores import store_of
from rxstage.cli.app import app
from rxstage.cli.chat_commands import to_boxes
from rxstage.cli.chat_live import MarkdownScreen
from rxstage.cli.chat_markdown import Blocks
from rxstage.cli.chat_model import Model, choose
from rxstage.cli.chat_painter import Painter, Row
from rxstage.cli.chat_session import Session
from rxstage.cli.chat_text import clean, one_line
from rxstage.cli.chat_tools import calculate, now
from rxstage.cli.command import CommandError
from rxstage.observe.metrics import Metrics
from rxstage.ports.provider import ProviderError
from rxstage.ports.store import Entry, StoreError
from rxstage.providers.scripted import Reply, ScriptedProvider
from rxstage.testing import run_virtual
from rxstage.tools import ToolError

LIMIT: Final = 60.0  # seconds for one process
KEYS: Final = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY")
DEFAULT: Final = (
    "rxstage: no model is named and no API key set: the local default answers, a script. A real model: "
    "--model ollama:NAME, --base-url URL, or set OPENAI_API_KEY\n"
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without keys."""
    for name in (*KEYS, "RXSTAGE_MODEL", "RXSTAGE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server() -> Iterator[LlmServer]:
    """A server with two models."""
    with llm_server() as running:
        yield running


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedProvider]:
    """Has a script answer, whatever model is asked for."""

    def play(*answers: Any, **options: Any) -> ScriptedProvider:
        provider = ScriptedProvider(*answers, **options)
        monkeypatch.setattr(rxstage.cli.chat_talk, "choose", lambda *_: Model(provider, "the script"))
        return provider

    return play


def chat(*arguments: str, said: str) -> Any:
    """`rxstage chat` in this process, with lines that are piped in."""
    return CliRunner().invoke(app, ["chat", *arguments], input=said)


def local(*lines: str, options: tuple[str, ...] = ()) -> Any:
    """The same with the local model."""
    return chat("--model", "local", *options, said="".join(f"{line}\n" for line in lines))


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """`rxstage chat` as a process; nothing that was started in the background hears Ctrl-C without this."""
    heard = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('rxstage', run_name='__main__')"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", heard, "chat", *arguments]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, **options)


# ------------------------------------------------------------------------------------------ through a pipe


def test_a_line_is_a_turn() -> None:
    """Each line that is not empty is a turn, its answer is printed, and it knows what was said before."""
    result = local("my name is Ada", "", "  ", "what is my name?")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "Nice to meet you, Ada. I will remember that.\nYour name is Ada.\n"


def test_the_local_default() -> None:
    """Without a model and a key the local default answers, and that is said."""
    result = chat(said="hello\n")
    assert (result.exit_code, result.stderr) == (0, DEFAULT)
    assert result.stdout == "Hello. I am the local default, a script without a model; say `help`.\n"


def test_nothing_is_said() -> None:
    """An empty input is no error."""
    result = local()
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_a_tool_is_used() -> None:
    """The model can calculate; what it does for that is no part of what is printed."""
    assert local("what is 6 * 7?").stdout == "calculate: 42\n"
    assert local("what is 6 * 7?", options=("--no-tools",)).stdout == "6 * 7 = 42\n"


def test_an_answer_is_printed_as_it_is(played: Callable[..., ScriptedProvider]) -> None:
    """Blank lines in an answer stay, those round it go, and each answer ends with one line feed."""
    played("\n\n# One\n\n\ntwo\n\n", "three")
    assert chat(said="a\nb\n").stdout == "# One\n\n\ntwo\nthree\n"


@pytest.mark.needs("module:aiosqlite")
def test_it_is_remembered_by_the_next_process(place: Path) -> None:
    """With a store, the next process knows what was said; another conversation does not."""
    for name, said, answer in [
        ("a", b"my name is Ada\n", b"Nice to meet you, Ada. I will remember that.\n"),
        ("a", b"what is my name?\n", b"Your name is Ada.\n"),
        ("b", b"what is my name?\n", "You have not told me yet. Say `my name is …`.\n".encode()),
    ]:
        with process("--model", "local", "--store", "sqlite:///kept.db", "--conversation", name) as running:
            out, error = running.communicate(said, timeout=LIMIT)
        assert (running.returncode, out, error) == (0, answer, b"")


@pytest.mark.needs("module:aiosqlite")
def test_two_processes_at_once(place: Path) -> None:
    """Two processes that hold one conversation at the same time lose nothing of it."""
    kept = ("--model", "local", "--store", "sqlite:///kept.db")
    with process(*kept) as one, process(*kept) as two:
        for running, name in ((one, "a"), (two, "b")):
            assert running.stdin is not None
            running.stdin.write("".join(f"{name}{number}\n" for number in range(8)).encode())
            running.stdin.close()
        for running in (one, two):
            assert running.wait(LIMIT) == 0

    async def stored() -> tuple[Entry, ...]:
        async with store_of("sqlite:///kept.db") as store:
            return (await store.load("default")).entries

    messages = [entry.message for entry in asyncio.run(stored())]
    said = [message.text for message in messages if message.role == "user"]
    assert sorted(said) == sorted(f"{name}{number}" for name in "ab" for number in range(8))
    assert [text for text in said if text[0] == "a"] == [f"a{number}" for number in range(8)]
    assert sum(message.role == "assistant" for message in messages) == 16


def test_a_turn_that_fails(played: Callable[..., ScriptedProvider]) -> None:
    """A failed answer is told on standard error, the next turn is answered, and the exit code is 1."""
    played(ProviderError("it is \x1b[31mbroken"), "fine")
    result = chat(said="a\nb\n")
    assert (result.exit_code, result.stdout) == (1, "fine\n")
    assert result.stderr == "rxstage: it is \ufffd[31mbroken\n"


def test_an_answer_that_is_void(played: Callable[..., ScriptedProvider]) -> None:
    """An answer that breaks off and begins again says that what was printed is void."""
    broke = Reply(text="one two three", error=ProviderError("cut", retryable=True), error_after=2)
    played(broke, "whole")
    result = chat(said="a\n")
    assert (result.exit_code, result.stdout) == (0, "one two\nwhole\n")
    assert result.stderr == "what stands above of this answer is void, it begins again: cut\n"


@pytest.mark.needs("module:openai")
def test_control_characters_do_not_come_through(server: LlmServer) -> None:
    """Escape sequences of a model are made harmless in a pipe, too."""
    result = chat("--base-url", server.url, said="evil\nrefuse\n")
    assert result.stdout == f"{clean(EVIL)}\n"
    assert result.exit_code == 1
    assert result.stderr == f"rxstage: openai answered 400 for model 'first': refused: {clean(EVIL)}\n"


def test_what_is_read_need_not_be_text() -> None:
    """Bytes that are no text, and line ends of all kinds, do no harm."""
    with process("--model", "local") as running:
        out, _ = running.communicate(b"\xef\xbb\xbfmy name is Ada\r\n\xff\xfe\nwhat is my name?", timeout=LIMIT)
    assert running.returncode == 0
    assert out.startswith(b"Nice to meet you, Ada. I will remember that.\n")
    assert out.endswith(b"Your name is Ada.\n")


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_ctrl_c_in_a_pipe() -> None:
    """Ctrl-C while the input is open ends it with 130; what came before was printed at once."""
    with process("--model", "local") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"hello\n")
        assert running.stdout.readline().startswith(b"Hello.")
        running.send_signal(signal.SIGINT)
        assert running.wait(LIMIT) == 130
        assert running.stderr is not None
        assert running.stderr.read() == b""


@pytest.mark.skipif(os.name != "posix", reason="a closed pipe is an error of POSIX")
def test_a_reader_that_leaves() -> None:
    """A reader that goes away, as `head` does, ends it without a word."""
    with process("--model", "local") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"hello\n")
        running.stdout.readline()
        running.stdout.close()
        running.stdin.write(b"hello\n")
        assert running.wait(LIMIT) == 0
        assert running.stderr is not None
        assert running.stderr.read() == b""


# ------------------------------------------------------------------------------------------ commands


def test_help_and_tools() -> None:
    """/help lists the commands, /tools what the model may call."""
    result = local("/help", "/tools")
    assert result.exit_code == 0
    rows = [line.split("  ", 1)[0] for line in result.stdout.splitlines()]
    assert rows[:3] == ["/help", "/tools", "/save [FILE]"]
    assert rows[-2:] == ["calculate(expression)", "now(timezone)"]
    assert local("/tools", options=("--no-tools",)).stderr == "the model may call nothing\n"


def test_quit_and_slashes() -> None:
    """/quit ends before the end of the input; // says something that begins with a slash."""
    result = local("//slash", "/quit", "never said")
    assert result.exit_code == 0
    assert result.stdout.startswith("You said: /slash\n")
    assert "never" not in result.stdout


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/sav", "there is no /sav; did you mean /save?"),
        ("/\x1b[31m", "there is no /\ufffd[31m; /help lists what there is"),
        ("/save", "nothing was said yet that could be saved"),
        ("/graph svg", "write /graph, or /graph mermaid for its picture in Mermaid's language"),
        ("/model nope:x", "--model: 'nope:x' names no known provider"),
    ],
)
def test_commands_that_cannot_be_done(line: str, told: str) -> None:
    """What cannot be done is told on standard error, the rest goes on, and the exit code is 1."""
    result = local(line, "hello")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"rxstage: {told}")
    assert result.stderr.count("\n") == 1
    assert result.stdout.startswith("Hello.")


def test_save(place: Path) -> None:
    """/save writes the conversation as Markdown, and does not overwrite a file."""
    result = local("what is 6 * 7?", "/save talk.md", "/save talk.md")
    assert result.exit_code == 1
    assert result.stderr == "4 messages saved in talk.md\nrxstage: talk.md is there already; name another file\n"
    assert (place / "talk.md").read_text(encoding="utf-8") == (
        "# default\n\n"
        "## User\n\nwhat is 6 * 7?\n\n"
        "## Assistant\n\n`calculate(expression='6 * 7')`\n\n"
        "## Tool\n\n`calculate` gave `42`\n\n"
        "## Assistant\n\ncalculate: 42\n"
    )


def test_save_by_the_name_of_the_conversation(place: Path) -> None:
    """Without a name the file is called after the conversation, and lies here whatever that is called."""
    options = ("--store", "memory://", "--conversation", "../my talk")
    assert local("hello", "/save", options=options).exit_code == 0
    assert [path.name for path in place.iterdir()] == ["-my-talk.md"]


def test_save_nowhere() -> None:
    """A file that cannot be written is told."""
    result = local("hello", "/save gone/talk.md")
    assert (result.exit_code, result.stderr) == (1, "rxstage: gone/talk.md: No such file or directory\n")


def test_graph() -> None:
    """/graph shows the stages and what they have done."""
    result = local("hello", "/graph", "/graph mermaid")
    shown = result.stdout.split("\n", 1)[1]
    assert shown.startswith(
        "┌───────────┐\n│   load    │ 1 in, 1 out\n└─────┬─────┘\n┌─────┴─────┐\n│ assistant │ 1 in, "
    )
    assert "flowchart LR\n" in shown


def test_boxes_of_what_has_not_run() -> None:
    """Before the first turn the pipeline can be shown, too."""
    session = Session(Model(ScriptedProvider(), "x"), MemoryStore(), "a")
    assert to_boxes(session.pipeline.graph, Metrics()).count("0 in, 0 out") == 3


def test_history(played: Callable[..., ScriptedProvider]) -> None:
    """/history shows what was said, or the newest of it."""
    played("one", "two")
    result = chat(said="a\nb\n/history\n/history 1\n/history 0\n")
    assert result.stdout == "one\ntwo\n> a\none\n> b\ntwo\ntwo\n"
    assert result.stderr == "nothing was said yet\n"


def test_costs(played: Callable[..., ScriptedProvider]) -> None:
    """/cost adds up tokens and costs."""
    played(Reply(text="one", usage=Usage(1000, 20, 0.0125)), Reply(text="two", usage=Usage(7, 1)))
    result = chat(said="a\nb\n/cost\n")
    assert result.stdout == "one\ntwo\n2 answers: 1,007 tokens in, 21 out · $0.0125\n"


def test_system_and_parameters(played: Callable[..., ScriptedProvider]) -> None:
    """--system and /system instruct the model, --temperature reaches it, and the conversation goes on."""
    provider = played("one", "two", "three")
    result = chat("--system", "Be brief.", "--temperature", "0.5", said="a\n/system Be long.\nb\n/system\nc\n")
    assert result.exit_code == 0
    assert result.stderr == "the model is told: Be long.\n" * 2
    calls = [[(message.role, message.text) for message in call.messages] for call in provider.calls]
    assert calls[0] == [("system", "Be brief."), ("user", "a")]
    assert calls[1] == [("system", "Be long."), ("user", "a"), ("assistant", "one"), ("user", "b")]
    assert provider.calls[0].parameters == {"temperature": 0.5}


@pytest.mark.needs("module:openai")
def test_another_model(server: LlmServer) -> None:
    """/model goes on with another model of the same server, which knows what was said."""
    result = chat("--base-url", server.url, said="a\n/model second\nb\n/model\n")
    assert result.stdout == "a, you said in message 1 to first.\nb, you said in message 3 to second.\n"
    assert result.stderr == "the model is second\n" * 2


def test_clear() -> None:
    """/clear forgets what was said; what is kept for later is not deleted without a yes."""
    result = local("my name is Ada", "/clear", "what is my name?")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].startswith("You have not told me yet.")
    result = local("my name is Ada", "/clear", "what is my name?", options=("--store", "memory://"))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1] == "Your name is Ada."


# ------------------------------------------------------------------------------------------ which model


@pytest.mark.parametrize(
    ("variables", "arguments", "name", "model"),
    [
        ({}, (None, None), "local", "script"),
        ({"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, (None, None), "openai", "gpt-5.4-mini"),
        ({"ANTHROPIC_API_KEY": "k"}, (None, None), "anthropic", "claude-haiku-4-5"),
        ({"GEMINI_API_KEY": "k"}, (None, None), "google", "gemini-3.8-flash"),
        ({"OPENAI_API_KEY": "k", "RXSTAGE_MODEL": "ollama:llama3.2"}, (None, None), "ollama", "llama3.2"),
        ({"RXSTAGE_MODEL": "ollama:llama3.2"}, ("local", None), "local", "script"),
        ({}, ("some:model", "http://localhost:1/v1"), "openai", "some:model"),
    ],
)
def test_the_choice(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: tuple[str | None, str | None],
    name: str,
    model: str,
) -> None:
    """The model is the one that is named, else that of the environment, else one that there is a key for."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    chosen = choose(*arguments)
    assert (chosen.provider.name, chosen.provider.model) == (name, model)
    assert chosen.default is (not variables and arguments == (None, None))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--model", "openai:gpt-5.2"], 1, "model 'openai:gpt-5.2' needs an API key: set OPENAI_API_KEY in the "),
        (["--model", "google:x"], 1, "model 'google:x' needs an API key: set GOOGLE_API_KEY or GEMINI_API_KEY in "),
        (["--model", "nope:x"], 2, "--model: 'nope:x' names no known provider"),
        (["--base-url", "localhost:1"], 2, "--base-url must be such as http://localhost:8080/v1, got 'localhost:1'"),
        (["--conversation", "a"], 2, "--conversation names one that is kept, and --store says where: give both"),
        (["--store", "what://is"], 2, "--store: 'what://is' names no store; "),
        (["--timeout", "0"], 2, "--timeout must be above 0 s, got 0.0"),
    ],
)
def test_what_cannot_be(arguments: list[str], code: int, told: str) -> None:
    """A wrong option or a missing key is told on one line."""
    result = chat(*arguments, said="hello\n")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"rxstage: {told}")
    assert result.stderr.count("\n") == 1


def test_a_key_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider without a name of a model is wrong usage."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    result = chat("--model", "openai", said="hello\n")
    assert (result.exit_code, result.stderr) == (2, "rxstage: which model? Write --model openai:NAME\n")


@pytest.mark.needs("module:openai")
def test_the_server_says_what_it_has(server: LlmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --base-url alone the first model of the server is asked, and no key gets there but one that is for it."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert chat("--base-url", server.url, said="a\n").stdout == "a, you said in message 1 to first.\n"
    assert chat("--base-url", server.url, "-m", "second", said="a\n").stdout.endswith("to second.\n")
    assert server.keys == {"none"}
    monkeypatch.setenv("RXSTAGE_API_KEY", "for it")
    assert chat("--base-url", server.url, said="a\n").exit_code == 0
    assert server.keys == {"none", "for it"}


@pytest.mark.needs("module:openai")
def test_a_server_without_a_model(server: LlmServer) -> None:
    """Where a server lists no model, or is not there, it is said what to do."""
    server.models = []
    result = chat("--base-url", server.url, said="a\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"rxstage: {server.url} has no model; name one with --model, or load one there\n"
    url = server.url.replace("/v1", "0/v1") if len(server.url) < 25 else "http://127.0.0.1:1/v1"
    result = chat("--base-url", url, said="a\n")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"rxstage: {url} does not list its models (")
    assert result.stderr.endswith("); name one with --model\n")


# ------------------------------------------------------------------------------------------ the session


class _Broken(MemoryStore):
    """A store that cannot be written, for a while."""

    broken = True

    async def append(self, conversation: str, entries: Any, *, version: int) -> int:
        if self.broken:
            raise StoreError("the disk is full")
        return await super().append(conversation, entries, version=version)


def test_a_store_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, played: Callable[..., ScriptedProvider]
) -> None:
    """The conversation goes on, and at its end it is said that not all of it is stored."""
    played("one", "two")
    monkeypatch.setattr(rxstage.cli.chat_talk, "_store", lambda _: _Broken())
    result = chat("--store", "memory://", said="a\nb\n")
    assert (result.exit_code, result.stdout) == (1, "one\ntwo\n")
    assert result.stderr == "rxstage: not all of the conversation could be stored: the disk is full\n"


@pytest.mark.needs("module:aiosqlite")
def test_a_store_that_cannot_be_read() -> None:
    """A store that cannot be read is told before anything is said."""
    result = chat("--model", "local", "--store", "sqlite:///gone/kept.db", said="hello\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("rxstage: the directory of the SQLite file ")
    assert result.stderr.count("\n") == 1


async def _said(session: Session, text: str) -> str:
    return "".join([element.text or "" async for element in session.ask(text)])


def test_an_interrupt_ends_the_turn() -> None:
    """An answer that is interrupted ends, is remembered as far as it came, and the next turn is answered."""
    provider = ScriptedProvider(Reply(text="one two three four", token_delay=1.0), "next")

    async def main() -> None:
        session = Session(Model(provider, "x"), MemoryStore(), "a")
        asyncio.get_running_loop().call_later(1.5, session.interrupt)
        assert await _said(session, "first") == "one two"
        assert session.interrupted
        assert await _said(session, "second") == "next"
        assert not session.interrupted
        await session.close()
        assert [(entry.message.role, entry.message.text) for entry in await session.entries()] == [
            ("user", "first"),
            ("assistant", "one two"),
            ("user", "second"),
            ("assistant", "next"),
        ]
        assert session.answers == 1

    run_virtual(main)


def test_an_interrupt_that_comes_late() -> None:
    """An interrupt with nothing to interrupt does no harm to the next turn."""

    async def main() -> None:
        session = Session(Model(ScriptedProvider("one", "two"), "x"), MemoryStore(), "a")
        session.interrupt()
        assert await _said(session, "first") == "one"
        assert await _said(session, "second") == "two"
        await session.stop()

    run_virtual(main)


class _Hanging(MemoryStore):
    """A store that does not answer when something is to be written."""

    async def append(self, conversation: str, entries: Any, *, version: int) -> int:
        await asyncio.sleep(1e4)
        return 0


def test_a_store_that_hangs() -> None:
    """An answer that cannot be stored can be interrupted, and leaving takes 11 s and says so."""

    async def main() -> None:
        session = Session(Model(ScriptedProvider("fine"), "x"), _Hanging(), "a")
        loop = asyncio.get_running_loop()
        loop.call_later(1.0, session.interrupt)
        assert await _said(session, "first") == "fine"
        await session.close()
        assert session.unsaved == "the store did not answer within 10 s"
        assert loop.time() < 12.5

    run_virtual(main)


def test_a_first_token_that_does_not_come() -> None:
    """A model that does not begin in time is a failed answer."""
    provider = ScriptedProvider(*[Reply(text="one", delay=100.0)] * 10)

    async def main() -> None:
        session = Session(Model(provider, "x"), MemoryStore(), "a", timeout=5.0)
        elements = [element async for element in session.ask("first")]
        assert elements[-1].failure is not None
        assert isinstance(elements[-1].failure.error, TimeoutError)
        await session.close()

    run_virtual(main)


# ------------------------------------------------------------------------------------------ drawing


def blocks_of(text: str, step: int) -> list[tuple[str, bool]]:
    """The blocks of a text that comes in pieces."""
    blocks = Blocks()
    found = []
    for start in range(0, len(text), step):
        blocks.feed(text[start : start + step])
        found += blocks.take()
    return [(block.source, block.joined) for block in [*found, *blocks.finish()]]


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_blocks(step: int) -> None:
    """Text falls into the same blocks however it is cut into pieces, and nothing of it is lost."""
    text = "# A\n\nb\nc\n\n1. d\n2. e\n   - f\n\n```\n\ng\n```\n| h |\n| - |\n| i |\n\n> j\n> k\n"
    blocks = blocks_of(text, step)
    assert [(source.strip(), joined) for source, joined in blocks] == [
        ("# A", False),
        ("b\nc", False),
        ("1. d", False),
        ("2. e\n   - f", True),
        ("```\n\ng\n```", False),
        ("| h |\n| - |\n| i |", False),
        ("> j\n> k", False),
    ]
    assert "".join(source for source, _ in blocks) == text


@pytest.mark.parametrize(
    "text",
    ["word " * 8000, "- item\n" * 6000, "```\n" + "x = 1\n" * 6000, "|a|b|\n|-|-|\n" + "|1|2|\n" * 3000, "x" * 20_000],
    ids=["paragraph", "list", "code", "table", "word"],
)
def test_what_is_open_is_bounded(text: str) -> None:
    """However long a paragraph, a list, code or a table becomes, little of it is looked at again."""
    blocks = Blocks()
    longest = seen = 0
    for start in range(0, len(text), 2000):
        blocks.feed(text[start : start + 2000])
        seen += sum(len(block.source) for block in blocks.take())
        longest = max(longest, len(blocks.open().source))
    assert longest <= 4000
    assert len(text) <= seen + len(blocks.open().source) < len(text) * 1.1


def test_heads_that_are_too_long() -> None:
    """A head that would have to be said again and is very long itself does not make it go on for ever."""
    assert len(blocks_of("```" + "x" * 9000 + "\n" + "y\n" * 9000, 500)) < 50
    assert len(blocks_of("|" + "a|" * 4000 + "\n|" + "-|" * 4000 + "\n" + "|1|\n" * 3000, 5000)) < 50


def drawn(text: str, step: int, columns: int, rows: int, *, pause: float = 0.1) -> tuple[list[str], str]:
    """What a terminal shows of an answer that comes in pieces, and what it was sent."""
    import pyte

    screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=1)
    stream = pyte.Stream(screen)
    sent: list[str] = []

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            sent.append(text)
            stream.feed(text)
            return len(text)

    async def main() -> None:
        console = Console(file=Out(), force_terminal=True, width=columns, height=rows, color_system="truecolor")
        live = MarkdownScreen(console)
        live.note("above")
        live.begin()
        for start in range(0, len(text), step):
            live.text(text[start : start + step])
            await asyncio.sleep(pause)
        live.finish()
        live.note("below")

    run_virtual(main)
    lines = [*screen.history.top, *(screen.buffer[row] for row in range(rows))]
    shown = ["".join(line[column].data for column in range(columns)).rstrip() for line in lines]
    return "\n".join(shown).rstrip().split("\n"), "".join(sent)


@pytest.mark.needs("module:pyte")
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 8), (13, 4)])
@pytest.mark.parametrize("step", [3, 40])
def test_drawing_does_not_depend_on_the_pieces(step: int, columns: int, rows: int) -> None:
    """What is seen in the end is what would have been drawn at once, on a screen that is too small, too."""
    text = LONG + "| a | b |\n| - | - |\n" + "| cell | 日本 |\n" * 20 + "\n> quoted\n> lines\n" * 3
    at_once, _ = drawn(text, len(text), columns, 2000)
    streamed, _ = drawn(text, step, columns, rows)
    assert streamed == at_once
    assert (streamed[0], streamed[-1]) == ("above", "below")


@pytest.mark.needs("module:pyte")
def test_drawing_writes_little() -> None:
    """Of an answer that comes word by word, only what changes is written again."""
    text = "A sentence of seven words or so.\n\n" * 100
    _, sent = drawn(text, 5, 80, 24)
    assert len(sent) < 15 * len(text)


@pytest.mark.needs("module:pyte")
def test_drawing_is_bounded_in_time() -> None:
    """Pieces that come faster than one can see are drawn together."""
    _, sent = drawn("word " * 2000, 5, 80, 24, pause=0.001)
    assert sent.count("\x1b[?7l") < 24 * 40


@pytest.mark.needs("module:pyte")
@pytest.mark.parametrize("text", [EVIL, f"```{EVIL}\n{EVIL}\n```", f"| {EVIL} |\n| - |", f"[{EVIL}](http://{EVIL})"])
def test_drawing_lets_nothing_through(text: str) -> None:
    """Nothing that a model says is an escape sequence, an entity or a link neither."""
    _, sent = drawn(text, 4, 60, 20)
    for evil in ("\x1b[31mred", "\x1b]", "\x07", "\x9b", "\x1b[33m end"):
        assert evil not in sent
    assert "evil" in sent


@pytest.mark.needs("module:pyte")
def test_what_is_drawn() -> None:
    """Markdown is drawn; HTML is shown as it is, links and images say where they lead, line breaks stay."""
    text = (
        "**b** ~~s~~ `c`\nbreak\n\n<b>html</b>\n\n[text](http://a/b) and ![image](http://c/d)\n\n"
        "9. nine\n10. ten\n\n---\n"
    )
    lines, sent = drawn(text, 3, 60, 30)
    assert lines[1:-2] == [
        "b s c",
        "break",
        "",
        "<b>html</b>",
        "",
        "text (http://a/b) and image (http://c/d)",
        "",
        "  9 nine",
        " 10 ten",
        "",
    ]
    assert lines[-2] == "─" * 60
    assert "\x1b[1mb\x1b[0m" in sent


@pytest.mark.needs("module:pyte")
def test_beside_the_answer() -> None:
    """A tool, a void answer and a table stand where they belong, and what was open is finished before them."""
    import pyte

    screen = pyte.Screen(40, 20)
    stream = pyte.Stream(screen)

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            stream.feed(text)
            return len(text)

    async def main() -> None:
        live = MarkdownScreen(Console(file=Out(), force_terminal=True, width=40, height=20))
        live.begin()
        assert screen.display[0].rstrip() == "…"
        live.call(ToolCall("f", {"x": 1}))
        assert [row.rstrip() for row in screen.display[:2]] == ["→ f(x=1)", "…"]
        live.result(ToolResult("", "no\x1b]0;", "f", is_error=True))
        live.text("open **text")
        await asyncio.sleep(1.0)
        live.void("it broke")
        live.text("again")
        live.finish()
        live.pairs({"a": "one", "bcd": "two"})
        live.verbatim("  as it is")
        live.markdown("*one*", "two")

    run_virtual(main)
    assert [row.rstrip() for row in screen.display[:12]] == [
        "→ f(x=1)",
        "← no\ufffd]0;",
        "what stands above of this answer is",
        "void, it begins again: it broke",
        "",
        "again",
        "a    one",
        "bcd  two",
        "  as it is",
        "one",
        "",
        "two",
    ]


def test_a_drawing_that_fails() -> None:
    """A terminal that is gone is noticed where the next piece comes."""

    class Gone(io.StringIO):
        gone = False

        def write(self, text: str) -> int:
            if self.gone:
                raise BrokenPipeError
            return len(text)

    async def main() -> None:
        out = Gone()
        live = MarkdownScreen(Console(file=out, force_terminal=True, width=40, height=10))
        live.begin()
        out.gone = True
        live.text("one")
        await asyncio.sleep(1.0)
        with pytest.raises(BrokenPipeError):
            live.text("two")

    run_virtual(main)


def test_the_painter_writes_what_changes() -> None:
    """Rows that stay the same are not written again; those that no longer fit are left out."""
    out = io.StringIO()
    painter = Painter(out, lambda: (20, 3))

    def painted(*arguments: list[str]) -> str:
        out.seek(0)
        out.truncate()
        painter.paint(*([Row(text, len(text)) for text in rows] for rows in arguments))
        return out.getvalue().replace("\x1b[?7l", "").replace("\x1b[?7h", "").replace("\x1b[K", "")

    assert painted([], ["a", "b"]) == "a\r\nb"
    assert painted([], ["a", "b"]) == ""
    assert painted([], ["a", "c"]) == "\rc"
    assert painted([], ["a", "c", "d"]) == "\r\x1b[1Ac\r\nd"  # two rows fit
    assert painted(["c"], ["e"]) == "\re"
    assert painted([], []) == "\r\x1b[J"
    assert painted(["f"], []) == "f\r\n"


# ------------------------------------------------------------------------------------------ texts and tools


def test_clean() -> None:
    """Control characters, marks that reorder text and halves of surrogates are replaced; the rest stays."""
    assert (
        clean("a\tb\nc\r\nd\x00\x1b[0m\x7f\x9b\u202e\u2066\ud800é日")
        == "a\tb\nc\nd\ufffd\ufffd[0m" + "\ufffd" * 4 + "?é日"
    )


def test_one_line() -> None:
    """A value is cut to columns, of which wide characters take two."""
    assert one_line("a\n  b", 10) == "a b"
    assert one_line("日本語のテキスト", 8) == "日本語…"
    assert one_line({"a": 1}, 10) == "{'a': 1}"


@pytest.mark.parametrize(
    ("expression", "value"),
    [("6 * 7", 42), ("(1 + 2) / 4", 0.75), ("2 ** 10 % 1000", 24), ("-7 // 2", -4), ("sqrt(16) + abs(-1)", 5)],
)
def test_calculate(expression: str, value: float) -> None:
    """Sums are calculated."""
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("__import__('os')", "cannot be calculated"),
        ("a.b", "cannot be calculated"),
        ("9 ** 9 ** 9", "the number is too large"),
        ("1e308 * 10", "is too large"),
        ("(-8) ** 0.5", "it has no real value"),
        ("1 / 0", "division by zero"),
        ("1 +", "is no arithmetic expression"),
        ("1 + " * 200 + "1", "longer than 500"),
    ],
)
def test_calculate_refuses(expression: str, why: str) -> None:
    """What is no arithmetic, or too much of it, is refused in words for the model."""
    with pytest.raises(ToolError, match=why):
        calculate(expression)


def test_now() -> None:
    """The time is told in the zone that is asked for."""
    assert now("Asia/Tokyo").endswith("JST (UTC+0900)")
    assert now().count(":") == 2
    with pytest.raises(ToolError, match="there is no time zone 'Nowhere'"):
        now("Nowhere")


def test_a_saved_call_is_harmless() -> None:
    """What tools were asked for stands in a saved conversation as code that cannot be left."""
    from rxstage.cli.chat_commands import to_markdown

    entry = Entry(Message.assistant("a\x1bb", tool_calls=(ToolCall("f", {"x": "`\n# no"}),)))
    assert to_markdown("c", [entry]) == "# c\n\n## Assistant\n\na\ufffdb\n\n`f(x=''\\n# no')`\n"


def test_an_error_of_a_command_names_its_file(place: Path) -> None:
    """An error of the choice can be caught as what it is."""
    with pytest.raises(CommandError, match="needs an API key"):
        choose("openai:gpt-5.2", None)
