"""The errors: what they say, what they hold, and that they survive a trip to another process."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

import rxstage.errors
from rxstage.element import StreamElement
from rxstage.errors import (
    BufferOverflow,
    ExecutionCancelled,
    ExecutionTimeout,
    GraphError,
    IdleTimeout,
    MissingExtra,
    PipelineClosed,
    PipelineTimeout,
    Problem,
    ProblemKind,
    RxStageError,
    ShutdownTimeout,
    StageError,
    StallError,
    require,
)
from rxstage.priority import Priority

PROBLEMS = (
    Problem(ProblemKind.CYCLE, "a → b → a is a cycle; take out one edge", ("a", "b")),
    Problem(ProblemKind.NO_STAGES, "there are no stages; add one"),
)
ERRORS = [
    StageError("upper", Priority.HIGH, StreamElement.of("x"), ValueError("boom")),
    StageError("upper"),
    GraphError(PROBLEMS),
    StallError("everything waits", ["zip holds 3", "buffer holds 16"]),
    StallError("everything waits"),
    ShutdownTimeout("still running after 10 s", ["upper"]),
    ShutdownTimeout("still running after 10 s"),
    ExecutionTimeout("longer than 3 s"),
    IdleTimeout("nothing moved for 3 s"),
    PipelineTimeout("a limit"),
    BufferOverflow("17 of 16"),
    ExecutionCancelled("cancelled"),
    PipelineClosed("closed"),
    MissingExtra("pip install"),
    RxStageError("base"),
]


def by_name(error: BaseException) -> str:
    return type(error).__name__


def test_every_error_is_an_rxstage_error() -> None:
    """Whoever catches `RxStageError` catches every error class of the module."""
    classes = [value for value in vars(rxstage.errors).values() if inspect.isclass(value)]
    errors = {cls for cls in classes if issubclass(cls, BaseException)}
    assert errors == {type(error) for error in ERRORS}
    assert all(issubclass(cls, RxStageError) for cls in errors)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", ERRORS, ids=[f"{index}-{by_name(error)}" for index, error in enumerate(ERRORS)])
def test_errors_pickle(error: RxStageError, protocol: int) -> None:
    """An error comes back from pickle with class, text, arguments and attributes."""
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert again.__dict__ == error.__dict__
    assert repr(again.__cause__) == repr(error.__cause__)


@pytest.mark.parametrize("error", ERRORS, ids=[f"{index}-{by_name(error)}" for index, error in enumerate(ERRORS)])
def test_errors_copy_with_their_notes(error: RxStageError) -> None:
    """What was attached to an error as a note is still there on its copies."""
    noted = copy.copy(error)
    noted.add_note("during the tear-down: OSError: gone")
    for again in (copy.copy(noted), copy.deepcopy(noted), pickle.loads(pickle.dumps(noted))):
        assert again.__notes__ == ["during the tear-down: OSError: gone"]
        assert str(again) == str(error)


def test_stage_error_names_stage_type_element_and_cause() -> None:
    """The message says which stage failed, of which type, on what, and with what."""
    cause = ValueError("boom")
    element = StreamElement.of("x")
    error = StageError("upper", Priority.HIGH, element, cause)
    assert (error.stage, error.stage_type, error.element, error.__cause__) == ("upper", Priority.HIGH, element, cause)
    assert str(error) == f"stage 'upper' (HIGH) failed on {element!r}: ValueError: boom"


def test_stage_error_without_a_cause() -> None:
    """Without an exception the stage has ended early."""
    error = StageError("upper")
    assert str(error) == "stage 'upper' failed: it ended early"
    assert (error.stage_type, error.element, error.__cause__) == (None, None, None)


def test_stage_error_cuts_a_long_element_short() -> None:
    """A huge element does not make a huge message."""
    message = str(StageError("upper", element=StreamElement.of("x" * 100_000), cause=ValueError("boom")))
    assert len(message) < 200
    assert "…: ValueError: boom" in message


def test_stage_error_survives_a_repr_that_raises() -> None:
    """An element whose repr raises is named by its class."""

    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    assert "<Bad whose repr raises RuntimeError>" in str(StageError("upper", element=Bad()))


def test_graph_error_lists_every_problem() -> None:
    """All problems are in the message, and typed in `problems`."""
    error = GraphError(list(PROBLEMS))
    assert error.problems == PROBLEMS
    assert str(error) == (
        "the graph has 2 problem(s):\n  - a → b → a is a cycle; take out one edge\n  - there are no stages; add one"
    )
    assert [str(problem) for problem in error.problems] == [problem.message for problem in PROBLEMS]


def test_problem_is_frozen() -> None:
    """A problem is data that cannot be changed."""
    with pytest.raises(AttributeError):
        PROBLEMS[0].message = "another"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("error", "held", "text"),
    [
        (StallError("all wait", (name for name in ("a", "b"))), "holders", "all wait: a; b"),
        (ShutdownTimeout("not ended", (name for name in ("a", "b"))), "left", "not ended: a; b"),
    ],
    ids=["stall", "shutdown"],
)
def test_errors_that_name_who_is_left(error: Any, held: str, text: str) -> None:
    """Who holds things up is in the message, and as a tuple on the error."""
    assert getattr(error, held) == ("a", "b")
    assert str(error) == text


@pytest.mark.parametrize("cls", [PipelineTimeout, ExecutionTimeout, IdleTimeout, ShutdownTimeout])
def test_timeouts_are_timeouts(cls: type[PipelineTimeout]) -> None:
    """Whoever catches the built-in `TimeoutError` catches ours, and it is no system error."""
    error = cls("too long")
    assert isinstance(error, TimeoutError)
    assert isinstance(error, PipelineTimeout)
    assert error.errno is None
    assert str(error) == "too long"


def test_require_gives_the_module() -> None:
    """An installed module is imported, a submodule too."""
    assert require("pickle", "core") is pickle
    assert require("os.path", "core").join("a", "b") == "a/b"


def test_require_names_the_extra() -> None:
    """A missing package is a `MissingExtra` with the command that installs it, and an `ImportError`."""
    with pytest.raises(MissingExtra, match=r"'no_such_package': pip install 'rxstage\[audio\]'") as caught:
        require("no_such_package.inner", "audio")
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value.__cause__, ImportError)
