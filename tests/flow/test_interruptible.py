"""What a function of the whole stream can do beside reading and yielding: be cut short, post, hold, share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rxstage import (
    Data,
    MapStage,
    Pipeline,
    PipelineConfig,
    Priority,
    RxStageError,
    StageContext,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
)
from rxstage.testing import assert_no_leaks, run_virtual

Elements = AsyncIterator[StreamElement]


def streaming(function: Callable[..., Any]) -> Pipeline:
    return Pipeline.of(StageFunc("talk", StageType.TRANSFORM, function))


async def counting(closed: list[str], text: str | None) -> AsyncIterator[str]:
    try:
        for number in range(1_000_000):
            await asyncio.sleep(1.0)
            yield f"{text}{number}"
    finally:
        closed.append(text or "")


async def feed(*steps: tuple[float, Any]) -> AsyncIterator[Any]:
    for seconds, value in steps:
        await asyncio.sleep(seconds)
        yield value


def shown(elements: list[StreamElement]) -> list[Any]:
    return [element.text or type(element.content).__name__ for element in elements]


def test_an_interrupt_cuts_it_short() -> None:
    """The loop ends at the interrupt, the iterator is closed, and the next element is answered."""
    closed: list[str] = []
    cut: list[bool] = []

    async def talk(elements: Elements, context: StageContext) -> AsyncIterator[str]:
        async for element in elements:
            if element.is_control:
                continue
            async with context.interruptible(counting(closed, element.text)) as words:
                async for word in words:
                    yield word
                    if word == "b1":
                        break
            cut.append(words.interrupted)

    async def main() -> list[Any]:
        source = feed((0, "a"), (2.5, StreamElement.interrupt()), (0, "b"))
        return shown([element async for element in streaming(talk).execute(source)])

    assert run_virtual(main()) == ["a0", "a1", "Interrupt", "b0", "b1"]
    assert closed == ["a", "b"]
    assert cut == [True, False]


def test_what_begins_after_the_interrupt_and_before_it_is_seen_is_cut_short_at_once() -> None:
    """A second iteration of the interrupted turn does not even begin."""
    begun: list[str] = []

    async def piece(name: str) -> AsyncIterator[str]:
        begun.append(name)
        yield name
        await asyncio.sleep(10.0)

    async def talk(elements: Elements, context: StageContext) -> AsyncIterator[str]:
        async for element in elements:
            for name in ("first", "second") if not element.is_control else ():
                async with context.interruptible(piece(f"{element.text} {name}")) as words:
                    async for word in words:
                        yield word
                assert context.interrupted is words.interrupted

    async def main() -> list[Any]:
        source = feed((0, "a"), (1, StreamElement.interrupt()), (100, "b"))
        return shown([element async for element in streaming(talk).execute(source)])

    assert run_virtual(main()) == ["a first", "Interrupt", "b first", "b second"]
    assert begun == ["a first", "b first", "b second"]


def test_it_runs_ahead_by_sixteen() -> None:
    """An iterator in front of a slow consumer is slowed."""
    made: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    async def talk(elements: Elements, context: StageContext) -> AsyncIterator[int]:
        async for _ in elements:
            async with context.interruptible(numbers()) as words:
                async for word in words:
                    await asyncio.sleep(1.0)
                    if word == 0:
                        yield len(made)
                        break

    async def main() -> list[StreamElement]:
        return [element async for element in streaming(talk).execute("go")]

    assert 16 <= run_virtual(main())[0].data <= 17


def test_an_error_reaches_the_loop() -> None:
    """What the iterator raises is raised where it is iterated, after what came before it."""

    async def broken() -> AsyncIterator[str]:
        yield "one"
        raise ValueError("broken")

    async def talk(elements: Elements, context: StageContext) -> AsyncIterator[str]:
        async for _ in elements:
            async with context.interruptible(broken()) as words:
                try:
                    async for word in words:
                        yield word
                except ValueError as error:
                    yield str(error)

    assert streaming(talk).run("go").text == "onebroken"


def test_nothing_is_left_behind() -> None:
    """A cancelled execution ends the iterator; a loop that is left early closes it."""
    closed: list[str] = []

    async def talk(elements: Elements, context: StageContext) -> AsyncIterator[str]:
        async for element in elements:
            async with context.interruptible(counting(closed, element.text)) as words:
                async for word in words:
                    yield word

    async def main() -> None:
        async with streaming(talk).execute(feed((0, "a"), (1e6, "b"))) as execution:
            async for element in execution:
                if element.text == "a3":
                    break

    with assert_no_leaks():
        run_virtual(main())
    assert closed == ["a"]


def test_only_a_function_of_the_whole_stream_has_it() -> None:
    """Elsewhere the error says so."""

    async def one(element: StreamElement, context: StageContext) -> StreamElement:
        context.interruptible(counting([], ""))
        return element

    with pytest.raises(StageError, match="stage 'one' is no function of the whole stream") as caught:
        Pipeline.of(MapStage("one", one)).run("x")
    assert isinstance(caught.value.__cause__, RxStageError)


def test_post() -> None:
    """What a stage posts comes to it after what waits, and not at all past the end of its input."""
    refused: list[str] = []

    async def talk(elements: Elements, context: StageContext) -> AsyncIterator[StreamElement]:
        async for element in elements:
            if element.text == "a":
                context.post("posted")
                context.post(StreamElement.end_of_turn())
            yield element
        try:
            context.post("late")
        except RxStageError as error:
            refused.append(str(error))

    async def main() -> list[Any]:
        return shown([element async for element in streaming(talk).execute(feed((0, "a"), (1, "b")))])

    assert run_virtual(main()) == ["a", "posted", "EndOfTurn", "b"]
    assert refused == ["stage 'talk' gets nothing more: its input has ended"]


def test_an_interrupt_takes_what_was_posted_unless_it_is_critical() -> None:
    """What is posted is content of the turn like any other."""

    async def talk(elements: Elements, context: StageContext) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield element
            if element.text == "a":
                context.post("gone")
                context.post(StreamElement(Data("kept"), priority=Priority.CRITICAL))
                await asyncio.sleep(5.0)

    async def main() -> list[Any]:
        source = feed((0, "a"), (1, StreamElement.interrupt()))
        return shown([element async for element in streaming(talk).execute(source)])

    assert run_virtual(main()) == ["a", "Interrupt", "Data"]


def test_hold() -> None:
    """A control that is held goes on when it is yielded, however much is read meanwhile."""

    async def talk(elements: Elements, context: StageContext) -> AsyncIterator[Any]:
        async for element in elements:
            if element.is_control:
                context.hold(element)
                after = await anext(elements, None)
                yield f"before, with {after.text if after is not None else None}"
                yield element
            else:
                yield element

    source = ["a", StreamElement.end_of_turn(), "b", "c", StreamElement.end_of_turn()]
    assert shown(list(streaming(talk).run(source).elements)) == [
        "a",
        "before, with b",
        "EndOfTurn",
        "c",
        "before, with None",
        "EndOfTurn",
    ]


def test_a_held_control_is_never_lost() -> None:
    """One that is never yielded goes on at the end, in order; an interrupt takes the end of the turn it ends."""

    async def talk(elements: Elements, context: StageContext) -> AsyncIterator[Any]:
        async for element in elements:
            if element.is_control:
                context.hold(element)
            else:
                yield element

    source = [StreamElement.of(ValueError("x")), "a", StreamElement.end_of_turn()]
    assert shown(list(streaming(talk).run(source).elements)) == ["a", "Failure", "EndOfTurn"]

    async def main() -> list[Any]:
        source = feed((0, StreamElement.end_of_turn()), (1, StreamElement.interrupt()), (1, "b"))
        return shown([element async for element in streaming(talk).execute(source)])

    assert run_virtual(main()) == ["Interrupt", "b"]


def test_shared() -> None:
    """The stages of an execution have one object in common; another execution has its own."""

    def noted(name: str) -> StageFunc:
        async def note(elements: Elements, context: StageContext) -> AsyncIterator[StreamElement]:
            notes = context.shared("notes", list[str])
            async for element in elements:
                notes.append(f"{name} {element.text}")
                yield element.replace(content=Data(list(notes)))

        return StageFunc(name, StageType.TRANSFORM, note)

    pipeline = Pipeline.of(noted("a") >> noted("b"), config=PipelineConfig())
    for _ in range(2):
        assert pipeline.run("x").elements[0].data == ["a x", "b None"]


def test_an_end_of_turn_that_an_interrupt_took_is_not_yielded() -> None:
    """The function holds the end of a turn, the interrupt ends that turn: yielding it then does nothing."""

    async def talk(elements: Elements, context: StageContext) -> AsyncIterator[Any]:
        async for element in elements:
            if element.is_control:
                context.hold(element)
                await asyncio.sleep(5.0)
            yield element

    async def main() -> list[Any]:
        source = feed((0, StreamElement.end_of_turn()), (1, StreamElement.interrupt()), (9, "b"))
        return shown([element async for element in streaming(talk).execute(source)])

    assert run_virtual(main()) == ["Interrupt", "b"]
