"""aimock, a server that speaks the APIs of OpenAI, Anthropic and Google: started for a test, stopped after it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

__all__ = ["Mock", "running"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_HOW: Final = "npm install @copilotkit/aimock, and put node_modules/.bin on the path or its llmock into RXSTAGE_AIMOCK"
_START: Final = 60.0  # seconds that a busy machine may take


class Mock:
    """A running server.

    Attributes:
        url: its address.
        key: the API key that the tests use; it means nothing to the server.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = f"sk-secret-{uuid.uuid4().hex}"

    def get(self, path: str) -> Any:
        """What the server answers to a GET, decoded."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: object = None) -> None:
        """Send JSON to the server's own interface."""
        data = json.dumps(body if body is not None else {}).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()

    def forget(self) -> None:
        """Empty the journal, and count matches from zero."""
        self.post("/__aimock/reset/journal")

    def journal(self, path: str = "") -> list[dict[str, Any]]:
        """The requests that the server has had, oldest first, each with `path`, `headers` and `body`."""
        told = self.get("/__aimock/journal")
        entries = told if isinstance(told, list) else told["entries"]
        return [entry for entry in entries if entry["method"] == "POST" and path in entry["path"]]


def binary() -> str | None:
    """Where the program is, or None."""
    places = (os.environ.get("RXSTAGE_AIMOCK"), shutil.which("llmock"), str(_ROOT / "node_modules" / ".bin" / "llmock"))
    return next((place for place in places if place and Path(place).is_file()), None)


@contextmanager
def running(fixtures: list[dict[str, Any]], folder: Path) -> Iterator[Mock]:
    """A server with these answers; the test is skipped where the program is missing, and fails where CI=true."""
    program = binary()
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the tests of providers need aimock: {_HOW}", pytrace=False)
        pytest.skip(f"needs aimock: {_HOW}")
    (folder / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "log").open("wb") as log:
        command = [program, "-p", str(port), "-f", str(folder), "--log-level", "warn"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            mock = Mock(f"http://127.0.0.1:{port}")
            _wait(mock, process, folder / "log")
            yield mock
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _wait(mock: Mock, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            mock.get("/health")
            return
        except (urllib.error.URLError, OSError, ValueError):
            assert process.poll() is None, f"aimock ended:\n{log.read_text(encoding='utf-8')}"
            assert time.monotonic() < deadline, f"aimock did not start:\n{log.read_text(encoding='utf-8')}"
            time.sleep(0.05)
