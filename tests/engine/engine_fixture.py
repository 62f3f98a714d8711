"""The fixture `engine`: a server that nobody here wrote, with a tiny model that is made on the spot.

A test module in this folder takes it with `pytest_plugins = ["engine_fixture"]`; all that do share one server.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

__all__ = ["Engine", "engine", "interpreter", "served"]

_HERE: Final = Path(__file__).resolve().parent
_ROOT: Final = _HERE.parents[1]
_ENVIRONMENT: Final = _ROOT / ".venv-engine"
_HOW: Final = (
    "python3 -m venv .venv-engine && .venv-engine/bin/pip install -r tests/engine/requirements.txt, "
    "or name an interpreter that has all that in RXSTAGE_ENGINE_PYTHON"
)
_MODEL: Final = "tiny-qwen3"
_MADE_BY: Final = ("lessons.py", "tiny_model.py", "requirements.txt")
_START: Final = 100.0  # seconds that training and start may take on a busy machine; below the time limit of a test
_STOP: Final = 10.0
_READY: Final = re.compile(r"running on (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class Engine:
    """A server that speaks OpenAI's API.

    Attributes:
        base_url: what clients want as such.
        model: the name of the only model that it serves.
        log: the file with all that it says.
    """

    base_url: str
    model: str
    log: Path


def interpreter() -> str | None:
    """The Python that has what the engine needs, or None."""
    if chosen := os.environ.get("RXSTAGE_ENGINE_PYTHON"):
        return chosen
    if find_spec("torch") is not None and find_spec("transformers") is not None:
        return sys.executable
    own = _ENVIRONMENT.joinpath(*(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))
    return str(own) if own.exists() else None


@contextmanager
def served(python: str, models: Path, directory: Path) -> Iterator[Engine]:
    """A server that is ready, with its model in `models`, where one may be already, and the rest in `directory`."""
    log = directory / "engine.log"
    environment = {
        **os.environ,
        "HF_HOME": str(directory / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # more wait for each other longer than they save
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUTF8": "1",
    }
    command = [python, str(_HERE / "tiny_server.py"), str(models), _MODEL]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment
        ) as process,
    ):
        try:
            yield Engine(f"{_address(process, log)}/v1", _MODEL, log)
        finally:
            process.terminate()
            try:
                process.wait(_STOP)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the server listens, as soon as it does."""
    until = time.monotonic() + _START
    while time.monotonic() < until:
        if ready := _READY.search(log.read_text(encoding="utf-8", errors="replace")):
            return ready[1]
        try:
            code = process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the engine ended with {code}:\n{_end_of(log)}", pytrace=False)
    pytest.fail(f"the engine was not ready in {_START} s:\n{_end_of(log)}", pytrace=False)


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-5000:]


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The server; a test is skipped where it is not installed, and fails where CI=true."""
    python = interpreter()
    if python is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the tests of a real engine need it installed: {_HOW}", pytrace=False)
        pytest.skip(f"needs a real engine: {_HOW}")
    directory = tmp_path_factory.mktemp("engine")
    with served(python, _models(request.config, directory), directory) as engine:
        yield engine


def _models(config: pytest.Config, otherwise: Path) -> Path:
    """Where the model is kept until something changes that it is made by: pytest's cache, if there is one."""
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is None:
        return otherwise
    made_by = hashlib.sha256(b"".join(_HERE.joinpath(name).read_bytes() for name in _MADE_BY))
    return cache.mkdir(f"engine-{made_by.hexdigest()[:16]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the server has said beside a test that failed with it."""
    report = yield
    used = getattr(item, "funcargs", {}).get("engine")
    if report.failed and isinstance(used, Engine):
        report.sections.append(("engine", _end_of(used.log)))
    return report
