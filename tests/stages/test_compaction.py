"""The stage that has old turns summarized; what a summary is made of stands in `test_compactor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rxstage import Event, Message, Pipeline, StageContext, StageFunc, StageType, StreamElement
from rxstage.conversation import Conversation, conversations
from rxstage.ports.store import Summary
from rxstage.providers.scripted import ScriptedProvider
from rxstage.stages.compaction import CompactionStage
from rxstage.stages.provider import ProviderStage
from rxstage.stages.window import ConversationWindowStage
from rxstage.testing import check_stage, run_virtual


async def summarize(messages: Sequence[Message], previous: str) -> str:
    return f"{previous}[{' '.join(message.text for message in messages)}]"


async def broken(messages: Sequence[Message], previous: str) -> str:
    raise ValueError("no")


def converse(count: int, *stages: Any) -> tuple[list[list[str]], Conversation, list[Event]]:
    """What the model got to see, call by call; the conversation; the events."""
    provider = ScriptedProvider(default=lambda request: "a")
    held: list[Conversation] = []

    async def look(elements: Any, context: StageContext) -> Any:
        held.append(conversations(context).of())
        async for element in elements:
            yield element

    async def main() -> list[Event]:
        pipeline = Pipeline.of(*stages, ProviderStage(provider=provider), StageFunc("look", StageType.TRANSFORM, look))
        execution = pipeline.execute([Message.user(f"u{number}") for number in range(count)])
        events: list[Event] = []
        execution.events.subscribe(events.append)
        await execution
        return events

    events = run_virtual(main)
    return [[message.text for message in call.messages] for call in provider.calls], held[0], events


def test_what_a_model_gets() -> None:
    """Once the limit is passed, a summary stands for the oldest turns, and grows; the history stays whole."""
    seen, conversation, events = converse(6, CompactionStage("compact", summarize=summarize, max_messages=4))
    assert [len(messages) for messages in seen] == [1, 3, 2, 4, 2, 4]
    assert seen[1] == ["u0", "a", "u1"]
    assert seen[2][1:] == ["u2"]
    assert "[u0 a u1 a]" in seen[2][0]
    assert seen[3] == [seen[2][0], "u2", "a", "u3"]
    assert "[u0 a u1 a][u2 a u3 a]" in seen[4][0]
    assert seen[5] == [seen[4][0], "u4", "a", "u5"]
    assert conversation.summary == Summary("[u0 a u1 a][u2 a u3 a]", 8)
    assert len(conversation.messages) == 12
    told = [event for event in events if event.type == "context.compacted"]
    assert [(event.stage, dict(event.data)) for event in told] == [
        ("compact", {"conversation": "", "messages": 4, "covers": 4}),
        ("compact", {"conversation": "", "messages": 4, "covers": 8}),
    ]


def test_with_a_window() -> None:
    """The summary stays in a window, in whatever order the stages stand."""
    window = ConversationWindowStage(max_turns=2)
    compaction = CompactionStage(summarize=summarize, max_messages=8)
    for stages in ((window, compaction), (compaction, window)):
        seen, _, _ = converse(6, *stages)
        assert "<summary>" in seen[5][0]
        assert seen[5][1:] == ["u4", "a", "u5"]


def test_a_summarizer_that_fails() -> None:
    """A failing summarizer is told of, and the model gets to see the whole history."""
    seen, conversation, events = converse(4, CompactionStage(summarize=broken, max_messages=4))
    assert seen[3] == ["u0", "a", "u1", "a", "u2", "a", "u3"]
    assert conversation.summary is None
    failed = [event for event in events if event.type == "context.compaction.failed"]
    assert [event.data["error"] for event in failed] == ["ValueError: no"]


def test_a_provider_summarizes() -> None:
    """A `Provider` makes the summary."""
    seen, _, _ = converse(4, CompactionStage(summarize=ScriptedProvider(default="The gist."), max_tokens=20))
    assert "The gist." in seen[3][0]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"summarize": summarize}, "max_messages= or max_tokens="),
        ({"summarize": "gpt", "max_messages": 5}, "summarize= takes a Provider"),
        ({"max_messages": 5}, "Field required"),
        ({"summarize": summarize, "max_messages": 5, "keep": 1.0}, "less than 1"),
        ({"summarize": summarize, "max_messages": 1}, "greater than or equal to 2"),
    ],
)
def test_bad_options(options: dict[str, Any], problem: str) -> None:
    """What cannot work is an error where the stage is made."""
    with pytest.raises((ValueError, TypeError), match=problem):
        CompactionStage(**options)


def test_laws() -> None:
    """It keeps the laws of a stage, and what comes in goes out."""
    check_stage(lambda: CompactionStage(summarize=summarize, max_messages=5))
    elements = Pipeline.of(CompactionStage(summarize=summarize, max_messages=5)).run(["a", StreamElement.end_of_turn()])
    assert [type(element.content).__name__ for element in elements.elements] == ["Text", "EndOfTurn"]
