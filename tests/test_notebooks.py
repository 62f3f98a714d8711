"""Every notebook runs from top to bottom, and says what it was committed with."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
NOTEBOOKS: Final = sorted((ROOT / "notebooks").glob("*.ipynb"))
NEEDED: Final = ("nbclient", "nbformat", "ipykernel")


@pytest.fixture(scope="module")
def refresh() -> ModuleType:
    """The module that runs notebooks; without what it needs the test is skipped, but never in CI."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        why = f"running notebooks needs {', '.join(missing)}: pip install -e '.[dev]'"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    spec = importlib.util.spec_from_file_location("refresh", ROOT / "notebooks" / "refresh.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, refresh: ModuleType) -> None:
    """It runs without an error, and its committed outputs are what it puts out, times and ids aside."""
    import nbformat

    committed: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    fresh = refresh.executed(path)
    kinds = {output.output_type for cell in fresh.cells for output in cell.get("outputs", ())}
    assert "error" not in kinds
    for new, old in zip(refresh.said(fresh), refresh.said(committed), strict=True):
        assert new == old, f"run notebooks/refresh.py; the outputs of {path.name} are no longer what it puts out"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_in_order(path: Path) -> None:
    """Its cells were run from top to bottom, and nothing in it tells of the machine that it ran on."""
    import json

    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert any(cell["outputs"] for cell in code)
    text = json.dumps([cell["outputs"] for cell in code])
    assert re.findall(r"(?:/home/|/root/|/tmp/|/work/|/Users/|[A-Z]:\\\\)[\w.-]*", text) == []


def test_there_are_notebooks() -> None:
    """The first one is there."""
    assert "01_first_pipeline" in [path.stem for path in NOTEBOOKS]
