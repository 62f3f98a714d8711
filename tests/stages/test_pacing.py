"""Sound at the pace at which it is heard, and what was heard of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from voices import silence

from rxstage import (
    Audio,
    Data,
    Message,
    Pipeline,
    PipelineConfig,
    ProviderStage,
    StageContext,
    StageFunc,
    StageType,
    StateStoreSaveStage,
    StreamElement,
    ToolCall,
    tool,
)
from rxstage.adapters.memory import MemoryStore
from rxstage.conversation import Conversation, conversations
from rxstage.providers import Reply, ScriptedProvider
from rxstage.stages.pacing import PacingStage
from rxstage.stages.tts import TTSStage
from rxstage.testing import ScriptedTts, assert_no_leaks, check_stage, run_virtual
from rxstage.voice.floor import Floor, floor
from rxstage.voice.speech import Spoken

END = StreamElement.end_of_turn


@tool
def add() -> int:
    """Add."""
    return 3


def sound(seconds: float) -> Audio:
    return Audio(bytes(len(silence(seconds)) * 2), 16_000)


async def feed(*steps: tuple[float, Any]) -> AsyncIterator[Any]:
    for seconds, value in steps:
        await asyncio.sleep(seconds)
        yield value


def timed(pipeline: Pipeline, *steps: tuple[float, Any]) -> list[tuple[float, Any]]:
    """When each element came out; of sound its length."""

    async def main() -> list[tuple[float, Any]]:
        loop = asyncio.get_running_loop()
        return [
            (
                round(loop.time(), 3),
                round(e.audio.duration, 3) if e.audio else e.text or type(e.data or e.content).__name__,
            )
            async for e in pipeline.execute(feed(*steps))
        ]

    with assert_no_leaks():
        return run_virtual(main())


def test_frames_go_out_when_their_time_comes() -> None:
    """The pre-roll goes at once, the rest as it is played; the end of the turn when the last frame has been heard."""
    out = timed(Pipeline.of(PacingStage(pre_roll=0.1, frame=0.02)), (0, sound(1.0)), (0, END()))
    frames = [at for at, what in out if what == 0.02]
    assert len(frames) == 50
    assert frames[:6] == [0.0] * 6
    assert frames[6:9] == [0.02, 0.04, 0.06]
    assert frames[-1] == 0.88
    assert out[-1] == (1.0, "EndOfTurn")


def test_nothing_is_lost_and_odd_sizes_fit() -> None:
    """All samples go out, in frames, the last one shorter; a frame that is short enough is not copied."""
    whole = Audio(bytes(range(256)) * 25, 16_000)
    result = run_virtual(_all(Pipeline.of(PacingStage()), whole))
    assert b"".join(element.audio.samples for element in result if element.audio) == whole.samples
    short = sound(0.01)
    assert run_virtual(_all(Pipeline.of(PacingStage()), short))[0].content is short


async def _all(pipeline: Pipeline, source: Any) -> list[StreamElement]:
    return [element async for element in pipeline.execute(source)]


def test_other_content_keeps_its_place() -> None:
    """Text and marks go between the frames they stand between."""
    out = timed(Pipeline.of(PacingStage(pre_roll=0.0)), (0, "a"), (0, sound(0.1)), (0, "b"))
    assert [what for _, what in out] == ["a", *[0.02] * 5, "b"]


def test_a_gap_in_the_sound_is_not_made_up_for() -> None:
    """After a pause of the source the next sound is played from its arrival on, not faster."""
    out = timed(Pipeline.of(PacingStage(pre_roll=0.04)), (0, sound(0.1)), (5, sound(0.1)))
    second = [at for at, _ in out if at >= 5]
    assert second == [5.0, 5.0, 5.0, 5.02, 5.04]


def test_an_interrupt_silences_within_a_frame() -> None:
    """Behind 64 queued pieces it still acts at once, and what comes after it is played at once."""
    pipeline = Pipeline.of(PacingStage(pre_roll=0.0), config=PipelineConfig(buffer_size=128))

    async def source() -> AsyncIterator[Any]:
        for _ in range(64):
            yield sound(2.0)
        await asyncio.sleep(1.5)
        yield sound(0.04)

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        execution = pipeline.execute(source())
        loop.call_later(0.99, execution.interrupt)
        return [round(loop.time(), 3) async for element in execution if element.audio]

    out = run_virtual(main())
    assert max(at for at in out if at < 1.4) <= 1.0
    assert [at for at in out if at > 1.4] == [1.5, 1.52]


def after_an_interrupt(at: float, stored: int = 0) -> Conversation:
    """The conversation after an answer of two sentences of 1 s each was interrupted `at` s."""
    seen: list[Conversation] = []

    async def answer(elements: Any, context: StageContext) -> AsyncIterator[Any]:
        held = conversations(context).of()
        seen.append(held)
        async for element in elements:
            if element.text == "go":
                held.add(Message.user("x"))
                held.add(Message.assistant("One. Two. "))
                held.stored = stored
                for text in ("One. ", "Two. "):
                    yield sound(1.0)
                    yield Data(Spoken(text))
            yield element

    pipeline = Pipeline.of(StageFunc("answer", StageType.TRANSFORM, answer) >> PacingStage(pre_roll=0.2))
    timed(pipeline, (0, "go"), (at, StreamElement.interrupt()), (0.1, "x"))
    return seen[0]


def test_the_history_keeps_what_was_heard() -> None:
    """Of an interrupted answer the sentences that were played stay; one of which nothing was heard goes."""
    assert [message.text for message in after_an_interrupt(1.5).messages] == ["x", "One."]
    assert after_an_interrupt(1.5).entries[1].metadata == {"interrupted": True}
    assert [message.text for message in after_an_interrupt(0.5).messages] == ["x"]
    assert [message.text for message in after_an_interrupt(5.0).messages] == ["x", "One. Two. "]
    assert [message.text for message in after_an_interrupt(1.5, stored=2).messages] == ["x", "One. Two. "]


def test_a_pause_is_waited_out() -> None:
    """While the floor is paused nothing goes out; afterwards it goes on where it stopped."""

    async def pausing(elements: Any, context: StageContext) -> AsyncIterator[Any]:
        held: Floor = floor(context)
        async for element in elements:
            if element.text == "pause":
                held.paused = True
            elif element.text == "resume":
                held.paused = False
            else:
                yield element

    pipeline = Pipeline.of(StageFunc("p", StageType.TRANSFORM, pausing) >> PacingStage(pre_roll=0.0))
    out = timed(pipeline, (0, sound(1.0)), (0.51, "pause"), (2.0, "resume"))
    assert len(out) == 50
    assert [at for at, _ in out if 0.53 < at < 2.5] == []
    assert out[-1][0] < 3.1


def test_after_a_pause_the_sound_goes_ahead_again() -> None:
    """What had gone ahead was played in the pause: as much goes ahead when it is over."""

    async def pausing(elements: Any, context: StageContext) -> AsyncIterator[Any]:
        async for element in elements:
            if element.text is None:
                yield element
            else:
                floor(context).paused = element.text == "pause"

    pipeline = Pipeline.of(StageFunc("p", StageType.TRANSFORM, pausing) >> PacingStage(pre_roll=0.2))
    out = timed(pipeline, (0, sound(2.0)), (1.0, "pause"), (1.0, "resume"))
    again = [at for at, _ in out if at > 1.1]
    assert len(out) == 100
    assert 2.0 <= again[0] <= 2.02
    assert again[10] == again[0]
    assert again[11] > again[0]


def answered(at: float, *, wait: float = 2.0, pause: float | None = None) -> list[str]:
    """The history after an answer of two sentences of 0.8 s, each `wait` s in the making, was interrupted `at` s."""

    class Slow(ScriptedTts):
        async def speak(self, text: str) -> AsyncIterator[Audio]:
            await asyncio.sleep(wait)
            async for piece in super().speak(text):
                yield piece

    async def pausing(elements: Any, context: StageContext) -> AsyncIterator[Any]:
        if pause is not None:
            asyncio.get_running_loop().call_later(pause, setattr, floor(context), "paused", True)
        async for element in elements:
            if element.content.__class__.__name__ == "Interrupt":
                floor(context).paused = False
            yield element

    provider = ScriptedProvider("One one one one. Two two two two.", "Yes?")
    pipeline = Pipeline.of(
        StageFunc("p", StageType.TRANSFORM, pausing)
        >> ProviderStage(provider=provider)
        >> TTSStage(tts=Slow())
        >> PacingStage(pre_roll=0.0)
    )
    timed(pipeline, (0, Message.user("a")), (0, END()), (at, StreamElement.interrupt()), (0.5, Message.user("b")))
    return [message.text for message in provider.calls[-1].messages]


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (1.0, []),  # before the first sound
        (2.5, []),  # in the first sentence
        (3.9, ["One one one one."]),  # between the two
        (5.0, ["One one one one."]),  # in the second
        (9.0, ["One one one one. Two two two two."]),  # after it all
    ],
)
def test_an_interrupt_between_the_sentences(at: float, said: list[str]) -> None:
    """What was made and not heard is not history, whether sound is being played at that moment or not."""
    assert answered(at) == ["a", *said, "b"]


@pytest.mark.parametrize(
    ("at", "said"), [(0.5, []), (1.2, []), (1.7, ["It is three."]), (9.0, ["It is three. A lot."])]
)
def test_an_answer_with_tools_is_cut_in_its_last_message(at: float, said: list[str]) -> None:
    """What was said before the call of a tool is a message of its own, and not said a second time in the history."""
    call = ToolCall(id="1", name="add")
    provider = ScriptedProvider(Reply(text="Let me look it up. ", tool_calls=(call,)), "It is three. A lot.", "Yes?")
    stage = ProviderStage(provider=provider, tools=[add])
    pipeline = Pipeline.of(stage >> TTSStage(tts=ScriptedTts()) >> PacingStage(pre_roll=0.0))
    timed(pipeline, (0, Message.user("a")), (0, END()), (at, StreamElement.interrupt()), (0.5, Message.user("b")))
    messages = [m.text for m in provider.calls[-1].messages if m.role != "tool"]
    assert messages == ["a", "Let me look it up. ", *said, "b"]


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (0.5, ["a", "b", "c"]),
        (1.0, ["a", "One one one one.", "b", "c"]),
        (1.9, ["a", "One one one one. Two two two two.", "b", "c"]),
        (2.6, ["a", "One one one one. Two two two two.", "b", "Three three three.", "c"]),
        (9.0, ["a", "One one one one. Two two two two.", "b", "Three three three. Four.", "c"]),
    ],
)
@pytest.mark.parametrize("tools", [False, True], ids=["", "tools"])
@pytest.mark.parametrize("ends", [False, True], ids=["", "ends"])
def test_answers_that_wait_for_their_turn_were_not_heard(at: float, said: list[str], tools: bool, ends: bool) -> None:
    """Where two answers are made and the first is still played, an interrupt cuts that one and takes the other away."""
    call = ToolCall(id="1", name="add")
    first = [Reply(tool_calls=(call,))] if tools else []
    texts = ("One one one one. Two two two two.", "Three three three. Four.", "Yes?")
    provider = ScriptedProvider(*first, *texts)
    spoken = ProviderStage(provider=provider, tools=[add]) >> TTSStage(tts=ScriptedTts()) >> PacingStage(pre_roll=0.0)
    pipeline = Pipeline.of(spoken, config=PipelineConfig(buffer_size=64))
    end = [(0.0, END())] if ends else []
    asked = ((0.0, Message.user("a")), *end, (0.0, Message.user("b")), *end)
    timed(pipeline, *asked, (at, StreamElement.interrupt()), (0.5, Message.user("c")))
    assert [m.text for m in provider.calls[-1].messages if m.role != "tool" and not m.tool_calls] == said


def test_an_answer_that_waits_is_not_stored() -> None:
    """While the first answer is played the second is not stored: an interrupt takes it away for good."""
    provider = ScriptedProvider("One one one one. Two two two two.", "Three three three. Four.", "Yes?")
    store = MemoryStore()
    spoken = ProviderStage(provider=provider) >> TTSStage(tts=ScriptedTts()) >> PacingStage(pre_roll=0.0)
    saved = spoken >> StateStoreSaveStage(store=store, conversation="talk")
    asked = [(0.0, each) for text in "ab" for each in (Message.user(text), END())]
    timed(
        Pipeline.of(saved, config=PipelineConfig(buffer_size=64)),
        *asked,
        (1.9, StreamElement.interrupt()),
        (5.0, Message.user("c")),
    )
    stored = run_virtual(store.load("talk"))
    texts = ["a", "One one one one. Two two two two.", "b", "c", "Yes?"]
    assert [entry.message.text for entry in stored.entries] == texts


def test_an_interrupt_in_a_pause() -> None:
    """An answer that waits has not been heard to its end, however long it waits."""
    assert answered(5.0, wait=0.0, pause=1.0) == ["a", "One one one one.", "b"]


def test_the_floor() -> None:
    """While sound is played the floor says so, and what has been heard."""
    states: list[tuple[bool, str]] = []

    async def watch(elements: Any, context: StageContext) -> AsyncIterator[Any]:
        async for element in elements:
            states.append((floor(context).speaking, floor(context).heard))
            yield element

    pipeline = Pipeline.of(PacingStage() >> StageFunc("w", StageType.TRANSFORM, watch))
    timed(pipeline, (0, sound(0.02)), (0, Spoken("a ")), (0, END()), (0, "b"))
    assert states == [(True, ""), (True, "a "), (False, ""), (False, "")]


def test_laws() -> None:
    """It keeps the laws of a stage."""
    check_stage(PacingStage, [sound(0.05), "text", sound(0.02)])
