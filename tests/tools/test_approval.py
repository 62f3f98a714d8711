"""The answer to a call that somebody has to allow."""

from __future__ import annotations

import pytest

from rxstage import wire
from rxstage.content import ToolCall, ToolResult
from rxstage.element import StreamElement
from rxstage.tools import Approval

CALL = ToolCall("pay", {"sum": 5}, "c1")


def test_allowed() -> None:
    """What is allowed is done as it was asked for, or with the arguments that were given instead."""
    assert Approval("c1").decide(CALL) is CALL
    assert Approval("c1", arguments={"sum": 3}).decide(CALL) == ToolCall("pay", {"sum": 3}, "c1")
    assert Approval("c1", arguments={}).decide(CALL) == ToolCall("pay", {}, "c1")


@pytest.mark.parametrize(
    ("reason", "told"),
    [("", "This call of 'pay' was not allowed."), ("too much", "This call of 'pay' was not allowed: too much")],
)
def test_refused(reason: str, told: str) -> None:
    """What is refused becomes a result that tells the model so, whatever else the answer says."""
    answer = Approval("c1", approved=False, reason=reason, arguments={"sum": 1})
    assert answer.decide(CALL) == ToolResult("c1", told, "pay", is_error=True)


def test_it_travels() -> None:
    """An answer has a wire form, with and without arguments; one of another form is refused."""
    for answer in (Approval("c1"), Approval("c1", False, "no"), Approval("c1", arguments={"a": [1, None]})):
        element = StreamElement.of(answer)
        assert wire.from_json(wire.to_json(element)) == element
        assert wire.from_msgpack(wire.to_msgpack(element)) == element
    forged = wire.to_json(StreamElement.of(Approval("c1"))).replace(b'"approved":true', b'"approved":"no"')
    with pytest.raises(wire.WireError):
        wire.from_json(forged)
