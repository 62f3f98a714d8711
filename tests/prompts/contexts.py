"""What the tests of context policies have in common: histories, and a stand-in for a stage's context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from rxstage import Message, StageContext, ToolCall
from rxstage.content import ToolResult
from rxstage.conversation import Conversation

__all__ = ["Told", "context_of", "conversation_of", "texts", "tool_turn", "turns"]


class Told:
    """Stands in for a stage's context, and notes the events."""

    stage = "stage"

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit_event(self, event: str, **data: Any) -> None:
        """Note an event."""
        self.events.append((event, data))


def context_of(told: Told) -> StageContext:
    """A stand-in, for a type checker."""
    return cast("StageContext", told)


def turns(count: int, first: int = 0, words: str = "") -> list[Message]:
    """Turns of a question and an answer each: u0, a0, u1, a1 …"""
    history: list[Message] = []
    for number in range(first, first + count):
        history += (Message.user(f"u{number}{words}"), Message.assistant(f"a{number}{words}"))
    return history


def tool_turn(number: int) -> list[Message]:
    """A turn in which a tool is called."""
    return [
        Message.user(f"u{number}"),
        Message.assistant(tool_calls=(ToolCall("look", {"at": number}, str(number)),)),
        Message("tool", (ToolResult(str(number), "seen", "look"),)),
        Message.assistant(f"a{number}"),
    ]


def conversation_of(history: Sequence[Message], id: str = "") -> Conversation:
    """A conversation with that history."""
    conversation = Conversation(id)
    for message in history:
        conversation.add(message)
    return conversation


def texts(history: Sequence[Message]) -> list[str]:
    """What the messages say; a call of a tool as `call`, its result as `result`."""
    return [
        message.text or ("call" if message.tool_calls else "result" if message.role == "tool" else "")
        for message in history
    ]
