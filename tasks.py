#!/usr/bin/env python3
"""Set up and run rxstage from a checkout: `python3 tasks.py demo`, `python3 tasks.py test`.

Needs Python 3.11 or newer and pip, nothing else. What is needed is installed into the virtual environment that is
active, or into `.venv` in the checkout, which is made at the first run; later runs start at once.

    demo [ARGS]      stream a file (by default the README) through a pipeline; `demo --help` says more
    test [ARGS]      run the tests; ARGS go to pytest
    check            lint, format, types and layers
    coverage [ARGS]  run the tests and say which lines and branches they miss
    docs             build the documentation into docs/_build
    rxstage ARGS     run the command line of the library: `rxstage bench`, `rxstage --help`
    setup            only install

RXSTAGE_VENV names another directory than `.venv`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

ROOT = os.path.dirname(os.path.abspath(__file__))
OLDEST = (3, 11)
CHECKS = (
    ("-m", "ruff", "check", "."),
    ("-m", "ruff", "format", "--check", "."),
    ("-m", "mypy"),
    ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"),  # it has no __main__
)


def main(arguments: list[str]) -> int:
    """Do what the arguments say; gives the exit code."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if command not in ("demo", "test", "check", "coverage", "docs", "rxstage", "setup"):
        return fail(f"there is no task {command!r}; python3 tasks.py --help lists them", 2)
    if sys.version_info < OLDEST:
        return with_newer_python(arguments)
    python = prepare(needed(command, rest))
    if python is None:
        return 1
    if command == "demo":
        return become(python, "-m", "rxstage", "demo", *rest)
    if command == "rxstage":
        return become(python, "-m", "rxstage", *rest)
    os.chdir(ROOT)
    if command == "test":
        return become(python, "-m", "pytest", *rest)
    if command == "docs":
        return become(python, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "docs", os.path.join("docs", "_build"))
    if command == "check":
        return in_turn([(python, *check) for check in CHECKS])
    if command == "coverage":
        tests = (python, "-m", "coverage", "run", "-m", "pytest", *rest)
        return in_turn([tests, (python, "-m", "coverage", "report")])
    return 0


def needed(command: str, rest: list[str]) -> str:
    """The extra that a command needs."""
    if command not in ("demo", "rxstage"):
        return "dev"
    words = [command, *rest] if command == "demo" else rest
    if words[:1] in (["chat"], ["serve"]):
        return words[0]
    if words[:1] == ["bench"]:
        return "all"
    return "voice" if words[:2] == ["demo", "voice"] else "cli"


def fail(message: str, code: int = 1) -> int:
    """Say what is wrong."""
    print(f"tasks.py: {message}", file=sys.stderr)
    return code


# ------------------------------------------------------------------------------------------ running


def become(*command: str) -> int:
    """Run a program in our place, so that Ctrl-C and closed pipes are its own affair."""
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it has got it too, and ends as it likes
            continue


def in_turn(commands: list[tuple[str, ...]]) -> int:
    """Run all the programs, whatever becomes of the first; 1 if one failed."""
    failed = []
    for command in commands:
        name = " ".join(command[1:])
        print(f"$ python {name}", flush=True)
        if subprocess.call(command):
            failed.append(name)
    return fail(f"failed: {'; '.join(failed)}") if failed else 0


def with_newer_python(arguments: list[str]) -> int:
    """This Python is too old: go on with a newer one, if there is one."""
    for minor in range(20, OLDEST[1] - 1, -1):
        python = shutil.which(f"python3.{minor}")
        if python and not subprocess.call([python, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            return become(python, os.path.abspath(__file__), *arguments)
    have = ".".join(map(str, sys.version_info[:3]))
    return fail(f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {have}; install one and run it with that")


# ------------------------------------------------------------------------------------------ setting up


def prepare(extra: str) -> str | None:
    """The Python of an environment with `rxstage[extra]` in it; None if it cannot be made."""
    chosen = os.environ.get("RXSTAGE_VENV")
    if sys.prefix != sys.base_prefix and not chosen:
        directory, python, pip = sys.prefix, sys.executable, [sys.executable, "-m", "pip"]
        if find_spec("pip") is None:
            fail("the active virtual environment has no pip; deactivate it, and one is made in .venv")
            return None
    else:
        directory = os.path.abspath(chosen or os.path.join(ROOT, ".venv"))
        python = os.path.join(directory, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))
        if not works(python) and not make_environment(directory):
            return None
        pip = [python, "-m", "pip"]
        if not works(python, "import pip"):  # made without one: the pip outside installs into it
            pip = [sys.executable, "-m", "pip", "--python", python]
    return python if install(extra, directory, pip) else None


def works(python: str, code: str = "") -> bool:
    """Whether an interpreter is there, new enough, and runs."""
    test = f"import sys; assert sys.version_info >= {OLDEST}; {code}"
    try:
        return not subprocess.call([python, "-c", test], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False


def make_environment(directory: str) -> bool:
    """Make a virtual environment, anew if there is a broken one."""
    has_pip = find_spec("ensurepip") is not None
    if not has_pip and find_spec("pip") is None:
        fail(
            "this Python can make no virtual environment with pip in it: install pip, or what brings ensurepip "
            "(on Debian and Ubuntu: apt install python3-venv)"
        )
        return False
    if os.path.exists(directory) and not os.path.exists(os.path.join(directory, "pyvenv.cfg")):
        fail(f"{directory} is no virtual environment and is left alone; move it, or name another in RXSTAGE_VENV")
        return False
    print(f"tasks.py: making a virtual environment in {directory}", file=sys.stderr)
    options = [] if has_pip else ["--without-pip"]
    if subprocess.call([sys.executable, "-m", "venv", "--clear", *options, directory], stdout=sys.stderr):
        fail(f"no virtual environment could be made in {directory}; the reason stands above")
        return False
    return True


def install(extra: str, directory: str, pip: list[str]) -> bool:
    """Install the checkout with an extra, unless that has been done since pyproject.toml last changed."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        wanted = hashlib.sha256(ROOT.encode() + file.read()).hexdigest()
    for installed in {extra, "dev"}:
        try:
            with open(stamp(directory, installed), encoding="ascii") as file:
                if file.read() == wanted:
                    return True
        except OSError:
            pass
    print(f"tasks.py: installing rxstage[{extra}] into {directory}; this is done once", file=sys.stderr, flush=True)
    command = [*pip, "install", "--quiet", "--disable-pip-version-check", "--editable", f"{ROOT}[{extra}]"]
    # Our standard input is the demo's; and a user's `pip install --user` habit has no place in an environment.
    done = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env={**os.environ, "PIP_USER": "0"})
    if done:
        fail("pip could not install what is needed; its reason stands above")
        return False
    with open(stamp(directory, extra), "w", encoding="ascii") as file:
        file.write(wanted)
    return True


def stamp(directory: str, extra: str) -> str:
    """The file that says for which pyproject.toml an extra has been installed."""
    return os.path.join(directory, f"rxstage-{extra}.stamp")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
