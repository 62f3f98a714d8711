"""The laws of a stage: kept by stages of every shape, and each broken by a stage made for it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import pytest
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from rxstage import (
    Audio,
    EndOfTurn,
    FilterStage,
    FlatMapStage,
    GenerateStage,
    MapStage,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineConfig,
    SinkStage,
    Stage,
    StageFunc,
    StageType,
    StreamElement,
    Text,
)
from rxstage.testing import LAWS, LawBroken, LawReport, check_stage


async def slow(text: str) -> str:
    await asyncio.sleep(0.05)
    return text.upper()


def twice(text: str) -> Iterator[str]:
    yield text
    yield text


async def twice_slowly(text: str) -> AsyncIterator[str]:
    yield text
    await asyncio.sleep(0.05)
    yield text


async def turns(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    async for element in elements:
        yield element


def ticks() -> Iterator[str]:
    yield from ("one", "two", "three")


GOOD: dict[str, Callable[[], Stage]] = {
    "map": lambda: MapStage("map", str.upper, on=Text),
    "passthrough": lambda: PassthroughStage("pass"),
    "filter": lambda: FilterStage("filter", lambda text: "a" in text, on=Text),
    "flat": lambda: FlatMapStage("flat", twice, on=Text),
    "sink": lambda: SinkStage("sink", lambda text: None, on=Text),
    "audio": lambda: MapStage("audio", lambda audio: audio, on=Audio),
    "emit": lambda: MapStage("emit", str.upper, on=Text, on_error="emit"),
    "async": lambda: MapStage("async", slow, on=Text),
    "async flat": lambda: FlatMapStage("flat", twice_slowly, on=Text),
    "concurrent": lambda: MapStage("concurrent", slow, on=Text, concurrency=3),
    "unordered": lambda: MapStage("unordered", slow, on=Text, concurrency=3, ordered=False),
    "interruptible": lambda: MapStage("interruptible", slow, on=Text, interruptible=True),
    "blocking": lambda: MapStage("blocking", str.upper, on=Text, blocking=True),
    "timeout": lambda: MapStage("timeout", slow, on=Text, timeout=3.0),
    "stream": lambda: StageFunc("stream", StageType.TRANSFORM, turns),
    "producer": lambda: GenerateStage("producer", ticks),
    "operator": lambda: OperatorStage("operator", ops.map(lambda element: element.replace(content="x"))),
    "operator with controls": lambda: OperatorStage("operator", ops.map(lambda e: e), sees_controls=True),
    "pipeline": lambda: Pipeline.of(MapStage("a", str.upper, on=Text), MapStage("b", slow, on=Text)),
}


@pytest.mark.parametrize("shape", GOOD)
def test_good_stages_keep_the_laws(shape: str) -> None:
    """A stage of each shape keeps every law, and most apply to it."""
    report = check_stage(GOOD[shape])
    assert set(report.kept) | set(report.skipped) == set(LAWS)
    assert len(report.kept) >= len(LAWS) - 5, report.skipped


class Raising(Stage):
    """Fails at the end."""

    def build(self, source: Observable[StreamElement]) -> Observable[Any]:
        return rx.concat(source, rx.throw(ValueError("at the end")))


class Never(Stage):
    """Does not end."""

    def build(self, source: Observable[StreamElement]) -> Observable[Any]:
        return rx.concat(source, rx.never())


class Task(Stage):
    """Leaves a task behind."""

    async def process(self, elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        left.append(asyncio.get_running_loop().create_task(asyncio.sleep(1e5)))
        async for element in elements:
            yield element


left: list[Any] = []


class Swallows(Stage):
    """Calls an error of the source the end."""

    def build(self, source: Observable[StreamElement]) -> Observable[Any]:
        return source

    def __call__(self, source: Observable[Any]) -> Observable[StreamElement]:
        return super().__call__(source.pipe(ops.catch(rx.empty())))


class Counting(Stage):
    """Has state that all executions share."""

    accepts: ClassVar[Any] = Text
    count: Any = None

    def apply(self, element: StreamElement) -> str:
        return f"{element.text}{next(self.count)}"


class Bare(Stage):
    """Makes elements that have lost the metadata."""

    accepts: ClassVar[Any] = Text

    def apply(self, element: StreamElement) -> StreamElement:
        return StreamElement.of(element.text)


class Hoards(Stage):
    """Gives everything at the end, the content before the controls."""

    async def process(self, elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        kept = [element async for element in elements if not element.is_control]
        for element in kept:
            yield element


class Doubles(Stage):
    """Yields a control twice."""

    async def process(self, elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield element
            if element.is_control:
                yield element


def broken(factory: Callable[[], Stage] | Stage, law: str, **options: Any) -> LawBroken:
    with pytest.raises(LawBroken) as caught:
        check_stage(factory, only=[law], **options)
    assert caught.value.law == law
    assert caught.value.seen in str(caught.value)
    assert repr(caught.value.stage) in str(caught.value)
    return caught.value


def test_error_at_the_end() -> None:
    """A stage that fails on good inputs breaks the law of the terminal, with the cause attached."""
    error = broken(lambda: Raising("bad"), "terminal")
    assert error.stage == "bad"
    assert "at the end" in error.seen
    assert "at the end" in broken(lambda: Raising("bad"), "empty").seen


def test_no_end() -> None:
    """A stage that does not end with its source is named, in no real time."""
    assert "86400" in broken(lambda: Never("bad"), "empty").seen
    assert "no terminal" in broken(lambda: Never("bad"), "terminal").seen


def test_something_left_behind() -> None:
    """A task that outlives the execution is named."""
    assert "sleep" in broken(lambda: Task("bad"), "endless").seen
    left.clear()


def test_endless_output() -> None:
    """A stage that never stops emitting is stopped and named."""
    stage = FlatMapStage("bad", lambda text: itertools.repeat(text), on=Text)

    def many(text: str) -> Iterator[str]:
        yield from itertools.repeat(text, 20_000)

    assert stage.name == "bad"
    assert "more than 10000" in broken(lambda: FlatMapStage("bad", many, on=Text), "forms").seen


def test_shared_state() -> None:
    """A counter on the stage object is found by all laws about repetition."""
    stage = Counting("bad", count=itertools.count())
    assert "alpha" in broken(stage, "reusable").seen
    assert "at once" in broken(Counting("bad", count=itertools.count()), "independent").seen


def test_lost_metadata() -> None:
    """An element made without the metadata of its input is shown."""
    assert "alpha" in broken(lambda: Bare("bad"), "metadata").seen


def test_controls_out_of_place() -> None:
    """A control that comes twice is found; the engine itself sees to it that none is lost."""
    assert "came out" in broken(lambda: Doubles("bad"), "controls").seen
    assert check_stage(lambda: Hoards("good"), only=["controls"]).kept == ("controls",)


def test_wrong_forms() -> None:
    """Outputs that differ from one form to another are compared with the first."""
    seen = itertools.count()
    assert "before" in broken(lambda: MapStage("bad", lambda text: f"{text}{next(seen)}", on=Text), "forms").seen


def test_capacity() -> None:
    """A function that waits for more than there is room for is found out instead of hanging."""

    async def pairs(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        first: StreamElement | None = None
        async for element in elements:
            if element.content.__class__ is EndOfTurn:
                continue
            if first is None:
                first = element
                continue
            yield first
            yield element
            first = None
        if first is not None:
            await asyncio.Event().wait()

    assert "virtual" in broken(lambda: StageFunc("bad", StageType.TRANSFORM, pairs), "capacity_one").seen


def test_skipping() -> None:
    """A law can be skipped with a reason, which is in the report; without one, or with an unknown name, it cannot."""
    report = check_stage(lambda: Bare("bad"), skip={"metadata": "it starts a new stream"}, only=["metadata", "empty"])
    assert report == LawReport("bad", ("empty",), {"metadata": "it starts a new stream"})
    with pytest.raises(ValueError, match="why"):
        check_stage(lambda: Bare("bad"), skip={"metadata": " "})
    with pytest.raises(ValueError, match="there is no law 'metdata'"):
        check_stage(lambda: Bare("bad"), skip={"metdata": "because"})


def test_inputs() -> None:
    """Inputs are made up by what a stage accepts; for types that nobody knows they have to be given."""

    class Order:
        def __init__(self, number: int) -> None:
            self.number = number

    stage = MapStage("orders", lambda order: order, on=Order)
    with pytest.raises(ValueError, match="inputs"):
        check_stage(stage)
    orders = [Order(n) for n in range(3)]
    assert "terminal" in check_stage(stage, orders).kept
    with pytest.raises(ValueError, match="at least one"):
        check_stage(stage, [])
    with pytest.raises(TypeError, match="has to make a Stage"):
        check_stage(lambda: "no stage")  # type: ignore[arg-type, return-value]


def test_not_applicable() -> None:
    """What does not concern a stage is reported with a reason instead of kept."""
    skipped = check_stage(lambda: PassthroughStage("p"), only=["falsy", "envelope"]).skipped
    assert skipped == {"falsy": "it accepts everything", "envelope": "it accepts everything"}


def test_config() -> None:
    """The pipelines have the configuration that is given."""
    config = PipelineConfig(buffer_size=2, priority_queue=True)
    assert check_stage(GOOD["async"], config=config, only=["forms", "capacity_one"]).kept == ("capacity_one", "forms")


def test_every_law_says_what_holds() -> None:
    """Each law has a sentence for the message."""
    assert all((law.__doc__ or "").strip() for law in LAWS.values())
