"""The window on a conversation: whole turns, the newest always."""

from __future__ import annotations

from typing import Any

import pytest

from rxstage import Message, Pipeline, ToolCall, ToolResult
from rxstage.conversation import Conversation
from rxstage.ports.provider import ModelRequest
from rxstage.providers.scripted import ScriptedProvider
from rxstage.stages.provider import ProviderStage
from rxstage.stages.window import ConversationWindowStage
from rxstage.testing import check_stage, run_virtual, virtual

TOOLS = [
    Message.user("u2"),
    Message.assistant(tool_calls=(ToolCall("look", {}, "1"),)),
    Message("tool", (ToolResult("1", "seen"),)),
    Message.assistant("a2"),
]
HISTORY = [
    Message.user("u0"),
    Message.assistant("a0"),
    Message.user("u1"),
    Message.assistant("a1"),
    *TOOLS,
    Message.user("u3"),
]


async def window(history: list[Message], **options: Any) -> list[str]:
    stage = ConversationWindowStage(**options)
    return [message.text for message in await stage._window(history, (), Conversation())]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"max_turns": 1}, 1),
        ({"max_turns": 2}, 5),
        ({"max_turns": 3}, 7),
        ({"max_turns": 4}, 9),
        ({"max_turns": 99}, 9),
        ({"max_messages": 1}, 1),
        ({"max_messages": 4}, 1),
        ({"max_messages": 5}, 5),
        ({"max_messages": 8}, 7),
        ({"max_messages": 9}, 9),
        ({"max_messages": 7, "max_turns": 2}, 5),
    ],
)
@virtual
async def test_windows(options: dict[str, Any], count: int) -> None:
    """A window holds whole turns, as many as both limits allow, and always the newest."""
    assert await window(HISTORY, **options) == [message.text for message in HISTORY[-count:]]


@virtual
async def test_what_is_always_in_it() -> None:
    """System messages, such as a summary, stay; a newest turn that is too long by itself is whole."""
    assert await window([Message.system("s"), *HISTORY], max_turns=1) == ["s", "u3"]
    assert await window([*HISTORY[:-1]], max_messages=1) == ["u2", "", "", "a2"]
    assert await window([], max_turns=1) == []
    assert await window([Message.assistant("a"), Message.user("u")], max_messages=1) == ["u"]


def test_what_a_model_gets() -> None:
    """The model sees the window, wherever the stage stands before it; the history stays whole."""
    provider = ScriptedProvider(default=lambda request: f"a{len(request.messages)}")
    pipeline = Pipeline.of(ConversationWindowStage(max_turns=2), ProviderStage(provider=provider))

    async def main() -> list[ModelRequest]:
        await pipeline.execute([Message.user(str(number)) for number in range(4)])
        return list(provider.calls)

    assert [[message.text for message in call.messages] for call in run_virtual(main)] == [
        ["0"], ["0", "a1", "1"], ["1", "a3", "2"], ["2", "a3", "3"],
    ]  # fmt: skip


def test_no_limit() -> None:
    """A window without a size is an error."""
    with pytest.raises(ValueError, match="max_turns= or max_messages="):
        ConversationWindowStage()
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        ConversationWindowStage(max_turns=0)


def test_laws() -> None:
    """It keeps the laws of a stage, and what comes in goes out."""
    check_stage(lambda: ConversationWindowStage(max_turns=2))
    assert Pipeline.of(ConversationWindowStage(max_turns=2)).run(["a", "b"]).text == "ab"
