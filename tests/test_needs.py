"""The marker `needs`: a test without its program is skipped, and fails in the continuous integration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = """
import pytest

@pytest.mark.needs("python-of-the-moon")
def test_program():
    assert False

@pytest.mark.needs("module:json", "module:moon.phases")
def test_module():
    assert False

@pytest.mark.needs("module:json")
def test_there():
    assert True
"""


@pytest.mark.parametrize(("ci", "told"), [("", "1 passed, 2 skipped"), ("true", "1 passed, 2 errors")])
def test_needs(tmp_path: Path, ci: str, told: str) -> None:
    """What is missing skips a test, and with CI=true it is an error; what is there lets it run."""
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(_TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nstrict = true\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rsE", str(tmp_path)]
    environment = {**os.environ, "CI": ci}
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment, check=False
    )
    assert told in ran.stdout, ran.stdout + ran.stderr
    assert "needs python-of-the-moon" in ran.stdout
    assert "needs module:moon.phases" in ran.stdout
