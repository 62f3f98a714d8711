"""How often the same call is done."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from rxstage.content import ToolCall
from rxstage.tools import Repetition


def test_the_same_call() -> None:
    """The same name with the same arguments, in whatever order, is done so often; another one is another one."""
    repetition = Repetition(2)
    calls = [{"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}, {"a": 1, "b": {"c": 2, "d": 3}}]
    assert [repetition.allows(ToolCall("x", each, str(id))) for id, each in enumerate(calls)] == [True, True, False]
    assert repetition.allows(ToolCall("y", calls[0]))
    assert repetition.allows(ToolCall("x", {"a": 2}))
    assert repetition.allows(ToolCall("x", {}))
    assert not repetition.allows(ToolCall("x", MappingProxyType(calls[0])))


def test_for_ever() -> None:
    """A model that asks for the same for ever is allowed three times."""
    repetition = Repetition()
    assert sum(repetition.allows(ToolCall("again", {}, str(number))) for number in range(1000)) == 3


DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "arguments", [{"a": DEEP}, {"a": "\ud800"}, {"a": float("nan")}, {"a": object}, {1: 2, "a": 3}, ["a"], None]
)
def test_odd_arguments(arguments: Any) -> None:
    """Arguments that no tool would take are counted, too."""
    repetition = Repetition(1)
    call = ToolCall("x", arguments)
    assert [repetition.allows(call), repetition.allows(call)] == [True, False]


def test_what_is_kept_is_short() -> None:
    """Of arguments of any size a few bytes are kept."""
    repetition = Repetition()
    for number in range(10):
        repetition.allows(ToolCall("x", {"a": f"{number}" * 1_000_000}))
    assert sum(map(len, repetition._seen)) == 160


def test_limit() -> None:
    """A limit that allows nothing is refused."""
    with pytest.raises(ValueError, match="at least once, got limit=0"):
        Repetition(0)
