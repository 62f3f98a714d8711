"""The answer to a tool call that somebody has to allow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from rxstage import wire
from rxstage.content import ToolCall, ToolResult

__all__ = ["Approval"]


class Approval(Struct, frozen=True):
    """Whether a pending tool call may be done; comes in as `Data(Approval(...))`.

    Attributes:
        call_id: id of the `ToolCall` that went out.
        approved: whether it may be done.
        reason: told to the model where it may not.
        arguments: take the place of those that the model gave; checked as those are.
    """

    call_id: str
    approved: bool = True
    reason: str = ""
    arguments: Mapping[str, Any] | None = None

    def decide(self, call: ToolCall) -> ToolCall | ToolResult:
        """The call to be done, or, where it was refused, the result that tells the model so."""
        if not self.approved:
            why = f": {self.reason}" if self.reason else "."
            return ToolResult(call.id, f"This call of {call.name!r} was not allowed{why}", call.name, is_error=True)
        return call if self.arguments is None else ToolCall(call.name, self.arguments, call.id)


wire.register(Approval, "rxstage.Approval")
