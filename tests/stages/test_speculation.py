"""Answers that are made before the turn is certain: heard only when it is, and as if never made where it is not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from test_turn import CUT, NOTICED, SILERO, at, named, phrase
from voices import frames, said, scene, silence

from rxstage import (
    Data,
    Event,
    ExecutionCancelled,
    Failure,
    Image,
    Message,
    Pipeline,
    Priority,
    StageFunc,
    StageType,
    StreamElement,
    ToolCall,
)
from rxstage.adapters.memory import MemoryStore
from rxstage.conversation import TRANSCRIPT, conversations
from rxstage.ports.provider import ProviderError
from rxstage.providers import Reply, ScriptedProvider
from rxstage.stages.interruption import InterruptionStage
from rxstage.stages.pacing import PacingStage
from rxstage.stages.provider import ProviderStage
from rxstage.stages.speculation import SpeculationStage
from rxstage.stages.state import StateStoreSaveStage
from rxstage.stages.stt import STTStage
from rxstage.stages.tts import TTSStage
from rxstage.stages.turn import TurnStage
from rxstage.stages.vad import VADAccumulatorStage
from rxstage.testing import ScriptedStt, ScriptedTts, assert_no_leaks, check_stage, run_virtual
from rxstage.voice.endings import SilencePolicy
from rxstage.voice.floor import Floor, floor
from rxstage.voice.speculation import SPECULATIVE, speculations

Timed = list[tuple[float, str]]


class Talk:
    """What came of a conversation.

    Attributes:
        out: what left the pipeline, and when.
        history: texts of the conversation at the end, by role.
        events: what was told.
    """

    def __init__(self) -> None:
        self.out: list[tuple[float, StreamElement]] = []
        self.history: list[str] = []
        self.events: list[Event] = []
        self.floor = Floor()

    @property
    def texts(self) -> Timed:
        """The texts of answers, messages and controls that left."""
        return [
            (when, each.text or named(each))
            for when, each in self.out
            if (each.text and TRANSCRIPT not in each.metadata) or each.message is not None or each.is_control
        ]

    def first_sound(self, after: float = 0.0) -> float:
        return next(when for when, each in self.out if each.audio is not None and when >= after)

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [dict(event.data) for event in self.events if event.type == kind]


def talk(*events: tuple[float, Any], stages: list[Any]) -> Talk:
    """A conversation in virtual time; no mark of speculation leaves it."""
    heard = Talk()

    async def watch(elements: Any, context: Any) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield element
        heard.history = [f"{each.role}: {each.text}" for each in conversations(context).of().messages]
        heard.floor = floor(context)

    async def main() -> None:
        now = asyncio.get_running_loop().time
        pipeline = Pipeline.of(*stages, StageFunc("watch", StageType.TRANSFORM, watch))
        with pipeline.events.subscribe(heard.events.append):
            async for element in pipeline.execute(at(*events)):
                assert SPECULATIVE not in element.metadata
                heard.out.append((round(now(), 6), element))

    with assert_no_leaks():
        run_virtual(main())
    return heard


def stages(provider: ScriptedProvider, *, speculative: bool = True, seconds: float = 0.7, **options: Any) -> list[Any]:
    return [
        TurnStage("turn", policy=SilencePolicy(seconds), speculative=speculative),
        ProviderStage("answer", provider=provider, **options),
        SpeculationStage("gate"),
    ]


HELLO = phrase(1.0, 2.0, "Hello.")
OVER = round(2.0 + 0.7 + NOTICED, 6)
END = (30.0, StreamElement.end_of_turn())


# ------------------------------------------------------------------------------------------ confirmed


def test_an_early_answer_is_held_until_the_turn_is_confirmed() -> None:
    """The provider is asked when the words are there; its answer leaves at the moment of the confirmation, whole."""
    provider = ScriptedProvider("Hi there.", delay=0.3)
    heard = talk(*HELLO, END, stages=stages(provider))
    assert heard.texts[:4] == [(OVER, "Hi"), (OVER, " there."), (OVER, "Hi there."), (OVER, "EndOfTurn")]
    assert heard.history[:2] == ["user: Hello.", "assistant: Hi there."]
    assert heard.told("speculation.released") == [{"elements": 3, "waited": pytest.approx(0.25)}]
    assert len(heard.told("speculation.started")) == len(heard.told("speculation.confirmed")) == 1


def test_an_answer_that_is_still_being_made_flows_on() -> None:
    """What is there goes on at the confirmation, the rest as it comes."""
    provider = ScriptedProvider(Reply(text="One two three.", delay=0.3, token_delay=0.5))
    heard = talk(*HELLO, END, stages=stages(provider))
    assert heard.texts[:5] == [
        (2.8, "One"),
        (3.05, " two"),
        (3.55, " three."),
        (3.55, "One two three."),
        (3.55, "EndOfTurn"),
    ]


@pytest.mark.parametrize(
    ("first_token", "ordinary", "early"), [(0.0, 2.8, 2.8), (0.3, 3.1, 2.8), (0.55, 3.35, 2.8), (1.0, 3.8, 3.25)]
)
def test_what_is_gained(first_token: float, ordinary: float, early: float) -> None:
    """The first sound comes earlier by what the model needs to its first token, at most by what the policy waits."""

    def first_sound(speculative: bool) -> float:
        voice = [TTSStage(tts=ScriptedTts()), PacingStage()]
        provider = ScriptedProvider("Hi there.", delay=first_token)
        return talk(*HELLO, END, stages=[*stages(provider, speculative=speculative), *voice]).first_sound()

    assert (first_sound(False), first_sound(True)) == (ordinary, early)


def test_the_end_of_the_input_confirms() -> None:
    """What was answered early and is not certain at the end of the input leaves then."""
    heard = talk(*HELLO, stages=stages(ScriptedProvider("Hi.")))
    assert heard.texts == [(2.25, "Hi."), (2.25, "Hi."), (2.25, "EndOfTurn")]
    assert heard.history == ["user: Hello.", "assistant: Hi."]


def test_a_marked_end_confirms() -> None:
    """An EndOfTurn that comes in is the confirmation."""
    heard = talk(*HELLO, (2.4, StreamElement.end_of_turn()), END, stages=stages(ScriptedProvider("Hi.")))
    assert heard.texts[:3] == [(2.4, "Hi."), (2.4, "Hi."), (2.4, "EndOfTurn")]


def test_a_cough_withdraws_nothing() -> None:
    """Speech without words delays the confirmation; the provider is not asked again."""
    provider = ScriptedProvider("Hi.")
    heard = talk(*HELLO, *phrase(2.4, 2.8, None), END, stages=stages(provider))
    assert heard.texts[0] == (3.6, "Hi.")
    assert len(provider.calls) == 1
    assert [type(each.data).__name__ for _, each in heard.out if each.data] == [
        "SpeechStarted",
        "SpeechEnded",
    ] * 2


def test_turn_after_turn() -> None:
    """Each turn is speculated on, once the answer before has been played."""
    provider = ScriptedProvider("One.", "Two.", "Three.", delay=0.3)
    script = [each for n in range(3) for each in phrase(10.0 * n + 1, 10.0 * n + 2, f"w{n}")]
    heard = talk(*script, (29.0, StreamElement.end_of_turn()), stages=stages(provider))
    assert [when for when, name in heard.texts if name == "EndOfTurn"] == [2.8, 12.8, 22.8, 29.0]
    assert heard.history == [
        "user: w0",
        "assistant: One.",
        "user: w1",
        "assistant: Two.",
        "user: w2",
        "assistant: Three.",
    ]


# ------------------------------------------------------------------------------------------ withdrawn


@pytest.mark.parametrize("delay", [0.0, 0.2, 5.0])
@pytest.mark.parametrize("token_delay", [0.0, 0.3])
def test_the_user_goes_on(delay: float, token_delay: float) -> None:
    """The early answer is never heard or remembered, however far it came; there is one message and one answer."""
    provider = ScriptedProvider(
        Reply(text="Too early a word.", delay=delay, token_delay=token_delay), "Tea it is.", default="?"
    )
    script = [*phrase(1.0, 2.0, "I would like"), *phrase(2.5, 3.5, "a cup of tea.")]
    heard = talk(*script, (20.0, StreamElement.end_of_turn()), stages=stages(provider))
    assert [name for _, name in heard.texts] == [
        "Interrupt",
        "Tea",
        " it",
        " is.",
        "Tea it is.",
        "EndOfTurn",
        "EndOfTurn",
    ]
    assert heard.texts[1] == (4.3, "Tea")
    assert heard.history == ["user: I would like a cup of tea.", "assistant: Tea it is."]
    assert [call.messages[-1].text for call in provider.calls] == ["I would like", "I would like a cup of tea."]
    assert len(provider.calls[1].messages) == 1
    told = [each.data for _, each in heard.out if each.data]
    assert [type(each).__name__ for each in told] == ["SpeechStarted", "SpeechEnded"] * 2
    assert [each.text for _, each in heard.out if TRANSCRIPT in each.metadata] == ["I would like", "a cup of tea."]


@pytest.mark.parametrize("when", [0.5, 1.5, 2.3, 2.7, 3.3])
def test_what_belongs_to_the_turn_is_not_lost(when: float) -> None:
    """An image and other data that come at any time of the turn are there when its answer is made, once."""
    provider = ScriptedProvider(default="A cat.", delay=0.1)
    image = Image(b"png", "image/png")
    script = [*phrase(1.0, 2.0, "What is"), *phrase(2.5, 3.0, "this?"), (when, image), (when, Data("info"))]
    heard = talk(*sorted(script, key=lambda event: event[0]), END, stages=stages(provider))
    asked = provider.calls[-1].messages[-1]
    assert [part for part in asked.parts if isinstance(part, Image)] == [image]
    assert asked.text == "What is this?"
    assert heard.history == ["user: What is this?", "assistant: A cat."]
    assert [each.data for _, each in heard.out if each.data == "info"] == ["info"]
    assert (3.8, "A cat.") in heard.texts


def test_what_has_no_words_is_a_turn_too() -> None:
    """What comes without speech goes on at a marked end, or that of the input; of very much, the oldest at once."""
    line = [TurnStage(speculative=True), SpeculationStage()]
    heard = talk((1.0, "typed"), (2.0, StreamElement.end_of_turn()), (3.0, "more"), stages=line)
    assert heard.texts == [(2.0, "typed"), (2.0, "EndOfTurn"), (3.0, "more")]
    many = [(float(n), f"{n}") for n in range(70)]
    assert [when for when, _ in talk(*many, stages=line).texts] == [*map(float, range(64, 70)), *[69.0] * 64]


def test_three_times() -> None:
    """A turn may be withdrawn again and again, till it is over."""
    provider = ScriptedProvider("1", "2", "3", "All four.", delay=0.1)
    script = [each for n in range(4) for each in phrase(1.0 + n, 1.5 + n, f"w{n}")]
    heard = talk(*script, (20.0, StreamElement.end_of_turn()), stages=stages(provider))
    assert [name for _, name in heard.texts if name != "EndOfTurn"] == ["Interrupt"] * 3 + [
        "All",
        " four.",
        "All four.",
    ]
    assert heard.history == ["user: w0 w1 w2 w3", "assistant: All four."]
    assert len(heard.told("speculation.withdrawn")) == 3


def test_tools_wait_for_the_confirmation() -> None:
    """A tool runs when the turn is certain, and never for one that is withdrawn."""
    ran: list[tuple[float, str]] = []

    async def order(what: str) -> str:
        """Order something."""
        ran.append((round(asyncio.get_running_loop().time(), 6), what))
        return "ordered"

    def call(what: str) -> ToolCall:
        return ToolCall("order", {"what": what}, id="1")

    provider = ScriptedProvider(call("tea"), call("tea with milk"), "Done.", delay=0.1)
    script = [*phrase(1.0, 2.0, "Order tea"), *phrase(2.5, 3.0, "with milk.")]
    heard = talk(*script, (20.0, StreamElement.end_of_turn()), stages=stages(provider, tools=(order,)))
    assert ran == [(3.8, "tea with milk")]
    assert [each.split(":")[0] for each in heard.history] == ["user", "assistant", "tool", "assistant"]


def test_a_store_never_sees_a_withdrawn_turn() -> None:
    """Neither the withdrawn message nor its answer is saved; what is confirmed is."""
    store = MemoryStore()
    provider = ScriptedProvider("One.", "Too early.", "Right.", delay=0.1)
    script = [
        *phrase(1.0, 2.0, "First."),
        *phrase(5.0, 6.0, "Second"),
        *phrase(6.5, 9.5, "and more."),
        (25.0, StreamElement.end_of_turn()),
    ]
    saved: list[list[str]] = []

    async def look() -> None:
        for _ in range(200):
            await asyncio.sleep(0.1)
            saved.append([entry.message.text for entry in (await store.load("c")).entries])

    async def main() -> None:
        watching = asyncio.create_task(look())
        events = [
            (when, StreamElement.of(each, metadata={**StreamElement.of(each).metadata, "conversation": "c"}))
            for when, each in script[:-1]
        ]
        line = Pipeline.of(*stages(provider), StateStoreSaveStage(store=store))
        async for _ in line.execute(at(*events)):
            pass
        await watching

    run_virtual(main())
    assert saved[-1] == ["First.", "One.", "Second and more.", "Right."]
    assert all(each == saved[-1][: len(each)] for each in saved)
    assert len({len(each) for each in saved}) >= 3


# ------------------------------------------------------------------------------------------ other interrupts, failures


def test_an_interrupt_from_outside() -> None:
    """It withdraws what is open; the gate is empty and the next turn is answered."""
    provider = ScriptedProvider("Too early.", "Right.", delay=0.1)
    script = [*HELLO, (2.5, StreamElement.interrupt("stop")), *phrase(5.0, 6.0, "Again.")]
    heard = talk(*script, (20.0, StreamElement.end_of_turn()), stages=stages(provider))
    assert [name for _, name in heard.texts] == ["Interrupt", "Right.", "Right.", "EndOfTurn", "EndOfTurn"]
    assert heard.history == ["user: Again.", "assistant: Right."]


def test_a_failed_early_answer() -> None:
    """A failure keeps its place in the answer, and is told when that is confirmed."""
    provider = ScriptedProvider(Reply(text="Well now.", error=ProviderError("broken"), error_after=1))
    heard = talk(*HELLO, (20.0, StreamElement.end_of_turn()), stages=stages(provider, on_error="emit", retry=None))
    assert heard.texts == [(2.8, "Well"), (2.8, "Failure"), (2.8, "EndOfTurn"), (20.0, "EndOfTurn")]


def test_a_small_gate_makes_the_provider_wait() -> None:
    """A full gate reads no more: what is held is bounded, and nothing is lost."""
    provider = ScriptedProvider(Reply(text="a b c d e f g h."))
    line = [TurnStage(policy=SilencePolicy(0.7), speculative=True), ProviderStage(provider=provider)]
    heard = talk(*HELLO, (20.0, StreamElement.end_of_turn()), stages=[*line, SpeculationStage(capacity=3)])
    assert "".join(name for _, name in heard.texts[:8]) == "a b c d e f g h."
    assert heard.told("speculation.released")[0]["elements"] == 3
    assert {when for when, _ in heard.texts[:10]} == {2.8}


@pytest.mark.parametrize("capacity", [1, 3])
def test_a_full_gate_lets_go_at_an_interrupt(capacity: int) -> None:
    """A withdrawn answer leaves a full gate as well."""
    provider = ScriptedProvider("a b c d e f.", "Tea it is.")
    line = [TurnStage(policy=SilencePolicy(0.7), speculative=True), ProviderStage(provider=provider)]
    script = [*phrase(1.0, 2.0, "I would like"), *phrase(2.5, 3.5, "tea.")]
    heard = talk(*script, (20.0, StreamElement.end_of_turn()), stages=[*line, SpeculationStage(capacity=capacity)])
    assert "".join(name for _, name in heard.texts[1:4]) == "Tea it is."
    assert heard.history == ["user: I would like tea.", "assistant: Tea it is."]


def test_a_cancelled_execution_leaves_nothing() -> None:
    """Who leaves while an answer is held leaves no task behind."""

    async def main() -> None:
        execution = Pipeline.of(*stages(ScriptedProvider("Hi."))).execute(at(*HELLO, END))
        asyncio.get_running_loop().call_later(2.5, execution.cancel)
        texts: list[str | None] = []
        with pytest.raises(ExecutionCancelled):
            texts.extend([element.text async for element in execution])
        assert "Hi." not in texts
        assert execution.state == "cancelled"

    with assert_no_leaks():
        run_virtual(main())


def opened(*values: Any, confirmed: bool | None, seconds: float = 5.0) -> Timed:
    """What a gate makes of elements, of which those that are not critical belong to an open speculation."""

    async def opens(elements: Any, context: Any) -> AsyncIterator[StreamElement]:
        speculation = speculations(context).begin()
        if confirmed is not None:
            asyncio.get_running_loop().call_later(seconds, speculation.decide, confirmed)
        async for element in elements:
            if not element.is_control and element.priority != Priority.CRITICAL:
                element = element.replace(metadata={SPECULATIVE: speculation.number})
            yield element

    line = [StageFunc("opens", StageType.TRANSFORM, opens), SpeculationStage()]
    return talk(*values, stages=line).texts


def test_failures_and_critical_content_survive_an_interrupt() -> None:
    """Of what is held an interrupt leaves what it leaves everywhere; what follows is a new matter."""
    values = ["a", StreamElement("b", priority=Priority.CRITICAL), Failure(ValueError()), StreamElement.end_of_turn()]
    script = [*((1.0, value) for value in values), (2.0, StreamElement.interrupt())]
    assert opened(*script, confirmed=None) == [(2.0, "Interrupt"), (2.0, "b"), (2.0, "Failure")]


def test_the_input_of_the_gate_ends_first() -> None:
    """What is held then is decided on later; a withdrawn answer is gone without an interrupt, too."""
    assert opened((1.0, "a"), (1.0, StreamElement.end_of_turn()), confirmed=True) == [(5.0, "a"), (5.0, "EndOfTurn")]
    assert opened((1.0, "a"), (1.0, Failure(ValueError())), confirmed=False) == [(5.0, "Failure")]
    assert opened((1.0, "a"), (7.0, "b"), confirmed=False) == []
    assert opened((1.0, "a"), (7.0, "b"), confirmed=True) == [(5.0, "a"), (7.0, "b")]


def test_answers_without_speculation_pass() -> None:
    """What carries no mark, or one that nobody knows, is not held."""
    strange = StreamElement("b", metadata={SPECULATIVE: 77})
    result = Pipeline.of(SpeculationStage()).run(["a", strange, StreamElement.end_of_turn()])
    assert [each.text or named(each) for each in result.elements] == ["a", "b", "EndOfTurn"]


def test_laws() -> None:
    """It keeps the laws of a stage."""
    check_stage(lambda: SpeculationStage(), ["a", Data(1), Message.assistant("a")])


@pytest.mark.parametrize("seed", range(40))
def test_nothing_hangs_and_nothing_is_heard_twice(seed: int) -> None:
    """Whatever the user says when: every word is answered once, in a history of question and answer, turn by turn."""
    chance = random.Random(seed)
    script: list[tuple[float, Any]] = []
    time = 0.0
    words: list[str] = []
    for number in range(8):
        time += chance.choice([0.2, 0.5, 3.0])
        begin, time = time, time + chance.choice([0.2, 1.0])
        text = None if chance.random() < 0.2 else f"w{number}"
        words += [text] if text else []
        script += phrase(begin, time, text)
        time += CUT
    provider = ScriptedProvider(
        default=lambda request: Reply(
            text=f"[{request.messages[-1].text}]", delay=chance.choice([0.0, 0.2, 1.0]), token_delay=0.1
        )
    )
    capacity = chance.choice([1, 1000])
    line = [TurnStage(policy=SilencePolicy(0.7), speculative=True), ProviderStage(provider=provider)]
    heard = talk(*script, stages=[*line, SpeculationStage(capacity=capacity)])
    answers = [each.message.text for _, each in heard.out if each.message is not None]
    assert " ".join(answers).replace("[", "").replace("]", "").split() == words
    assert heard.history == [line for each in answers for line in (f"user: {each[1:-1]}", f"assistant: {each}")]
    assert "".join(each.text for _, each in heard.out if each.text and TRANSCRIPT not in each.metadata) == "".join(
        answers
    )


# ------------------------------------------------------------------------------------------ talking over the answer


def voice(provider: ScriptedProvider, tts: ScriptedTts, **options: Any) -> list[Any]:
    turn, answer, gate = stages(provider)
    return [
        turn,
        InterruptionStage(**options),
        answer,
        gate,
        TTSStage(tts=tts, first_clause=1),
        PacingStage(pre_roll=0.1),
    ]


@pytest.mark.parametrize("minimum_words", [0, 1])
def test_talking_over_the_answer(minimum_words: int) -> None:
    """It stops; the history has what was heard; what was said is answered, and early."""
    provider = ScriptedProvider("This is a very long answer, word after word after word.", "Stopped.", delay=0.3)
    tts = ScriptedTts(seconds=0.1)
    script = [*HELLO, *phrase(4.0, 5.0, "Please stop.")]
    heard = talk(*script, (20.0, StreamElement.end_of_turn()), stages=voice(provider, tts, minimum_words=minimum_words))
    assert heard.first_sound() == 2.8
    sound = [when for when, each in heard.out if each.audio is not None]
    assert max(when for when in sound if when < 5.0) <= 4.1
    assert heard.first_sound(after=5.0) == 5.8
    assert heard.history[0] == "user: Hello."
    assert heard.history[-2:] == ["user: Please stop.", "assistant: Stopped."]
    assert [name for _, name in heard.texts if name == "Interrupt"] == ["Interrupt"]
    assert len(heard.told("speculation.confirmed")) == 2
    assert heard.floor.turns == 0


def test_a_false_interruption() -> None:
    """A cough has the answer wait, and it goes on where it waited; nothing is lost, and nobody answers a cough."""
    provider = ScriptedProvider("This is a long answer, word after word.")
    tts = ScriptedTts(seconds=0.1)
    undisturbed = talk(
        *HELLO, (20.0, StreamElement.end_of_turn()), stages=voice(provider, tts, minimum_words=1, patience=1.0)
    )
    provider = ScriptedProvider("This is a long answer, word after word.")
    script = [*HELLO, *phrase(4.0, 4.3, None)]
    heard = talk(
        *script, (20.0, StreamElement.end_of_turn()), stages=voice(provider, tts, minimum_words=1, patience=1.0)
    )

    def sound(of: Talk) -> bytes:
        return b"".join(each.audio.samples for _, each in of.out if each.audio is not None)

    assert sound(heard) == sound(undisturbed)
    frames = [when for when, each in heard.out if each.audio is not None]
    assert [pair for pair in pairwise(frames) if pair[1] - pair[0] > 0.1] == [(4.1, 4.56)]  # till the speech has ended
    assert heard.history == undisturbed.history
    assert len(provider.calls) == 1


def test_a_word_of_no_weight() -> None:
    """ "Mhm" interrupts nothing and is not answered, and it makes no early call that would cut the answer off."""
    provider = ScriptedProvider("This is a long answer, word after word.", "Two.")
    tts = ScriptedTts(seconds=0.1)
    script = [*HELLO, *phrase(4.0, 4.3, "Mhm."), *phrase(15.0, 16.0, "And now?")]
    heard = talk(*script, (25.0, StreamElement.end_of_turn()), stages=voice(provider, tts, minimum_words=1))
    assert heard.history == [
        "user: Hello.",
        "assistant: This is a long answer, word after word.",
        "user: And now?",
        "assistant: Two.",
    ]
    assert "Interrupt" not in [name for _, name in heard.texts]
    assert heard.first_sound(after=15.0) == 16.8
    assert heard.floor.turns == 0


# ------------------------------------------------------------------------------------------ with sound


@pytest.mark.parametrize("snr", [20, 10, 5])
@pytest.mark.parametrize("case", [pytest.param(None, marks=SILERO)])
def test_real_speech(case: None, snr: float) -> None:
    """Spoken phrases in noise, in real time: the early answer to half the question is never heard."""
    first, second = said("I would like to know"), said("what time it is.")
    sound = scene(silence(0.6), first, silence(0.5), second, silence(3.0), snr=snr)
    provider = ScriptedProvider("Too early.", "It is late.", delay=0.3)
    line = [
        VADAccumulatorStage(vad="silero", silence=0.25, end_of_turn=False),
        STTStage(stt=ScriptedStt(["I would like to know", "what time it is."], delay=0.1)),
        TurnStage(policy=SilencePolicy(0.8), speculative=True),
        ProviderStage(provider=provider),
        SpeculationStage(),
        TTSStage(tts=ScriptedTts()),
        PacingStage(),
    ]
    heard = talk(*((0.02 * n, frame) for n, frame in enumerate(frames(sound))), stages=line)
    assert heard.history == ["user: I would like to know what time it is.", "assistant: It is late."]
    assert [len(heard.told(f"speculation.{each}")) for each in ("started", "withdrawn", "confirmed")] == [2, 1, 1]
    ended = (len(sound) / 16_000) - 3.0
    assert heard.first_sound() == pytest.approx(ended + 0.8 + 0.15, abs=0.2)
