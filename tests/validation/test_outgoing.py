"""The history keeps what a validator let out of an answer, and so do the store and the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rxstage import Message, Pipeline, PipelineConfig, StateStoreSaveStage, StreamElement, ToolCall
from rxstage.adapters.memory import MemoryStore
from rxstage.providers import Reply, ScriptedProvider
from rxstage.stages.provider import ProviderStage
from rxstage.stages.validation import ValidationStage
from rxstage.testing import assert_no_leaks, run_virtual
from rxstage.validation import BannedWords, Function, Verdict

pytestmark = pytest.mark.needs("module:regex")


def lookup(id: int) -> str:
    """Look it up."""
    return f"found {id}"


def talked(
    answer: Any, *validators: Any, seconds: float = 5.0, interrupt: bool = False, **options: Any
) -> tuple[list[str], list[str]]:
    """What the model is asked with in the next turn, and what is stored of both."""
    answers = answer if isinstance(answer, list) else [answer]
    provider = ScriptedProvider(*answers, "Yes?")
    store = MemoryStore()

    async def source() -> AsyncIterator[Any]:
        yield Message.user("a")
        yield StreamElement.end_of_turn()
        await asyncio.sleep(seconds)
        if interrupt:
            yield StreamElement.interrupt()
        await asyncio.sleep(5.0)
        yield Message.user("b")
        yield StreamElement.end_of_turn()

    async def main() -> list[str]:
        pipeline = Pipeline.of(
            ProviderStage(provider=provider, tools=[lookup])
            >> ValidationStage(validators=validators, **options)
            >> StateStoreSaveStage(store=store, conversation="talk"),
            config=PipelineConfig(buffer_size=4),
        )
        await pipeline.execute(source())
        return [entry.message.text for entry in (await store.load("talk")).entries]

    with assert_no_leaks():
        stored = run_virtual(main())
    return [message.text for message in provider.calls[-1].messages if message.role != "tool"], stored


@pytest.mark.parametrize("token_delay", [0.0, 0.1])
def test_redacted_while_it_streams(token_delay: float) -> None:
    """What was redacted is not history: the model does not see its own word again, and it is not stored."""
    asked, stored = talked(
        Reply(text="The word is swordfish, friend.", token_delay=token_delay), BannedWords("swordfish", policy="redact")
    )
    said = asked[1]
    assert "swordfish" not in said
    assert said.startswith("The word is ")
    assert said.endswith(", friend.")
    assert (asked, stored) == (["a", said, "b"], ["a", said, "b", "Yes?"])


def test_repaired() -> None:
    """The answer that was repaired stands in place of the one that was not good enough."""

    def good(text: str) -> Verdict:
        return Verdict("rude" not in text, 0.0, reason="be polite")

    asked, stored = talked(
        "A rude answer.",
        Function(good, name="polite"),
        policy="repair",
        repair=ScriptedProvider("A polite answer."),
    )
    assert (asked, stored) == (["a", "A polite answer.", "b"], ["a", "A polite answer.", "b", "Yes?"])


def test_stopped_in_the_middle() -> None:
    """Of an answer that was stopped stays what had left."""
    asked, stored = talked(
        Reply(text="One two three. Then swordfish and more.", token_delay=0.1), BannedWords("swordfish", policy="emit")
    )
    assert "swordfish" not in asked[1]
    assert asked[1].startswith("One two three.")
    assert "more" not in asked[1]
    assert stored == [*asked, "Yes?"]


def test_stopped_as_a_whole() -> None:
    """Of an answer that did not leave nothing stays but the question."""
    asked, stored = talked("no", Function(lambda text: "yes" in text, name="yes"), policy="emit")
    assert (asked, stored[:2]) == (["a", "b"], ["a", "b"])


def test_interrupted() -> None:
    """An answer that an interrupt cuts short keeps what went out, redacted."""
    asked, stored = talked(
        Reply(text="The swordfish is a b c d e f g h", token_delay=0.5),
        BannedWords("swordfish", policy="redact"),
        seconds=2.6,
        interrupt=True,
    )
    assert asked == ["a", "The [redacted] is a b c", "b"]
    assert stored == [*asked, "Yes?"]


def test_in_rounds_of_tools() -> None:
    """Each message of an answer with calls of tools keeps its own part."""
    call = ToolCall(name="lookup", arguments={"id": 1}, id="1")
    asked, _ = talked(
        [Reply(text="Let me see. ", tool_calls=(call,)), "It is a swordfish there."],
        BannedWords("swordfish", policy="redact"),
    )
    assert asked[:2] == ["a", "Let me see. "]
    assert "swordfish" not in asked[2]
    assert (asked[2][:8], asked[2][-7:], asked[3]) == ("It is a ", " there.", "b")


def test_what_passes_is_left_alone() -> None:
    """An answer that nobody objects to is the model's own message."""
    asked, stored = talked("Fine.", BannedWords("swordfish", policy="redact"))
    assert (asked, stored) == (["a", "Fine.", "b"], ["a", "Fine.", "b", "Yes?"])


@pytest.mark.parametrize("delay", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("ends", [False, True])
def test_answers_that_are_ahead(delay: float, ends: bool) -> None:
    """Where the next answer is made before one is validated, each keeps what went out of it, in the store, too."""
    provider = ScriptedProvider("One swordfish.", "Two swordfish.", "Yes?")
    store = MemoryStore()

    async def slow(text: str) -> Verdict:
        await asyncio.sleep(delay)
        return Verdict(True, 1.0)

    async def source() -> AsyncIterator[Any]:
        for text in "ab":
            yield Message.user(text)
            if ends:
                yield StreamElement.end_of_turn()
        await asyncio.sleep(20.0)
        yield Message.user("c")

    async def main() -> None:
        banned = BannedWords("swordfish", policy="redact")
        await Pipeline.of(
            ProviderStage(provider=provider)
            >> ValidationStage(validators=(Function(slow, name="slow"), banned) if delay else (banned,))
            >> StateStoreSaveStage(store=store, conversation="talk")
        ).execute(source())
        stored.extend(entry.message.text for entry in (await store.load("talk")).entries)

    stored: list[str] = []
    with assert_no_leaks():
        run_virtual(main())
    said = [message.text for message in provider.calls[-1].messages]
    assert said == ["a", "One [redacted].", "b", "Two [redacted].", "c"]
    assert stored == [*said, "Yes?"]
