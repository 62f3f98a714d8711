"""From what a user names on the command line to a pipeline."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from rxstage.builder import PipelineBuilder
from rxstage.cli.command import CommandError, where
from rxstage.errors import GraphError, RxStageError
from rxstage.pipeline import Pipeline
from rxstage.stage import Stage

__all__ = ["TARGET_HELP", "load"]

TARGET_HELP: Final = (
    "module:name, path/to/file.py:name, or a spec in a .json or .yaml file. The name is that of a pipeline, a "
    "builder, a stage, or a function that gives one; without it, the only pipeline of the module is meant."
)
_SPECS: Final = (".json", ".yaml", ".yml")
_DEPTH: Final = 8  # functions that give functions


def load(target: str) -> Pipeline:
    """The pipeline that a target names.

    Raises:
        CommandError: there is no such module, file or name, it is no pipeline, or importing or calling it raised.
        GraphError: the pipeline has problems.
    """
    if target.lower().endswith(_SPECS):
        return _from_spec(Path(target))
    place, name = _split(target)
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    if not name:
        name = _only_pipeline(module, target)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            near = get_close_matches(part, [each for each in dir(value) if not each.startswith("_")], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise _wrong(f"{place} has no {name!r}{hint}")
        value = getattr(value, part)
    return _pipeline(value, target)


def _wrong(message: str) -> CommandError:
    return CommandError(message, code=2)


def _split(target: str) -> tuple[str, str]:
    place, colon, name = target.rpartition(":")
    if not colon or name.endswith(".py") or "/" in name or "\\" in name:  # no name, or the colon of C:\...
        return target, ""
    if not place or not name:
        raise _wrong(f"{target!r}: write module:name or path/to/file.py:name")
    return place, name


def _from_spec(path: Path) -> Pipeline:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _wrong(f"{path} cannot be read: {error.strerror}") from error
    sys.path.insert(0, os.getcwd())
    return Pipeline.from_spec(text)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise _wrong(f"there is no file {path}")
    directory = str(path.absolute().parent)
    if directory not in sys.path:
        sys.path.insert(0, directory)  # as for a script: its neighbours can be imported
    name = path.stem if path.stem not in sys.modules else f"{path.stem} ({path})"  # a json.py hides no json
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    loader = spec.loader
    _guarded(lambda: loader.exec_module(module), f"{path} cannot be imported")
    return module


def _load_module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        found = None
    if found is None:
        hint = f"; for a file write {name}.py" if Path(f"{name}.py").is_file() or "/" in name else ""
        raise _wrong(f"there is no module {name!r} here or on the path{hint}")
    module: ModuleType = _guarded(lambda: importlib.import_module(name), f"module {name!r} cannot be imported")
    return module


def _only_pipeline(module: ModuleType, target: str) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, (Pipeline, PipelineBuilder))]
    if len(names) == 1:
        return names[0]
    choice = f"one of {', '.join(f'{target}:{name}' for name in names)}" if names else f"{target}:NAME"
    raise _wrong(f"{target} has {len(names) or 'no'} pipelines at its top; write {choice}")


def _pipeline(value: Any, target: str) -> Pipeline:
    for _ in range(_DEPTH):
        if isinstance(value, Pipeline):
            return value
        if isinstance(value, PipelineBuilder):
            return value.build()
        if isinstance(value, Stage):
            return Pipeline.of(value, name=value.name)
        if not callable(value) or isinstance(value, type) or inspect.iscoroutinefunction(value) or _asks(value):
            break
        value = _guarded(value, f"{target} failed when it was called")
    raise _wrong(
        f"{target} is {_kind(value)}; name a pipeline, a builder, a stage, or a function without arguments that "
        f"gives one"
    )


def _kind(value: Any) -> str:
    if inspect.iscoroutinefunction(value):
        return "an async function"
    if callable(value) and _asks(value):
        return "a function that needs arguments"
    return f"of type {type(value).__name__}"


def _asks(function: Callable[..., Any]) -> bool:
    """Whether it cannot be called without arguments."""
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return True
    return False


def _guarded(call: Callable[[], Any], what: str) -> Any:
    """What a call of the user's code gives; what it raises becomes one line that says where."""
    try:
        return call()
    except (GraphError, CommandError):
        raise
    except RxStageError as error:
        raise CommandError(f"{what}: {error}") from error
    except SystemExit as end:
        raise CommandError(f"{what}: it exits ({end.code}); put its main part under if __name__ == '__main__'") from end
    except Exception as error:
        place = f" ({error.filename}:{error.lineno})" if isinstance(error, SyntaxError) else where(error)
        raise CommandError(f"{what}: {type(error).__name__}: {error}{place}") from error
