"""The command line: `run`, `check`, `draw`, `bench`, and what all commands share."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import pytest
from typer.testing import CliRunner

import rxstage
import rxstage.bench
from rxstage import Message, StreamElement
from rxstage.bench import Row
from rxstage.cli import main
from rxstage.cli.app import app
from rxstage.wire import from_json, to_json

LIMIT: Final = 60.0  # seconds for one process
PIPES: Final = '''
"""Pipelines of all kinds."""
from rxstage import (
    Audio, Data, FilterStage, FlatMapStage, GenerateStage, Image, MapStage, Message, PassthroughStage, Parts, Pipeline,
    PipelineBuilder, SinkStage, Text,
)

def boom(text):
    raise ValueError(f"no {text}")

def ticks():
    yield from ("tick", "tock")

upper = MapStage("upper", str.upper, on=Text)
pipeline = Pipeline.of(upper, FilterStage("short", lambda text: len(text) < 9, on=Text), name="both")
broken = PipelineBuilder().chain("nowhere").connect(PassthroughStage("a"), "b")
clock = Pipeline.of(GenerateStage("ticks", ticks), name="clock")
nested = PipelineBuilder(name="nested").chain(clock, PassthroughStage("out"))
fails = MapStage("fails", boom, on=Text)
tells = MapStage("tells", boom, on=Text, on_error="emit")
other = FlatMapStage("other", lambda text: [
    Data({"n": 1}), Message.user("hi"), Audio(b"\\0\\0" * 80, 8000), Image(b"123"), Parts(("a", 2)),
], on=Text)
number = 7

class Kept:
    inner = pipeline

def make():
    return lambda: pipeline

def fan():
    return PipelineBuilder(name="fan").chain(PassthroughStage("in")).route(
        "in", (Text, upper), otherwise=PassthroughStage("rest")
    ).merge("upper", "rest", into=PassthroughStage("out")).branch("in", SinkStage("save", print))

def needs(something):
    return pipeline

async def later():
    return pipeline

def bad():
    return 1 / 0

def leaves():
    raise SystemExit(3)

def round_and_round():
    return round_and_round
'''

ONE: Final = "from rxstage import Pipeline, PassthroughStage\np = Pipeline.of(PassthroughStage('a'))"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with `pipes.py` and `in.txt`, the working directory; what is imported there is forgotten."""
    (tmp_path / "pipes.py").write_text(PIPES)
    (tmp_path / "in.txt").write_text("one\ntwo and more\nthree\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def invoke(*arguments: str, stdin: str | None = None) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(arguments), input=stdin)


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    options.setdefault("stdin", None if "input" in options else subprocess.DEVNULL)
    command = [sys.executable, "-m", "rxstage", *arguments]
    if "input" in options:
        del options["stdin"]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, **options)


# ------------------------------------------------------------------------------------------ all commands


def test_version() -> None:
    """--version says which it is."""
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"rxstage {rxstage.__version__}\n")


def test_help_lists_the_commands() -> None:
    """The help lists every command and the exit codes."""
    result = invoke("--help")
    assert result.exit_code == 0
    for name in ("demo", "run", "chat", "serve", "check", "draw", "bench"):
        assert f"\n  {name} " in result.stdout
    assert "Exit codes: 0 ok, 1 failed, 2 wrong usage, 130 interrupted by Ctrl-C." in result.stdout


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["run"], ["draw", "a", "b"], ["--nonsense"]])
def test_wrong_usage(arguments: list[str]) -> None:
    """Wrong usage has exit code 2."""
    assert invoke(*arguments).exit_code == 2
    assert main(arguments) == 2


