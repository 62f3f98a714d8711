"""The fixtures for pytest, in a session of their own."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rxstage.testing

_TESTS = """
import asyncio
import pytest
from rxstage import MapStage, Pipeline, Text

left = []

def test_time(virtual_loop):
    virtual_loop.run_until_complete(asyncio.sleep(3600))
    assert virtual_loop.time() == 3600

def test_left(virtual_loop):
    left.append(virtual_loop.create_task(asyncio.sleep(3600)))

def test_clean(leak_check):
    assert Pipeline.of(MapStage("u", str.upper, on=Text)).run(["a"]).text == "A"

def test_thread(leak_check):
    import threading
    left.append(threading.Event())
    threading.Thread(target=left[-1].wait, args=(60,), daemon=True).start()

def test_end():
    left[-1].set()
"""


def test_fixtures(tmp_path: Path) -> None:
    """Both fixtures work, and fail tests that leave something behind."""
    (tmp_path / "test_it.py").write_text(_TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugins = importlib.metadata.entry_points(group="pytest11")
    by_itself = [] if any(each.name == "rxstage" for each in plugins) else ["-p", "rxstage.testing.plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *by_itself, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert "5 passed, 2 errors" in ran.stdout, ran.stdout + ran.stderr
    assert "tasks were left behind" in ran.stdout
    assert "the block left behind" in ran.stdout


def test_entry_point() -> None:
    """The package declares its plugin."""
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert declared["project"]["entry-points"]["pytest11"] == {"rxstage": "rxstage.testing.plugin"}


def test_names() -> None:
    """Every name of the package is there, the lazy ones too, and no other."""
    for name in rxstage.testing.__all__:
        assert getattr(rxstage.testing, name).__name__ == name if name != "LAWS" else rxstage.testing.LAWS
    assert set(rxstage.testing.__all__) <= set(dir(rxstage.testing))
    assert rxstage.testing.__all__ == sorted(rxstage.testing.__all__, key=lambda n: (not n.isupper(), n.islower(), n))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = rxstage.testing.nonsense


def test_light() -> None:
    """What only tests of stages need is not imported with the plugin."""
    heavy = ("reactivex.testing", "hypothesis", "rxstage.testing.laws", "rxstage.testing.marbles")
    code = f"import sys, rxstage.testing.plugin; print([name for name in sys.modules if name in {heavy}])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
