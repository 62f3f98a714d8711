"""Error policies and options that a stage cannot keep, because of how it is written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from rxstage.config import Fallback, Retry
from rxstage.errors import Problem, ProblemKind
from rxstage.stage import Shape, Stage

__all__ = ["policy_problems"]

_WORDS: Final = {
    Shape.STREAM: "a function of the whole stream",
    Shape.OPERATOR: "an Rx operator",
    Shape.PRODUCER: "a producer",
}
_OPTIONS: Final = {
    "concurrency": "only a function of one element can work on several at once (MapStage, a Stage with apply)",
    "blocking": "hand blocking calls to asyncio.to_thread inside it, or put them in a MapStage(blocking=True)",
    "executor": "call loop.run_in_executor inside it, or put the call in a MapStage(executor=...)",
    "timeout": "it is for single elements: use asyncio.timeout or ops.timeout inside it, or idle_timeout of the config",
    "interruptible": "only a function of one element can be cancelled in mid-work; inside it, watch for Interrupt",
}
_MEANINGFUL: Final = {Shape.PRODUCER: {"blocking"}}


def policy_problems(stage: Stage) -> Iterator[Problem]:
    """What a stage asks for that it cannot have; nothing for a function of one element, which can have it all."""
    shape = stage.shape
    if shape not in _WORDS:
        return
    own = _redeclared(type(stage))
    if stage.on_error != "fail" and "on_error" not in own and (refusal := _refusal(shape, stage.on_error)):
        yield _problem(stage, f"on_error={_policy(stage.on_error)} cannot work: {refusal}")
    for option, remedy in _OPTIONS.items():
        value = getattr(stage, option)
        if value == Stage.model_fields[option].default or option in own or option in _MEANINGFUL.get(shape, ()):
            continue
        yield _problem(stage, f"{option}={value!r} has no effect: {remedy}")


def _problem(stage: Stage, what: str) -> Problem:
    shape = _WORDS[stage.shape]  # type: ignore[index]
    return Problem(ProblemKind.POLICY, f"stage {stage.name!r} is {shape}, for which {what}", (stage.name,))


def _refusal(shape: Shape, policy: Any) -> str | None:
    """Why a shape cannot have a policy other than `fail`, and what to do; None if it can."""
    if isinstance(policy, Retry):
        if shape is Shape.OPERATOR:
            return "an operator cannot be restarted; put ops.retry inside it, or use a StageFunc, which can"
        if policy.then == "fail":
            return None
        return "it is dead once its attempts are used up; use Retry(..., then='fail')"
    remedy = (
        "use ops.catch or ops.retry inside it"
        if shape is Shape.OPERATOR
        else "catch the error inside it, or use on_error=Retry(...), which starts it again"
    )
    return f"it is dead once it raised, so nothing can go on in its place; {remedy}"


def _policy(policy: Any) -> str:
    if isinstance(policy, Fallback):
        return "Fallback(...)"
    if isinstance(policy, Retry):
        return f"Retry(then={_policy(policy.then)})" if policy.then != "fail" else "Retry(...)"
    return repr(policy)


@lru_cache(maxsize=1024)
def _redeclared(kind: type[Stage]) -> frozenset[str]:
    """Options that a subclass declares anew: it gives them a meaning of its own."""
    names = (*_OPTIONS, "on_error")
    classes = kind.__mro__[: kind.__mro__.index(Stage)]
    return frozenset(name for name in names if any(name in vars(each).get("__annotations__", ()) for each in classes))
