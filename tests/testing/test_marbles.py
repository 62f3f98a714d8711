"""Marble text: read, written, run through pipelines in virtual time, and drawn."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reactivex import operators as ops
from reactivex.testing import TestScheduler

from rxstage import (
    Data,
    EndOfTurn,
    Failure,
    GenerateStage,
    Interrupt,
    MapStage,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineConfig,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
    Text,
)
from rxstage.testing import elements_from, marbles_of, marbles_svg, run_marbles
from rxstage.testing.marbles import MarbleRecord
from rxstage.testing.notation import Mark, format_marks, parse_marks


def upper(name: str = "upper") -> MapStage:
    return MapStage(name, str.upper, on=Text)


# ------------------------------------------------------------------------------------------ notation


def test_marks() -> None:
    """Characters are ticks; a group stands at its parenthesis and takes its characters."""
    marks, ticks = parse_marks("-a-bc (d,ef) -/!|")
    assert marks == [
        Mark(1, "a"),
        Mark(3, "bc", 2),
        Mark(5, "d"),
        Mark(5, "ef"),
        Mark(12, "/"),
        Mark(13, "!"),
        Mark(14, "|"),
    ]
    assert ticks == 15
    assert parse_marks("(cd|)") == ([Mark(0, "c"), Mark(0, "d"), Mark(0, "|")], 5)
    assert parse_marks("-(HI!,x)-")[0] == [Mark(1, "HI!"), Mark(1, "x")]


@pytest.mark.parametrize("line", ["-a-|-b", "(a", "a,b", "(a|b)", "-*-", "(a,-)", "-#-/"])
def test_nonsense(line: str) -> None:
    """What has no meaning, or stands behind the end, is refused."""
    with pytest.raises(ValueError, match=r"unexpected|behind the end"):
        parse_marks(line)


name = st.text("abcxyz019", min_size=1, max_size=3)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(name | st.sampled_from("/!?"), min_size=1, max_size=3))),
    st.sampled_from("|#-"),
)
def test_round_trip(steps: list[tuple[int, list[str]]], end: str) -> None:
    """What is written is read again as what it was."""
    marks: list[Mark] = []
    tick = 0
    for gap, texts in steps:
        tick += gap
        many = len(texts) > 1
        marks += [Mark(tick, text, 1 if many else len(text)) for text in texts]
        tick += len(format_marks([Mark(0, text) for text in texts])) + 1
    if end != "-":
        marks.append(Mark(tick, end))
    assert parse_marks(format_marks(marks))[0] == marks


def test_too_close() -> None:
    """Things that have no room on the line are refused, with the remedy."""
    with pytest.raises(ValueError, match="smaller timespan"):
        format_marks([Mark(0, "a"), Mark(0, "b"), Mark(1, "c")])


# ------------------------------------------------------------------------------------------ in and out


def test_elements_from() -> None:
    """Names are texts, or what the lookup says; signs are controls; all at their ticks."""
    scheduler = TestScheduler()
    error = ValueError("the end")
    lookup = {"n": 7, "e": StreamElement.of("E", metadata={"k": 1})}
    source = elements_from("-a-(n,e)-/!?#", lookup=lookup, error=error, timespan=0.5)
    observer = scheduler.start(lambda: source, created=1, subscribed=10, disposed=100)
    assert [message.time - 10 for message in observer.messages] == [0.5, 1.5, 1.5, 4.5, 5.0, 5.5, 6.0]
    told: list[Any] = [message.value for message in observer.messages]
    contents = [each.value.content for each in told[:-1]]
    assert contents[:2] == [Text("a"), Data(7)]
    assert told[2].value is lookup["e"]
    assert [type(content) for content in contents[3:]] == [EndOfTurn, Interrupt, Failure]
    assert told[-1].exception is error
    assert marbles_of(observer.messages, lookup=lookup, timespan=0.5, start=10) == "-a-(ne)--/!?#"


def test_elements_from_has_a_scheduler_of_its_own() -> None:
    """A scheduler that is given goes before that of the subscription; disposing stops the timers."""
    scheduler = TestScheduler()
    seen: list[str | None] = []
    subscription = elements_from("a-b-c|", scheduler=scheduler).subscribe(lambda element: seen.append(element.text))
    scheduler.advance_to(3)
    subscription.dispose()
    scheduler.advance_to(10)
    assert seen == ["a", "b"]


def test_marbles_of_records() -> None:
    """Times are rounded to ticks from the start; what has no short name goes by its kind."""
    records = [
        MarbleRecord(10.1, "next", StreamElement.of("a")),
        MarbleRecord(11.9, "next", StreamElement.of("two words")),
        MarbleRecord(30.0, "completed"),
    ]
    assert marbles_of(records, start=10) == "a-Text--------------|"
    assert marbles_of(records[:1], start=10, ticks=5) == "a----"


# ------------------------------------------------------------------------------------------ through


def test_synchronous_stage() -> None:
    """A plain stage keeps every time, and controls pass."""
    run = run_marbles(upper(), "-a-(bc)-/-!-?|")
    assert run == "-A-(BC)-/-!-?|"
    assert run.text == "-A-(BC)-/-!-?|"
    assert run != "-A-(BC)-/-!-?-|"
    assert [element.timestamp for element in run.elements[:2]] == [1.0, 3.0]


def test_operators_with_time() -> None:
    """Operators with time run on the same clock, in a stage and bare."""
    assert run_marbles(OperatorStage("settle", ops.debounce(2)), "-a-bc-----d-|") == "-----bc-----(d|)"
    assert run_marbles(ops.delay(3), "-a-b|") == "----a-b|"
    assert run_marbles(Pipeline.of(OperatorStage("d", ops.delay(1.5)), upper()), "a--b|", timespan=0.5) == "---A--B|"


def test_asynchronous_stage() -> None:
    """A graph that needs a loop runs on one in virtual time."""

    async def slow(text: str) -> str:
        await asyncio.sleep(3)
        return text.upper()

    assert run_marbles(MapStage("slow", slow, on=Text), "-a------b-|") == "----A------(B|)"
    assert run_marbles(MapStage("slow", slow, on=Text, concurrency=2), "-ab-|") == run_marbles(
        MapStage("slow", slow, on=Text), "-ab-|"
    )
    assert run_marbles(MapStage("slow", slow, on=Text, interruptible=True), "-a-!-b-----|") == "---!----B--|"


def test_whole_stream_and_producer() -> None:
    """Stages with a task of their own, and one that goes on by itself past the text."""

    async def turns(elements: AsyncIterator[StreamElement]) -> AsyncIterator[str]:
        words: list[str] = []
        async for element in elements:
            if element.text is not None:
                words.append(element.text)
            elif isinstance(element.content, EndOfTurn):
                yield "".join(words)
                words.clear()

    async def ticks() -> AsyncIterator[str]:
        while True:
            await asyncio.sleep(2)
            yield "t"

    assert run_marbles(StageFunc("turns", StageType.ACCUMULATE, turns), "a-b-/------c-/---|") == "----(ab,/)---(c/)|"
    assert run_marbles(GenerateStage("ticks", ticks), "---------|", ticks=7) == "--t-t-t"


def test_errors() -> None:
    """An error of the source is `#`; so is one of a stage, which the run keeps."""
    run = run_marbles(MapStage("bad", lambda text: 1 / 0, on=Text), "--a--b|")
    assert run == "--#"
    assert isinstance(run.error, StageError)
    assert run_marbles(upper(), "-a-#", error=ValueError("x")) == "-A-#"


def test_configured_times() -> None:
    """A time limit makes a plain graph run on the loop, where it counts."""
    pipeline = Pipeline.of(upper(), config=PipelineConfig(idle_timeout=5.0))
    run = run_marbles(pipeline, "-a-b--------------")
    assert run.error is not None
    assert "nothing moved" in str(run.error)


def test_text_that_has_no_room() -> None:
    """Outputs too close for a line still compare, and show themselves as records."""
    records = (MarbleRecord(0.0, "next", StreamElement.of("word")), MarbleRecord(1.0, "completed"))
    run = type(run_marbles(PassthroughStage("p"), "|"))(records)
    assert repr(run) == "0s:word 1s:|"
    with pytest.raises(ValueError, match="timespan"):
        str(run)


def test_runs_compare() -> None:
    """A run is not equal to anything that is no text and no run."""
    run = run_marbles(PassthroughStage("p"), "a|")
    assert run == run_marbles(PassthroughStage("p"), "a|")
    assert run != 5
    assert repr(run) == "'a|'"
    assert "<svg" in run._repr_svg_()


# ------------------------------------------------------------------------------------------ drawn


def marbles_in(svg: str) -> list[str]:
    texts = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return [text.text or "" for text in texts]


def test_svg() -> None:
    """Every marble, operator and name is in the picture, which is well-formed."""
    svg = marbles_svg("in: --a--(b,cd)--/--|\n[ upper <x> ]\nout --A---#")
    assert marbles_in(svg) == ["in", "a", "b", "cd", "/", "upper <x>", "out", "A"]
    assert ET.fromstring(svg).get("role") == "img"
    assert "EndOfTurn" in svg


def test_svg_without_marbles() -> None:
    """An operator alone, or a stream without elements, is a picture too."""
    assert marbles_in(marbles_svg("[ never ]\n----")) == ["never"]
    assert marbles_in(marbles_svg("--!--?--")) == ["!", "?"]
    assert marbles_in(marbles_svg("^--a-|")) == ["a"]


@pytest.mark.parametrize("text", ["", "  \n", "what is this", "--a--*", "a b c ("])
def test_svg_nonsense(text: str) -> None:
    """Text that is no marbles is refused with the line."""
    with pytest.raises(ValueError, match=r"marbles|unexpected"):
        marbles_svg(text)
