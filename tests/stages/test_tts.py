"""The assistant's words become sound: sentence by sentence, once, and not after an interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rxstage import (
    Data,
    Failure,
    Message,
    Pipeline,
    ProviderStage,
    StageError,
    StreamElement,
    ToolResult,
)
from rxstage.conversation import HISTORY, PROMPT, TRANSCRIPT
from rxstage.dialogue.errors import AnswerWithdrawn
from rxstage.ports import SpeechError
from rxstage.providers import Reply, ScriptedProvider
from rxstage.stages.tts import TTSStage
from rxstage.testing import ScriptedTts, assert_no_leaks, check_stage, run_virtual
from rxstage.voice.clauses import ClauseSplitter
from rxstage.voice.speech import Spoken

END = StreamElement.end_of_turn


async def feed(*steps: tuple[float, Any]) -> AsyncIterator[Any]:
    for seconds, value in steps:
        await asyncio.sleep(seconds)
        yield value


def spoken(elements: Any) -> list[str]:
    """The marks, and the kinds of what lies between them; sound in one word."""
    names: list[str] = []
    for element in elements:
        if element.audio is not None:
            if names[-1:] != ["~"]:
                names.append("~")
        elif isinstance(element.data, Spoken):
            names.append(f"<{element.data.text}>")
        else:
            names.append(element.text or type(element.content).__name__)
    return names


def taken(pipeline: Pipeline, *steps: tuple[float, Any]) -> list[StreamElement]:
    async def main() -> list[StreamElement]:
        return [element async for element in pipeline.execute(feed(*steps))]

    with assert_no_leaks():
        return run_virtual(main())


def test_an_answer_is_spoken_sentence_by_sentence() -> None:
    """The first sound comes after the first clause, with the text ahead of it and a mark behind it."""
    tts = ScriptedTts()
    source = [
        "Well, hello there, ",
        "you. ",
        "How are",
        " you?",
        Message.assistant("Well, hello there, you. How are you?"),
        END(),
    ]
    result = Pipeline.of(TTSStage(tts=tts)).run(source)
    assert tts.said == ["Well, hello there,", "you.", "How are you?"]
    assert spoken(result.elements) == [
        "Well, hello there, ",
        "~",
        "<Well, hello there, >",
        "you. ",
        "~",
        "<you. >",
        "How are",
        " you?",
        "Message",
        "~",
        "<How are you?>",
        "EndOfTurn",
    ]
    sound = b"".join(element.audio.samples for element in result.elements if element.audio)
    assert len(sound) / 32_000 == pytest.approx(0.05 * len("Well, hello there,you.How are you?"), abs=0.01)


def test_a_message_alone_is_spoken_once() -> None:
    """Where no pieces came the message is spoken; where they came it is not spoken again."""
    tts = ScriptedTts()
    source = [
        Message.assistant("All at once."),
        END(),
        "In pieces.",
        Message.assistant("In pieces."),
        END(),
        "No message.",
        END(),
    ]
    Pipeline.of(TTSStage(tts=tts)).run(source)
    assert tts.said == ["All at once.", "In pieces.", "No message."]


def test_what_is_not_the_assistants_is_not_spoken() -> None:
    """Transcripts, users, results, data, instructions and old messages are passed on in silence."""
    tts = ScriptedTts()
    source = [
        StreamElement.of("I am the user.", metadata={TRANSCRIPT: "final"}),
        StreamElement(Message.assistant("Long ago."), metadata={HISTORY: True}),
        StreamElement(Message.assistant("An example."), metadata={PROMPT: "p"}),
        Message.user("Hello."),
        Message.system("Be kind."),
        ToolResult("1", "a result"),
        {"a": 1},
    ]
    result = Pipeline.of(TTSStage(tts=tts)).run(source)
    assert tts.said == []
    assert len(result.elements) == 7


def test_markdown_is_not_spoken() -> None:
    """Marks, code and addresses are left out; what has no letters makes no sound, but its mark."""
    tts = ScriptedTts()
    text = "This is **very** `good`. See [the page](http://x.y/z). \n```python\nprint()\n```\n--- \n"
    result = Pipeline.of(TTSStage(tts=tts)).run([text, END()])
    assert tts.said == ["This is very good.", "See the page."]
    marks = "".join(element.data.text for element in result.elements if isinstance(element.data, Spoken))
    assert marks.strip() == text.strip()
    raw = ScriptedTts()
    Pipeline.of(TTSStage(tts=raw, markdown=False)).run(["a *b* c.", END()])
    assert raw.said == ["a *b* c."]


def test_an_interrupt_stops_in_mid_word() -> None:
    """The synthesis is closed at once, what was not said yet is never said, and the next answer is spoken."""
    tts = ScriptedTts(delay=0.5)
    long = "This is a long sentence, that nobody wants to hear. And one more."
    out = taken(
        Pipeline.of(TTSStage(tts=tts)),
        (0, long),
        (0, END()),
        (1.1, StreamElement.interrupt()),
        (0, "Next one."),
        (0, END()),
    )
    assert tts.said == ["This is a long sentence,", "Next one."]
    assert tts.stopped == ["This is a long sentence,"]
    assert spoken(out) == [long, "~", "Interrupt", "Next one.", "~", "<Next one.>", "EndOfTurn"]


def test_an_interrupt_while_the_answer_is_generated() -> None:
    """From provider to sound: what was generated and not spoken is gone."""
    provider = ScriptedProvider(Reply(text="One. Two. Three. Four. ", token_delay=1.0), "Yes?")
    tts = ScriptedTts()
    pipeline = Pipeline.of(ProviderStage(provider=provider) >> TTSStage(tts=tts, first_clause=1))
    taken(pipeline, (0, Message.user("Count.")), (1.5, StreamElement.interrupt()), (0, Message.user("Stop.")))
    assert tts.said == ["One.", "Yes?"]


def test_a_withdrawn_answer_is_forgotten() -> None:
    """What was not spoken of an answer that begins again is not spoken."""
    tts = ScriptedTts()
    void = Failure(AnswerWithdrawn("The answer is for", None))
    Pipeline.of(TTSStage(tts=tts)).run(["The answer is for", void, "It is 42.", Message.assistant("It is 42."), END()])
    assert tts.said == ["It is 42."]


@pytest.mark.parametrize(
    ("policy", "names"),
    [("emit", ["bad one. ", "Failure", "good one.", "~"]), ("skip", ["bad one. ", "good one.", "~"])],
)
def test_a_failed_synthesis(policy: Any, names: list[str]) -> None:
    """The text has gone on, and the next sentence is spoken; by default the execution fails."""

    def tts() -> ScriptedTts:
        return ScriptedTts(error={"bad": SpeechError("no voice", engine="scripted")})

    result = Pipeline.of(TTSStage(tts=tts(), on_error=policy, first_clause=1)).run(["bad one. ", "good one.", END()])
    assert spoken(result.elements)[:-2] == names
    with pytest.raises(StageError, match="no voice"):
        Pipeline.of(TTSStage(tts=tts())).run(["bad one.", END()])


def test_what_is_no_engine() -> None:
    """It is refused by name."""
    with pytest.raises(TypeError, match="stage 'tts': tts must be a Tts or a name such as 'espeak', got 3"):
        TTSStage("tts", tts=3)


def test_an_engine_that_hangs() -> None:
    """It is given up after `timeout` seconds without a piece of sound; pieces that come are never too late together."""
    tts = ScriptedTts(delay=4.0)
    pipeline = Pipeline.of(TTSStage(tts=tts, timeout=5.0, first_clause=1, on_error="emit"))
    assert spoken(taken(pipeline, (0, "Slow."), (0, END()))) == ["Slow.", "~", "<Slow.>", "EndOfTurn"]
    tts = ScriptedTts(delay=6.0)
    pipeline = Pipeline.of(TTSStage(tts=tts, timeout=5.0, first_clause=1, on_error="emit"))
    (_, failed, _) = taken(pipeline, (0, "Hangs."), (0, END()))
    assert isinstance(failed.content, Failure)
    assert isinstance(failed.content.error, TimeoutError)
    assert str(failed.content.error) == "'scripted' made no sound for 5 s; give it a longer timeout"
    assert tts.stopped == ["Hangs."]


def test_an_engine_that_makes_no_sound() -> None:
    """What is no `Audio` is told by name, and goes nowhere."""

    class Broken(ScriptedTts):
        async def speak(self, text: str) -> AsyncIterator[Any]:
            yield text

    with pytest.raises(StageError, match=r"speak\(\) of 'scripted' has to give Audio, got 'Hello\.'"):
        Pipeline.of(TTSStage(tts=Broken())).run(["Hello.", END()])


@pytest.mark.parametrize("size", [5, 10_000])
def test_long_code_is_not_spoken(size: int) -> None:
    """A block of code of any length is left out, whether it streams or not, and what follows it is spoken."""
    tts = ScriptedTts(seconds=0.001)
    code = "".join(f"def f{number}(x): return x + {number}\n" for number in range(40))
    text = f"Here is the code you want:\n```python\n{code}```\nThat was it. Enjoy.\n"
    result = Pipeline.of(TTSStage(tts=tts)).run([*(text[at : at + size] for at in range(0, len(text), size)), END()])
    assert tts.said == ["Here is the code you want:", "That was it.", "Enjoy."]
    marks = "".join(element.data.text for element in result.elements if isinstance(element.data, Spoken))
    assert "".join(marks.split()) == "".join(text.split())


def test_laws() -> None:
    """It keeps the laws of a stage."""
    check_stage(lambda: TTSStage(tts=ScriptedTts()), ["One. ", "Two. ", Message.assistant("One. Two. "), Data(1)])


# ------------------------------------------------------------------------------------------ clauses


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello there. How are you? Fine!", ["Hello there. ", "How are you? ", "Fine!"]),
        ("It costs 3.14 dollars, or more. Yes.", ["It costs 3.14 dollars, ", "or more. ", "Yes."]),
        ("Dr. Smith met Mr. Jones. They spoke.", ["Dr. Smith met Mr. Jones. ", "They spoke."]),
        ("Well… maybe. “Yes.” he said.", ["Well… maybe. ", "“Yes.” ", "he said."]),
        ("今日は。元気です。", ["今日は。元気です。"]),
        ("- one\n- two\n", ["- one\n- two\n"]),
        ("", []),
    ],
)
def test_clauses(text: str, pieces: list[str]) -> None:
    """Text is cut where a sentence ends, however it streams in; nothing is lost."""
    for size in (1, 3, 1000):
        splitter = ClauseSplitter()
        found = [piece for at in range(0, len(text), size) for piece in splitter.add(text[at : at + size])]
        found += filter(None, [splitter.rest()])
        assert "".join(found) == text
        if size == 1000:
            assert found == pieces


def test_a_text_without_an_end_is_cut() -> None:
    """What never ends is spoken in pieces of 400 characters at most, cut at spaces."""
    splitter = ClauseSplitter()
    found = splitter.add("word " * 1000)
    assert all(len(piece) <= 400 for piece in found)
    assert "".join([*found, splitter.rest()]) == "word " * 1000


def test_ten_thousand_sentences_at_once() -> None:
    """None is lost, and the last is found as the first."""
    splitter = ClauseSplitter()
    assert splitter.add("This is a sentence. " * 10_000) == ["This is a sentence. "] * 10_000
    assert splitter.rest() == ""
