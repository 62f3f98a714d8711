"""Tool calls of a history that have no results behind them, because a crash or another writer came between.

Models refuse such a history, so that a conversation could not go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rxstage.content import Message, ToolCall, ToolResult

__all__ = ["lost_results", "well_formed"]

_LOST: Final = "It was interrupted before it finished; whether it took effect is not known."


def lost_results(history: Sequence[Message]) -> Message | None:
    """What a history lacks at its end: results for the calls of its last message, where they have none."""
    there: set[str] = set()
    for message in reversed(history):
        if message.role != "tool":
            missing = tuple(_lost(call) for call in message.tool_calls if call.id not in there)
            return Message("tool", missing) if missing else None
        there.update(result.call_id for result in _results(message))
    return None


def well_formed(history: Sequence[Message]) -> Sequence[Message]:
    """A history in which the results of tool calls stand right behind them; the same one where they do.

    Two that write to one conversation at once may have come between a call and its result.
    """
    if not any(_apart(history, index) for index in range(len(history))):
        return history
    moved: set[int] = set()  # by identity: an id of a call may come again in a later turn
    found: list[Message] = []
    for index, message in enumerate(history):
        if message.role == "tool":
            rest = tuple(part for part in message.parts if id(part) not in moved)
            if rest or not message.parts:
                found.append(message if rest == message.parts else Message("tool", rest, name=message.name))
            continue
        found.append(message)
        if message.tool_calls:
            own = tuple(_result(history, index, call) for call in message.tool_calls)
            moved.update(map(id, own))
            found.append(Message("tool", own))
    return found


def _apart(history: Sequence[Message], index: int) -> bool:
    """Whether a message asks for tools and their results do not follow at once."""
    calls = history[index].tool_calls
    if not calls:
        return False
    there: set[str] = set()
    for message in history[index + 1 :]:
        if message.role != "tool":
            break
        there.update(result.call_id for result in _results(message))
    return any(call.id not in there for call in calls)


def _result(history: Sequence[Message], index: int, call: ToolCall) -> ToolResult:
    """The result of a call of the message at `index`, from before the next call of the same id."""
    for message in history[index + 1 :]:
        if any(later.id == call.id for later in message.tool_calls):
            break
        if message.role == "tool":
            for result in _results(message):
                if result.call_id == call.id:
                    return result
    return _lost(call)


def _results(message: Message) -> Iterator[ToolResult]:
    return (part for part in message.parts if part.__class__ is ToolResult)


def _lost(call: ToolCall) -> ToolResult:
    return ToolResult(call.id, _LOST, call.name, is_error=True)
