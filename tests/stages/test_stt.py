"""Utterances become messages of the user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rxstage import Audio, AudioFormat, Event, Failure, Message, Pipeline, Priority, Retry, StageError, StreamElement
from rxstage.conversation import TRANSCRIPT
from rxstage.ports import SpeechError
from rxstage.stages.stt import STTStage
from rxstage.testing import ScriptedStt, assert_no_leaks, check_stage, run_virtual
from rxstage.voice.speech import SpeechEnded, SpeechStarted

SOUND = Audio(bytes(32_000), 16_000)
BUSY = SpeechError("busy", engine="scripted", retryable=True)


async def feed(*steps: tuple[float, Any]) -> AsyncIterator[Any]:
    for seconds, value in steps:
        await asyncio.sleep(seconds)
        yield value


def taken(pipeline: Pipeline, *steps: tuple[float, Any]) -> list[StreamElement]:
    async def main() -> list[StreamElement]:
        return [element async for element in pipeline.execute(feed(*steps))]

    with assert_no_leaks():
        return run_virtual(main())


def test_an_utterance_is_a_message() -> None:
    """A transcript to be shown, of low priority, and the message that is answered; controls keep their place."""
    source = [StreamElement(SOUND, metadata={"start": 1.0}), StreamElement.end_of_turn()]
    shown, said, end = Pipeline.of(STTStage(stt=ScriptedStt([" Hello. "]))).run(source).elements
    assert (shown.text, shown.priority) == ("Hello.", Priority.LOW)
    assert shown.metadata == {"start": 1.0, TRANSCRIPT: "final"}
    assert said.content == Message.user("Hello.")
    assert said.metadata == {"start": 1.0}
    assert end.is_control


def test_the_engine_gets_what_it_can_hear() -> None:
    """Sound of any rate and form is 16-bit mono at the engine's rate."""
    stt = ScriptedStt(["a", "b"], sample_rate=8_000)
    Pipeline.of(STTStage(stt=stt)).run(
        [Audio(bytes(48_000 * 4), 48_000, 2), Audio(bytes(16_000 * 4), 16_000, 1, AudioFormat.FLOAT32)]
    )
    assert [(heard.sample_rate, heard.channels, round(heard.duration, 2)) for heard in stt.heard] == [
        (8_000, 1, 1.0)
    ] * 2


def test_no_words_are_nothing() -> None:
    """An empty result is dropped."""
    assert Pipeline.of(STTStage(stt=ScriptedStt(["", "  "]))).run([SOUND, SOUND]).elements == ()


def test_failures() -> None:
    """What may succeed is tried again; what fails for good is a `Failure`, or nothing, or the end."""
    stt = ScriptedStt([BUSY, "yes"])
    assert [element.message for element in taken(Pipeline.of(STTStage(stt=stt)), (0, SOUND))][1] == Message.user("yes")
    broken = SpeechError("broken", engine="scripted")
    first, second, third = Pipeline.of(STTStage(stt=ScriptedStt([broken, "next"]))).run([SOUND, SOUND]).elements
    assert isinstance(first.content, Failure)
    assert first.content.stage == "sttstage"
    assert (second.text, third.message) == ("next", Message.user("next"))
    assert len(Pipeline.of(STTStage(stt=ScriptedStt([broken, "a"]), on_error="skip")).run([SOUND, SOUND]).elements) == 2
    with pytest.raises(StageError, match="broken"):
        Pipeline.of(STTStage(stt=ScriptedStt([broken]), on_error="fail")).run(SOUND)
    none = STTStage(stt=ScriptedStt([BUSY, "never"]), retry=None, on_error="fail")
    with pytest.raises(StageError, match="busy"):
        Pipeline.of(none).run(SOUND)


def test_a_time_limit() -> None:
    """An engine that does not answer is given up."""
    stage = STTStage(stt=ScriptedStt(["late"], delay=60.0), timeout=5.0, retry=Retry(attempts=1))
    (failed,) = taken(Pipeline.of(stage), (0, SOUND))
    assert isinstance(failed.content, Failure)
    assert isinstance(failed.content.error, TimeoutError)


def test_an_interrupt_gives_the_utterance_up() -> None:
    """What was being understood belongs to the turn that is over; the next utterance is heard."""
    stt = ScriptedStt(["old", "new"], delay=2.0)
    out = taken(Pipeline.of(STTStage(stt=stt)), (0, SOUND), (1, StreamElement.interrupt()), (0, SOUND))
    assert [element.text or type(element.content).__name__ for element in out] == ["Interrupt", "new", "Message"]