def test_main_gives_the_exit_code(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`main` gives the exit code instead of leaving the process."""
    assert main(["check", "pipes:pipeline"]) == 0
    assert main(["check", "pipes:broken"]) == 1
    assert main(["check", "pipes:nothing"]) == 2
    assert capsys.readouterr().out.startswith("pipes:pipeline: ok, 2 stages, 1 edge\n")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_missing_extra(missing: str) -> None:
    """Without its packages the command line says which extra brings them."""
    code = f"import sys; sys.modules[{missing!r}] = None; from rxstage.cli import main; sys.exit(main(['--version']))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert result.returncode == 1
    assert result.stderr == f"rxstage: the command line needs {missing}: pip install 'rxstage[cli]'\n"


def test_entry_point() -> None:
    """The program that is installed is this one."""
    result = subprocess.run(
        [Path(sys.executable).with_name("rxstage"), "--version"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, f"rxstage {rxstage.__version__}\n")


# ------------------------------------------------------------------------------------------ targets


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("pipes:pipeline", "2 stages, 1 edge"),
        ("pipes.py:pipeline", "2 stages, 1 edge"),
        ("pipes:upper", "1 stage, 0 edges"),
        ("pipes:make", "2 stages, 1 edge"),
        ("pipes:fan", "5 stages, 5 edges"),
        ("pipes:Kept.inner", "2 stages, 1 edge"),
        ("pipes:nested", "2 stages, 1 edge"),
    ],
)
def test_targets(place: Path, target: str, told: str) -> None:
    """A pipeline, a builder, a stage or a function that gives one can be named, in a module or a file."""
    result = invoke("check", target)
    assert (result.exit_code, result.stdout) == (0, f"{target}: ok, {told}\n")


@pytest.mark.parametrize("target", ["one", "one.py", os.path.join(".", "one.py")])
def test_the_only_pipeline(place: Path, target: str) -> None:
    """The name can be left out where a module has one pipeline."""
    (place / "one.py").write_text(ONE)
    result = invoke("check", target)
    assert (result.exit_code, result.stdout) == (0, f"{target}: ok, 1 stage, 0 edges\n")


def test_a_file_hides_no_module(place: Path) -> None:
    """A file named like a module that is loaded does not take its place."""
    (place / "json.py").write_text(ONE)
    import json

    assert invoke("check", "json.py:p").exit_code == 0
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("target", "code", "told"),
    [
        ("gone:pipeline", 2, "there is no module 'gone' here or on the path"),
        ("gone.by:pipeline", 2, "there is no module 'gone.by' here or on the path"),
        ("sub/pipes:pipeline", 2, "there is no module 'sub/pipes' here or on the path; for a file write sub/pipes.py"),
        ("gone.py:pipeline", 2, "there is no file gone.py"),
        ("gone.json", 2, "gone.json cannot be read: No such file or directory"),
        ("pipes:pipelin", 2, "pipes has no 'pipelin'; did you mean 'pipeline'?"),
        ("pipes:zzz", 2, "pipes has no 'zzz'"),
        ("pipes:", 2, "'pipes:': write module:name or path/to/file.py:name"),
        (":pipeline", 2, "':pipeline': write module:name or path/to/file.py:name"),
        ("pipes", 2, "pipes has 4 pipelines at its top; write one of pipes:pipeline, pipes:broken, pipes:clock, "),
        ("empty", 2, "empty has no pipelines at its top; write empty:NAME"),
        ("pipes:number", 2, "pipes:number is of type int; name a pipeline, a builder, a stage, or a function "),
        ("pipes:Kept", 2, "pipes:Kept is of type type; name a pipeline"),
        ("pipes:needs", 2, "pipes:needs is a function that needs arguments; name"),
        ("pipes:later", 2, "pipes:later is an async function; name"),
        ("pipes:round_and_round", 2, "pipes:round_and_round is of type function; name"),
        ("pipes:bad", 1, "pipes:bad failed when it was called: ZeroDivisionError: division by zero (/"),
        (
            "pipes:leaves",
            1,
            "pipes:leaves failed when it was called: it exits (3); put its main part under if __name__",
        ),
        ("raises:x", 1, "module 'raises' cannot be imported: KeyError: 'x' (/"),
        ("syntax.py:x", 1, "syntax.py cannot be imported: SyntaxError: "),
        ("policy.py:x", 1, "policy.py cannot be imported: a made-up trouble"),
    ],
)
def test_targets_that_are_none(place: Path, target: str, code: int, told: str) -> None:
    """What cannot be named, imported or called is told on one line that says what to do."""
    (place / "empty.py").write_text("")
    (place / "raises.py").write_text("{}['x']")
    (place / "syntax.py").write_text("def f(:")
    (place / "policy.py").write_text("from rxstage import RxStageError\nraise RxStageError('a made-up trouble')")
    result = invoke("check", target)
    assert result.exit_code == code
    assert result.stderr.startswith(f"rxstage: {told}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_spec(place: Path) -> None:
    """A pipeline can be named by its spec in a JSON file."""
    pipeline = rxstage.Pipeline.of(rxstage.PassthroughStage("a"), name="spec")
    (place / "spec.json").write_text(pipeline.to_spec().model_dump_json())
    result = invoke("check", "spec.json")
    assert (result.exit_code, result.stdout) == (0, "spec.json: ok, 1 stage, 0 edges\n")


# ------------------------------------------------------------------------------------------ check


def test_check_tells_every_problem(place: Path) -> None:
    """Each problem of a pipeline stands on a line of its own."""
    result = invoke("check", "pipes:broken")
    assert result.exit_code == 1
    assert [line.split(": ")[:2] for line in result.stdout.splitlines()] == [["pipes:broken", "unknown_name"]] * 2
    assert result.stderr == "rxstage: pipes:broken has 2 problems\n"


def test_check_process(place: Path) -> None:
    """`python -m rxstage check` works as a program."""
    result = process("check", "pipes:pipeline")
    assert (result.returncode, result.stdout, result.stderr) == (0, "pipes:pipeline: ok, 2 stages, 1 edge\n", "")


# ------------------------------------------------------------------------------------------ draw


def test_draw_text(place: Path) -> None:
    """In words a pipeline has one line per stage, with what follows it."""
    result = invoke("draw", "pipes:fan")
    assert result.exit_code == 0
    rows = [line.split(" -> ") for line in result.stdout.splitlines()]
    assert rows[0] == ["fan: 5 stages, 5 edges"]
    assert {row[0].split()[0]: row[1] for row in rows[1:]} == {
        "in": "upper [1: Text], rest [otherwise], save",
        "upper": "out",
        "rest": "out",
        "save": "(sink)",
        "out": "(output)",
    }


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        (["--format", "svg"], "<svg"),
        (["--format", "mermaid"], "flowchart LR\n"),
        (["--format", "text"], "both: 2 stages, 1 edge\n"),
    ],
)
def test_draw_formats(place: Path, arguments: list[str], begins: str) -> None:
    """A pipeline is drawn in the format that is asked for."""
    result = invoke("draw", "pipes:pipeline", *arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith(begins)
    assert result.stdout.endswith("\n")


@pytest.mark.parametrize(
    ("name", "begins"), [("a.svg", "<svg"), ("a.mmd", "flowchart"), ("a.txt", "both: 2"), ("a", "both: 2")]
)
def test_draw_to_a_file(place: Path, name: str, begins: str) -> None:
    """Into a file a pipeline is drawn as its suffix says."""
    result = invoke("draw", "pipes:pipeline", "--out", name)
    assert (result.exit_code, result.stdout) == (0, "")
    assert (place / name).read_text(encoding="utf-8").startswith(begins)


def test_draw_nowhere(place: Path) -> None:
    """A file that cannot be written is told on one line."""
    result = invoke("draw", "pipes:pipeline", "--out", os.path.join("gone", "a.svg"))
    assert result.exit_code == 1
    assert result.stderr == f"rxstage: {os.path.join('gone', 'a.svg')}: No such file or directory\n"


def test_draw_broken(place: Path) -> None:
    """The problems of a pipeline that cannot be built are told."""
    result = invoke("draw", "pipes:broken")
    assert result.exit_code == 1
    assert result.stderr.count("rxstage: ") == 2


def test_draw_process(place: Path) -> None:
    """`python -m rxstage draw` works as a program."""
    result = process("draw", "pipes:pipeline", "--format", "mermaid")
    assert result.returncode == 0
    assert result.stdout.startswith("flowchart LR\n")


# ------------------------------------------------------------------------------------------ run


def test_run_a_file(place: Path) -> None:
    """The lines of a file go in, the texts that come out are lines."""
    result = invoke("run", "pipes:pipeline", "in.txt")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "ONE\nTHREE\n", "")


@pytest.mark.parametrize("target", ["pipes:clock", "pipes:nested"])
def test_run_without_an_input(place: Path, target: str) -> None:
    """A pipeline that generates needs no input."""
    result = invoke("run", target)
    assert (result.exit_code, result.stdout) == (0, "tick\ntock\n")


def test_run_lacks_an_input(place: Path) -> None:
    """A pipeline that reads and has nothing to read is wrong usage."""
    result = invoke("run", "pipes:upper")
    assert result.exit_code == 2
    assert result.stderr == "rxstage: pipes:upper reads an input and there is none: name a FILE, or pipe one in\n"


def test_run_shows_anything(place: Path) -> None:
    """Whatever is no text is shown in one line."""
    (place / "in.txt").write_text("x\n")
    result = invoke("run", "pipes:other", "in.txt")
    assert result.stdout.splitlines() == [
        "{'n': 1}",
        "user: hi",
        "<audio: 0.010 s, 8000 Hz, 1 channel>",
        "<image/png: 3 bytes>",
        "a 2",
    ]


def test_run_fails(place: Path) -> None:
    """A stage that raises ends it with one line that says where."""
    result = invoke("run", "pipes:fails", "in.txt")
    assert result.exit_code == 1
    assert result.stderr.startswith("rxstage: stage 'fails' (TRANSFORM) failed on StreamElement(")
    assert "ValueError: no one (" in result.stderr
    assert result.stderr.endswith("pipes.py:9)\n")
    assert result.stderr.count("\n") == 1


def test_run_tells_failures(place: Path) -> None:
    """Failures that a stage passes on are told, and are no failure of the run."""
    result = invoke("run", "pipes:tells", "in.txt")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.count("rxstage: stage 'tells' passed on a failure: ValueError: no ") == 3


def test_run_in_time(place: Path) -> None:
    """--timeout ends what takes too long, and says what was in work."""
    (place / "waits.py").write_text(
        "import asyncio\nfrom rxstage import MapStage, Text\n"
        "async def wait(text): await asyncio.Event().wait()\nwaits = MapStage('waits', wait, on=Text)\n"
    )
    result = invoke("run", "waits:waits", "in.txt", "--timeout", "0.05")
    assert result.exit_code == 1
    assert result.stderr.startswith("rxstage: the execution took longer than 0.05 s; stage 'waits': ")


@pytest.mark.parametrize("timeout", ["0", "-1"])
def test_run_in_no_time(place: Path, timeout: str) -> None:
    """A time limit has to be positive."""
    result = invoke("run", "pipes:upper", "in.txt", "--timeout", timeout)
    assert result.exit_code == 2
    assert result.stderr == f"rxstage: --timeout must be above 0 s, got {float(timeout)}\n"


def test_run_json(place: Path) -> None:
    """--json prints the report alone."""
    result = invoke("run", "pipes:pipeline", "in.txt", "--json")
    report = msgspec.json.decode(result.stdout)
    assert (report["pipeline"], report["source"], report["state"]) == ("both", "in.txt", "completed")
    assert (report["received"], report["emitted"]) == (3, 2)
    assert report["stages"]["short"]["p50"] > 0


def test_run_json_of_a_failure(place: Path) -> None:
    """A failed run reports what it failed with."""
    result = invoke("run", "pipes:fails", "in.txt", "--json")
    assert result.exit_code == 1
    report = msgspec.json.decode(result.stdout)
    assert report["state"] == "failed"
    assert report["error"].startswith("StageError: stage 'fails'")


def test_run_metrics(place: Path) -> None:
    """--metrics prints the table to standard error, apart from the elements."""
    result = invoke("run", "pipes:pipeline", "in.txt", "--metrics")
    assert result.stdout == "ONE\nTHREE\n"
    assert "│ short │  3 │   2 │" in result.stderr
    assert "completed: 3 elements from in.txt in, 2 out, in " in result.stderr


def test_run_wire(place: Path) -> None:
    """With --wire elements come in and go out in their wire form, controls too."""
    given = [StreamElement.of("one"), StreamElement.end_of_turn(), StreamElement.of(Message.user("hi"))]
    (place / "in.jsonl").write_bytes(b"\n\n".join(map(to_json, given)))
    result = invoke("run", "pipes:upper", "in.jsonl", "--wire")
    assert result.exit_code == 0
    got = [from_json(line) for line in result.stdout.splitlines()]
    assert [element.content for element in got] == [
        StreamElement.of("ONE").content,
        given[1].content,
        given[2].content,
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"rxstage": 1, "content": {"kind": "text", "text": "a"}}\nnonsense\n', "in.jsonl, line 2: "),
        (b"RIFF", "in.jsonl is no WAV file that can be read"),
    ],
)
def test_run_broken_wire(place: Path, content: bytes, told: str) -> None:
    """A line that is no element is told with its number."""
    (place / "in.jsonl").write_bytes(content)
    result = invoke("run", "pipes:upper", "in.jsonl", "--wire")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"rxstage: {told}")
    assert result.stderr.count("\n") == 1


def test_run_process_in_a_pipe(place: Path) -> None:
    """What is piped in is read, and wire form goes from one process to the next."""
    lines = to_json(StreamElement.of("one")).decode() + "\n"
    result = process("run", "pipes:upper", "--wire", input=lines)
    assert result.returncode == 0
    assert from_json(result.stdout).text == "ONE"
    result = process("run", "pipes:pipeline", input="a\nb\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "A\nB\n", "")


# ------------------------------------------------------------------------------------------ bench


def test_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark table is printed in full, with what is met and what is not."""
    asked: list[bool] = []

    def run_table(quick: bool = False) -> list[Row]:
        asked.append(quick)
        return [
            Row("ten maps / plain loop", 1.234, "×", 1.6, 1.2, "1 / 2 ns"),
            Row("import", 2.5, "×", 1.5, None),
            Row("build", 0.1, "s", None, None, "a note " * 20),
        ]

    monkeypatch.setattr(rxstage.bench, "run_table", run_table)
    result = invoke("bench", "--quick")
    assert result.exit_code == 0
    assert asked == [True]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert cells == [
        ["ten maps / plain loop", "1.23 × ✓", "1.6", "1.2", "1 / 2 ns"],
        ["import", "2.5 × ✗", "1.5", "–", ""],
        ["build", "0.1 s", "–", "–", ("a note " * 20).strip()],
    ]


# ------------------------------------------------------------------------------------------ signals and pipes


def read_until(stream: IO[bytes], wanted: bytes) -> bytes:
    """What a process writes, up to something that must come within the limit."""
    seen = b""
    end = time.monotonic() + LIMIT
    while wanted not in seen:
        assert select.select([stream], [], [], max(end - time.monotonic(), 0.0))[0], seen
        got = os.read(stream.fileno(), 65536)
        assert got, seen
        seen += got
    return seen


@contextmanager
def start(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command line as a process whose pipes are ours; it does not outlive the block."""
    # What a shell starts in the background ignores Ctrl-C, and so would all that is started from there.
    heard = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('rxstage', run_name='__main__')"
    )
    command = [sys.executable, "-c", heard, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.skipif(os.name != "posix", reason="signals and select on pipes are POSIX")
def test_ctrl_c_ends_with_the_table() -> None:
    """Ctrl-C while the input is still open ends the demo with its table, and no traceback."""
    with start("demo") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"# First\n")
        seen = read_until(running.stdout, b"heading     First\n")
        running.send_signal(signal.SIGINT)
        out, error = running.communicate(timeout=LIMIT)
    assert running.returncode == 130
    assert error == b""
    table = (seen + out).decode()
    assert "│ heading    │  1 │   1 │" in table
    assert "cancelled: 1 elements from <stdin> in, 1 out, in " in table


@pytest.mark.skipif(os.name != "posix", reason="signals and select on pipes are POSIX")
def test_ctrl_c_ends_a_run(place: Path) -> None:
    """Ctrl-C ends a run whose input is still open; what came before has been written."""
    with start("run", "pipes:upper") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"first\n")
        assert read_until(running.stdout, b"FIRST\n") == b"FIRST\n"
        running.send_signal(signal.SIGINT)
        out, error = running.communicate(timeout=LIMIT)
    assert (running.returncode, out, error) == (130, b"", b"")


@pytest.mark.skipif(os.name != "posix", reason="signals and select on pipes are POSIX")
@pytest.mark.parametrize("arguments", [["demo", "big.txt"], ["run", "pipes:upper", "big.txt"], ["draw", "big.py"]])
def test_closed_pipe(place: Path, arguments: list[str]) -> None:
    """A reader that goes away, as `head` does, ends a command without a word."""
    (place / "big.txt").write_text("# line\n" * 40_000)
    (place / "big.py").write_text(
        "from rxstage import PassthroughStage, Pipeline\n"
        "p = Pipeline.of(*[PassthroughStage(f'stage {i}') for i in range(4000)])\n"
    )
    with start(*arguments) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdin.close()
        read_until(running.stdout, b"\n")
        running.stdout.close()
        error = running.stderr.read()
        assert running.wait(LIMIT) == 0
    assert error == b""


def test_piped_text() -> None:
    """The demo reads what is piped in."""
    result = process("demo", "--no-metrics", input="# Piped\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("     1  heading     Piped\n")


def test_demo_without_an_input() -> None:
    """With nothing on standard input the demo shows the README and its table."""
    result = process("demo")
    assert (result.returncode, result.stderr) == (0, "")
    assert "heading     rxstage\n" in result.stdout
    assert "completed: " in result.stdout
