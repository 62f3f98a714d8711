"""The README: its example runs and prints what it says, and its commands exist."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from rxstage.cli import main

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
LIMIT: Final = 120.0  # seconds for a command


def tasks(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tasks.py`."""
    command = [sys.executable, str(ROOT / "tasks.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_the_examples_print_what_they_say() -> None:
    """The Python of the README runs from top to bottom and prints the output that stands behind it."""
    blocks = re.findall(r"```python\n(.*?)```\n\n```output\n(.*?)```", README, re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "readme"}
    assert len(blocks) == README.count("```python") == 2
    for code, printed in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, namespace)
        assert out.getvalue() == printed


def test_the_first_example_is_short() -> None:
    """What stands under "Ten lines" has ten lines of statements, give or take the decoration."""
    match = re.search(r"## Ten lines\n\n```python\n(.*?)```", README, re.DOTALL)
    assert match is not None
    lines = [line for line in match[1].splitlines() if line.strip(" ()")]
    assert len(lines) <= 14


def test_both_commands_are_tasks() -> None:
    """The two commands of the README are tasks that `tasks.py --help` lists."""
    named = re.findall(r"^\$ python3 tasks\.py (\w+)$", README, re.MULTILINE)
    assert named == ["demo", "test"]
    result = tasks("--help")
    assert result.returncode == 0
    for name in named:
        assert re.search(rf"^    {name} ", result.stdout, re.MULTILINE)


def test_an_unknown_task_is_wrong_usage() -> None:
    """A task that does not exist is told on one line, and nothing is installed."""
    result = tasks("nonsense")
    assert result.returncode == 2
    assert result.stderr == "tasks.py: there is no task 'nonsense'; python3 tasks.py --help lists them\n"
    assert result.stdout == ""


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_links_lead_somewhere(target: str) -> None:
    """Each relative link of the README names a file or folder of the project."""
    assert (ROOT / target).exists()


def test_the_benchmark_block_is_marked() -> None:
    """The figures stand between two marks, where they can be renewed."""
    assert README.count("<!-- benchmarks -->") == README.count("<!-- /benchmarks -->") == 1
    assert README.index("<!-- benchmarks -->") < README.index("<!-- /benchmarks -->")


@pytest.mark.parametrize("name", re.findall(r"tasks\.py rxstage (\w+)", README))
def test_commands_of_the_command_line_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the README runs with `tasks.py rxstage` is a command of the command line."""
    assert main([name, "--help"]) == 0
    assert f"Usage: rxstage {name}" in capsys.readouterr().out