def test_events() -> None:
    """What was heard and how long it took is told."""
    events: list[Event] = []

    async def main() -> None:
        execution = Pipeline.of(STTStage(stt=ScriptedStt(["hi"], delay=1.5))).execute(SOUND)
        execution.events.subscribe(events.append)
        await execution

    run_virtual(main())
    (told,) = [event.data for event in events if event.type == "stt.completed"]
    assert told == {"engine": "scripted", "duration": 1.5, "text": "hi"}


def test_what_is_no_engine() -> None:
    """It is refused by name."""
    with pytest.raises(TypeError, match="stage 'stt': stt must be an Stt or a name such as 'pocketsphinx', got 3"):
        STTStage("stt", stt=3)


def test_an_engine_that_gives_no_transcript() -> None:
    """It is told by name."""

    class Broken(ScriptedStt):
        async def transcribe(self, audio: Audio) -> Any:
            return None

    with pytest.raises(StageError, match=r"transcribe\(\) of 'scripted' has to give a Transcript, got None"):
        Pipeline.of(STTStage(stt=Broken(), on_error="fail")).run(SOUND)
    (failed,) = Pipeline.of(STTStage(stt=Broken())).run(SOUND).elements
    assert isinstance(failed.content, Failure)


def test_laws() -> None:
    """It keeps the laws of a stage."""
    check_stage(lambda: STTStage(stt=_Echo()), [SOUND, "text", Audio(bytes(320), 16_000)])


class _Echo(ScriptedStt):
    async def transcribe(self, audio: Audio) -> Any:
        from rxstage.ports import Transcript

        return Transcript(f"{audio.frames} frames")


# ------------------------------------------------------------------------------------------ while it is said


def pieces(seconds: float, rate: int = 16_000) -> list[tuple[float, Any]]:
    """Sound in pieces of 0.1 s, in real time, between its marks."""
    sound = Audio(bytes(rate // 10 * 2), rate)
    said = [(0.1, sound)] * round(seconds / 0.1)
    return [(0.0, SpeechStarted(0.0)), *said, (0.0, SpeechEnded(seconds, seconds)), (0.0, StreamElement.end_of_turn())]


def streaming(*texts: Any, **options: Any) -> tuple[ScriptedStt, Pipeline]:
    stt = ScriptedStt(texts, **options)
    return stt, Pipeline.of(STTStage(stt=stt, streaming=True, timeout=5.0))


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_what_was_understood_so_far_is_shown(rate: int) -> None:
    """Partial transcripts come while it is said, the final one and the message before the mark of its end."""
    stt, pipeline = streaming("what is the weather")
    out = taken(pipeline, *pieces(2.0, rate))
    shown = [(element.text, element.metadata.get(TRANSCRIPT)) for element in out if element.text is not None]
    assert shown[-1] == ("what is the weather", "final")
    assert [text for text, state in shown if state == "partial"][:2] == ["what", "what is"]
    names = [type(element.data or element.content).__name__ for element in out]
    assert names[0] == "SpeechStarted"
    assert names[-4:] == ["Text", "Message", "SpeechEnded", "EndOfTurn"]
    assert stt.heard[0].duration == pytest.approx(2.0, abs=0.05)


def test_an_interrupt_in_mid_speech_keeps_the_utterance() -> None:
    """The utterance that interrupts is understood whole."""
    stt, pipeline = streaming("stop it now")
    steps = pieces(1.0)
    out = taken(pipeline, *steps[:5], (0.05, StreamElement.interrupt()), *steps[5:])
    assert [element.message for element in out if element.message] == [Message.user("stop it now")]
    assert stt.heard[0].duration == pytest.approx(1.0)


def test_a_failed_stream() -> None:
    """An engine that raises or hangs fails that utterance; the next one is heard."""
    _, pipeline = streaming(SpeechError("broken"), "two")
    out = taken(pipeline, *pieces(0.5), *pieces(0.5))
    assert [type(element.content).__name__ for element in out if element.is_control] == ["Failure", "EndOfTurn"] * 1 + [
        "EndOfTurn"
    ]
    assert [element.message for element in out if element.message] == [Message.user("two")]
    _, hanging = streaming("late", delay=99.0)
    failed = [element for element in taken(hanging, *pieces(0.5)) if isinstance(element.content, Failure)]
    assert [type(element.content.error) for element in failed] == [TimeoutError]


def test_the_end_of_the_input_ends_the_utterance() -> None:
    """What was being said is understood; nothing is left behind."""
    _, pipeline = streaming("half a sentence")
    out = taken(pipeline, *pieces(1.0)[:6])
    assert [element.message for element in out if element.message] == [Message.user("half a sentence")]
