"""Real servers for the tests of the stores: started when a test asks for one, stopped at the end of the session."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

__all__ = [
    "PostgresServer",
    "RedisServer",
    "Server",
    "own_postgres_server",
    "own_redis_server",
    "postgres_server",
    "redis_server",
]

_Server = TypeVar("_Server", bound="Server")

_READY: Final = 30.0  # seconds for a server to come up or go down


class Server:
    """A server process in a directory of its own, reached by a socket in it."""

    url: str

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rxs", dir="/tmp"))  # the path of a socket has to be short
        self.directory.chmod(0o755)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        deadline = time.monotonic() + _READY
        while True:
            if self.process is None or self.process.poll() is not None:
                self.process = self._launch()  # again, where what was killed had not quite gone
            if self._answers():
                return
            if time.monotonic() > deadline:
                log = (self.directory / "log").read_text()
                pytest.fail(f"{type(self).__name__} does not come up: {log[-2000:]}")  # its fixture stops it
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it and remove what it has left."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, by: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(by)
        try:
            process.wait(_READY)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_READY)

    def _launch(self) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _run(self, *command: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options
            )


class RedisServer(Server):
    """redis-server on a Unix socket; what it holds is in memory, unless it is to be kept."""

    def __init__(self, *, keep: bool = False) -> None:
        super().__init__()
        self._keep = keep
        self.url = f"unix://{self.directory}/redis.sock"

    def _launch(self) -> subprocess.Popen[bytes]:
        options = {
            "port": "0",
            "unixsocket": f"{self.directory}/redis.sock",
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes" if self._keep else "no",
        }
        return self._run("redis-server", *(part for name, value in options.items() for part in (f"--{name}", value)))

    def _answers(self) -> bool:
        import redis

        client = redis.Redis.from_url(self.url, socket_timeout=1.0)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


class PostgresServer(Server):
    """PostgreSQL on a Unix socket, with everything that keeps data through a power cut turned off."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"postgresql://postgres@/postgres?host={self.directory}"
        self._bin = _postgres_binaries()
        assert self._bin is not None
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:  # which it refuses to run as
            import pwd

            entry = pwd.getpwnam("postgres")
            self._user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
        data = self.directory / "data"
        options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        made = self._run(self._bin / "initdb", "-D", data, *options, cwd=self.directory, **self._user)
        assert made.wait(_READY) == 0, (self.directory / "log").read_text()

    def _launch(self) -> subprocess.Popen[bytes]:
        assert self._bin is not None
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "50",
            "shared_buffers": "16MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        data = self.directory / "data"
        return self._run(self._bin / "postgres", "-D", data, *options, cwd=self.directory, **self._user)

    def _answers(self) -> bool:
        assert self._bin is not None
        command = (str(self._bin / "pg_isready"), "-q", "-h", str(self.directory), "-U", "postgres")
        return subprocess.run(command, check=False, timeout=_READY, cwd="/").returncode == 0


def _postgres_binaries() -> Path | None:
    """Where the programs of PostgreSQL are: on the path, or where Debian puts them; the newest."""
    if (found := shutil.which("postgres")) is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


def _started(server_kind: Callable[[], _Server]) -> Iterator[_Server]:
    server = server_kind()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server, for all tests of the session."""
    _need_redis()
    yield from _started(RedisServer)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server, for all tests of the session."""
    _need_postgres()
    yield from _started(PostgresServer)


@pytest.fixture
def own_redis_server() -> Iterator[RedisServer]:
    """A Redis server for one test that does it harm, and that keeps what it has been told."""
    _need_redis()
    yield from _started(lambda: RedisServer(keep=True))


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for one test that does it harm."""
    _need_postgres()
    yield from _started(PostgresServer)


def _need_redis() -> None:
    if shutil.which("redis-server") is None:
        _missing("redis-server")


def _need_postgres() -> None:
    if _postgres_binaries() is None:
        _missing("postgres")


def _missing(what: str) -> None:
    """Skip a test for what it lacks, or fail it where nothing may be lacking, as the mark `needs` does."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"needs {what}, which the continuous integration has to install", pytrace=False)
    pytest.skip(f"needs {what}")
