"""Puts `forms` on the path of every test, and has tests say which programs and modules they need."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Declare our marker."""
    config.addinivalue_line(
        "markers",
        "needs(*names): programs on the path, or modules as 'module:name', without which the test is skipped; "
        "where CI=true it fails instead",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that lacks something, or fail it where nothing may be lacking."""
    missing = [name for mark in item.iter_markers("needs") for name in mark.args if not _present(name)]
    if not missing:
        return
    message = f"needs {', '.join(missing)}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{message}, which the continuous integration has to install", pytrace=False)
    pytest.skip(message)


def _present(name: str) -> bool:
    kind, colon, module = name.partition(":")
    if colon and kind == "module":
        try:
            return find_spec(module) is not None
        except ModuleNotFoundError:  # what it is in is missing too
            return False
    return shutil.which(name) is not None
