"""The public names: `__all__` is right, what the design names is exported, and everything public has a docstring."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import pytest

import rxstage


def modules() -> list[str]:
    return ["rxstage", *sorted(info.name for info in pkgutil.walk_packages(rxstage.__path__, "rxstage."))]


def load(name: str) -> ModuleType:
    if name.endswith("__main__"):
        pytest.skip("runs when it is imported")
    try:
        return importlib.import_module(name)
    except ImportError as error:  # an adapter whose library is not installed
        if not name.startswith(("rxstage.adapters.", "rxstage.engines.")) and (error.name or "").startswith("rxstage"):
            raise
        pytest.skip(f"needs {error.name}")


each_module = pytest.mark.parametrize("name", modules())


@each_module
def test_all(name: str) -> None:
    """Every module has an `__all__` whose names exist, without doubles; public functions and classes are in it."""
    module = load(name)
    exported = getattr(module, "__all__", None)
    if exported is None:
        own = [
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", "") == name
        ]
        assert own == [], f"{name} has public names and no __all__"
        return
    assert len(set(exported)) == len(exported)
    for key in exported:
        assert hasattr(module, key), f"{name}.{key} is in __all__ and does not exist"
    if hasattr(module, "__path__"):
        return  # a package re-exports
    for key, value in vars(module).items():
        if key.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            missing = key not in exported
            assert not missing or _is_used_elsewhere(value), f"{name}.{key} is public but not in __all__"


def _is_used_elsewhere(value: Any) -> bool:
    """Functions without an underscore that only their own module uses are a matter of style."""
    return inspect.isfunction(value)


@each_module
def test_docstrings(name: str) -> None:
    """Every module, and everything public in it, has a docstring, methods and properties too."""
    module = load(name)
    assert module.__doc__, f"{name} has no docstring"
    lacking: list[str] = []
    for key in getattr(module, "__all__", ()):
        value = getattr(module, key)
        if getattr(value, "__module__", None) != name or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if not inspect.getdoc(value):
            lacking.append(key)
        if inspect.isclass(value):
            lacking += [f"{key}.{member}" for member in _undocumented(value)]
    assert lacking == []


def _undocumented(kind: type) -> list[str]:
    found = []
    for member, value in vars(kind).items():
        if member.startswith("_"):
            continue
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        inherited = any(getattr(getattr(base, member, None), "__doc__", None) for base in kind.__mro__[1:])
        if inspect.isfunction(function) and not inspect.getdoc(value) and not inherited:
            found.append(member)
    return found


def test_sorted() -> None:
    """`rxstage.__all__` is sorted and has no private names."""
    assert rxstage.__all__ == sorted(rxstage.__all__)
    assert not [name for name in rxstage.__all__ if name.startswith("_")]


PROMISED = [
    "StreamElement",
    "Text",
    "Audio",
    "Video",
    "Image",
    "Message",
    "ToolCall",
    "ToolResult",
    "Parts",
    "Data",
    "Failure",
    "EndOfTurn",
    "Interrupt",
    "EndOfStream",
    "Priority",
    "AudioFormat",
    "StageType",
    "MapStage",
    "FilterStage",
    "FlatMapStage",
    "SinkStage",
    "PassthroughStage",
    "GenerateStage",
    "StageFunc",
    "OperatorStage",
    "Stage",
    "stage",
    "StageContext",
    "StageError",
    "Retry",
    "Fallback",
    "Pipeline",
    "PipelineBuilder",
    "PipelineConfig",
    "GraphError",
    "Execution",
    "Result",
    "BufferedSubject",
    "EventBus",
    "ExecutionTimeout",
    "IdleTimeout",
    "PipelineTimeout",
    "BufferOverflow",
    "StallError",
    "ShutdownTimeout",
    "ExecutionCancelled",
    "PipelineClosed",
    "RxStageError",
]


@pytest.mark.parametrize("name", PROMISED)
def test_what_the_design_names_is_exported(name: str) -> None:
    """Every name of the design is exported by `rxstage` itself."""
    assert name in rxstage.__all__
    assert getattr(rxstage, name) is not None


def test_errors_have_one_base() -> None:
    """All errors are `RxStageError`s; both time limits are `PipelineTimeout`s."""
    names = [
        "GraphError",
        "StageError",
        "ExecutionTimeout",
        "IdleTimeout",
        "PipelineTimeout",
        "BufferOverflow",
        "StallError",
        "ShutdownTimeout",
        "ExecutionCancelled",
        "PipelineClosed",
    ]
    for name in names:
        assert issubclass(getattr(rxstage, name), rxstage.RxStageError)
    for name in ("ExecutionTimeout", "IdleTimeout"):
        assert issubclass(getattr(rxstage, name), rxstage.PipelineTimeout)


@pytest.mark.parametrize(
    ("owner", "members"),
    [
        ("Pipeline", "of execute run execute_sync shutdown events executions graph"),
        ("Pipeline", "to_spec from_spec to_mermaid to_svg"),
        ("Execution", "output send interrupt cancel drain closed events metrics statistics state error id"),
        ("PipelineBuilder", "add chain connect branch route merge copy build"),
        ("Result", "elements text messages failures usage duration metrics error ok"),
        ("PipelineConfig", "with_"),
        ("StageContext", "execution_id stage now sleep emit_event cancelled"),
        ("EventBus", "subscribe"),
        ("StreamElement", "of end_of_turn interrupt end_of_stream replace is_control text audio message"),
    ],
)
def test_members(owner: str, members: str) -> None:
    """The members that the design names are there."""
    kind = getattr(rxstage, owner)
    instance = rxstage.Pipeline.of(rxstage.PassthroughStage("p")).execute() if owner == "Execution" else None
    for member in members.split():
        assert hasattr(kind, member) or hasattr(instance, member) or member in getattr(kind, "model_fields", ()), member


def test_configuration() -> None:
    """The configuration has the defaults of the design, is frozen, and `with_` gives a changed copy."""
    config = rxstage.PipelineConfig()
    assert config.model_dump() == {
        "buffer_size": 16,
        "overflow": "wait",
        "priority_queue": False,
        "execution_timeout": None,
        "idle_timeout": None,
        "shutdown_timeout": 10.0,
        "max_concurrent_executions": None,
        "hot_source_limit": 1024,
        "metrics": False,
        "auto_resample": False,
        "tracing": False,
    }
    assert config.with_(buffer_size=32).buffer_size == 32
    assert config.buffer_size == 16
    with pytest.raises(ValueError, match="frozen"):
        setattr(config, "buffer_size", 3)
    with pytest.raises(ValueError, match="bufer_size"):
        config.with_(bufer_size=3)
