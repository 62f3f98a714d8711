"""Stages round functions, operators and producers: the laws, and what each promises beside them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any, ClassVar, Optional

import pytest
import reactivex as rx
from pydantic import ValidationError
from reactivex import Observable
from reactivex import operators as ops

from rxstage import (
    Audio,
    Data,
    EndOfTurn,
    Failure,
    Fallback,
    FilterStage,
    FlatMapStage,
    GenerateStage,
    Image,
    Interrupt,
    MapStage,
    Message,
    OperatorStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    Retry,
    SinkStage,
    Stage,
    StageContext,
    StageError,
    StageFunc,
    StageType,
    StreamElement,
    Text,
    ToolCall,
    stage,
)
from rxstage.stage import Series, Shape
from rxstage.testing import LawBroken, assert_no_leaks, check_stage, run_marbles, run_virtual, settle, virtual

WAIT = 20.0


class Order:
    """A class of the application."""

    def __init__(self, number: int) -> None:
        self.number = number


class Special(Order):
    """One that is also an `Order`."""


def run(subject: Stage, *values: Any) -> list[Any]:
    """What comes out of one stage, on whatever it needs: payloads, and the kinds of controls."""
    result = Pipeline.of(subject).run(list(values), timeout=WAIT)
    return shown(result.elements)


def run_on_loop(subject: Stage, *values: Any) -> list[Any]:
    """The same in virtual time."""

    async def main() -> list[Any]:
        return shown((await Pipeline.of(subject).execute(list(values))).elements)

    return run_virtual(main)


def shown(elements: Iterable[StreamElement]) -> list[Any]:
    return [type(e.content).__name__ if e.is_control else e.payload for e in elements]


def failure(subject: Stage, *values: Any) -> StageError:
    with pytest.raises(StageError) as caught:
        run(subject, *values)
    return caught.value


# ------------------------------------------------------------------------------------------ the laws


def upper(text: str) -> str:
    return text.upper()


async def upper_async(text: str) -> str:
    await asyncio.sleep(0.01)
    return text.upper()


def twice(text: str) -> Iterator[str]:
    yield text
    yield text + text


async def twice_async(text: str) -> AsyncIterator[str]:
    yield text
    await asyncio.sleep(0.01)
    yield text + text


def no_b(text: str) -> bool:
    return "b" not in text


async def no_b_async(text: str) -> bool:
    await asyncio.sleep(0.01)
    return "b" not in text


async def nothing_async(text: str) -> None:
    await asyncio.sleep(0.01)


async def whole(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    async for element in elements:
        yield element


class Upper(Stage):
    """Upper case, by element."""

    accepts: ClassVar[Any] = Text

    def apply(self, element: StreamElement) -> str:
        assert element.text is not None
        return element.text.upper()


class UpperAsync(Stage):
    """Upper case, by element, slowly."""

    accepts: ClassVar[Any] = (Text,)

    async def apply(self, element: StreamElement, *, context: StageContext) -> str:
        await context.sleep(0.01)
        assert element.text is not None
        return element.text.upper()


class UpperStream(Stage):
    """Upper case, by stream."""

    async def process(self, elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            yield element.text.upper() if element.text is not None else element


def raised(element: StreamElement) -> StreamElement:
    return element.replace(content=(element.text or "").upper())


class UpperOperator(Stage):
    """Upper case, by operator."""

    def build(self, source: Observable[StreamElement]) -> Observable[Any]:
        return source.pipe(ops.map(raised))


LAWFUL: dict[str, Callable[[], Stage]] = {
    "map": lambda: MapStage("s", upper, on=Text),
    "map element": lambda: MapStage("s", lambda element: element),
    "map emit": lambda: MapStage("s", upper, on=Text, on_error="emit"),
    "map skip": lambda: MapStage("s", upper, on=Text, on_error="skip"),
    "map retry": lambda: MapStage("s", upper, on=Text, on_error=Retry(attempts=3)),
    "map fallback": lambda: MapStage("s", upper, on=Text, on_error=Fallback(PassthroughStage("other"))),
    "map async": lambda: MapStage("s", upper_async, on=Text),
    "map async emit": lambda: MapStage("s", upper_async, on=Text, on_error="emit"),
    "map concurrent": lambda: MapStage("s", upper_async, on=Text, concurrency=4),
    "map unordered": lambda: MapStage("s", upper_async, on=Text, concurrency=4, ordered=False),
    "map interruptible": lambda: MapStage("s", upper_async, on=Text, interruptible=True),
    "map blocking": lambda: MapStage("s", upper, on=Text, blocking=True),
    "map timeout": lambda: MapStage("s", upper_async, on=Text, timeout=5.0),
    "filter": lambda: FilterStage("s", no_b, on=Text),
    "filter async": lambda: FilterStage("s", no_b_async, on=Text),
    "flat": lambda: FlatMapStage("s", twice, on=Text),
    "flat list": lambda: FlatMapStage("s", list, on=Text),
    "flat skip": lambda: FlatMapStage("s", twice, on=Text, on_error="skip"),
    "flat async": lambda: FlatMapStage("s", twice_async, on=Text),
    "flat concurrent": lambda: FlatMapStage("s", twice_async, on=Text, concurrency=3),
    "sink": lambda: SinkStage("s", lambda text: None, on=Text),
    "sink async": lambda: SinkStage("s", nothing_async, on=Text),
    "passthrough": lambda: PassthroughStage("s"),
    "generate": lambda: GenerateStage("s", lambda: iter("xyz")),
    "stream": lambda: StageFunc("s", StageType.TRANSFORM, whole),
    "operator": lambda: OperatorStage("s", ops.map(lambda e: e), ops.filter(lambda e: True)),
    "operator with controls": lambda: OperatorStage("s", ops.map(lambda e: e), sees_controls=True),
    "class apply": lambda: Upper("s"),
    "class apply async": lambda: UpperAsync("s"),
    "class process": lambda: UpperStream("s"),
    "class build": lambda: UpperOperator("s"),
    "series": lambda: MapStage("a", upper, on=Text) >> FlatMapStage("b", twice, on=Text),
    "pipeline": lambda: Pipeline.of(MapStage("a", upper_async, on=Text)),
    "decorated": lambda: stage(upper),
}


@pytest.mark.parametrize("which", LAWFUL)
def test_laws(which: str) -> None:
    """Every stage keeps the laws of a stage."""
    report = check_stage(LAWFUL[which])
    assert "terminal" in report.kept
    assert "controls" in report.kept or which == "operator with controls"


# ------------------------------------------------------------------------------------------ map, filter, flat, sink


@pytest.mark.parametrize("make", [lambda f, **o: MapStage("m", f, **o)])
def test_map_forms(make: Callable[..., Stage]) -> None:
    """It gets the element, or the payload with `on`; other content passes by; a payload keeps its envelope."""
    element = StreamElement.of("a", metadata={"k": 1})
    assert run(make(lambda e: e.replace(content=e.text * 2)), element) == ["aa"]
    result = Pipeline.of(make(lambda text: len(text), on=Text)).run([element, 5])
    assert shown(result.elements) == [1, 5]
    assert result.elements[0].metadata == {"k": 1}
    assert result.elements[0].source == "m"
    assert run(make(lambda value: value + 1, on=int), 1, "a", 2.5) == [2, "a", 2.5]
    assert run(make(lambda p: str(p), on=(Text, int)), 1, "a", 2.5) == ["1", "a", 2.5]
    assert run(make(lambda message: message.text, on=Message), Message.user("hi"), "x") == ["hi", "x"]
    assert run(make(lambda order: order.number, on=Order), Special(3), "x") == [3, "x"]


def test_map_results() -> None:
    """Elements, contents, payloads, exceptions and controls may come out of a function; None may not."""
    assert run(MapStage("m", lambda e: Data(3)), "a") == [3]
    assert run(MapStage("m", lambda e: StreamElement.of("n")), "a") == ["n"]
    assert run(MapStage("m", lambda e: EndOfTurn()), "a") == ["EndOfTurn"]
    result = Pipeline.of(MapStage("m", lambda e: ValueError("v"))).run(["a"])
    assert [(f.stage, str(f.error)) for f in result.failures] == [("m", "v")]
    assert "FilterStage" in str(failure(MapStage("m", lambda e: None), "a"))
    assert run(MapStage("m", lambda e: Data(None)), "a") == [None]


def test_end_of_stream_from_a_function() -> None:
    """A function that gives an EndOfStream ends the input; what was before it comes out."""

    def until_c(text: str) -> Any:
        return StreamElement.end_of_stream() if text == "c" else text

    assert run(MapStage("m", until_c, on=Text), *"abcdef") == ["a", "b"]
    assert run_on_loop(MapStage("m", until_c, on=Text), *"abcdef") == ["a", "b"]


def test_filter() -> None:
    """CASE 11: what the predicate says, of content that it accepts; controls always pass."""
    controls = [StreamElement(EndOfTurn()), StreamElement.of(ValueError("x")), StreamElement(Interrupt())]
    assert run(FilterStage("f", lambda e: False), "a", *controls, "b") == ["EndOfTurn", "Failure", "Interrupt"]
    assert run(FilterStage("f", no_b, on=Text), "a", "b", 3) == ["a", 3]
    assert run(FilterStage("f", no_b_async, on=Text), "a", "b", 3) == ["a", 3]
    assert run(FilterStage("f", lambda n: n, on=int), 0, 1, 2, 0) == [1, 2]


def test_flat() -> None:
    """Any iterable of elements or payloads: lists, generators, async generators, nothing."""
    assert run(FlatMapStage("f", lambda text: [text, 1, StreamElement.of("z")], on=Text), "a") == ["a", 1, "z"]
    assert run(FlatMapStage("f", lambda text: (), on=Text), "a", 2) == [2]
    assert run(FlatMapStage("f", twice, on=Text), "a", "b") == ["a", "aa", "b", "bb"]
    assert run_on_loop(FlatMapStage("f", twice_async, on=Text), "a", "b") == ["a", "aa", "b", "bb"]

    async def listed(text: str) -> list[str]:
        return [text, text]

    assert run_on_loop(FlatMapStage("f", listed, on=Text), "a") == ["a", "a"]
    error = failure(FlatMapStage("f", lambda text: 5, on=Text), "a")
    assert isinstance(error.__cause__, TypeError)


def test_flat_emits_as_it_comes() -> None:
    """CASE 2: what a generator gave before it raised has gone on; with a policy it is all or nothing."""

    def breaks(text: str) -> Iterator[str]:
        yield text
        raise ValueError(text)

    result = Pipeline.of(FlatMapStage("f", breaks, on=Text)).run(["a", "b"], raise_on_error=False)
    assert shown(result.elements) == ["a"]
    assert isinstance(result.error, StageError)
    assert run(FlatMapStage("f", breaks, on=Text, on_error="emit"), "a", "b") == ["Failure", "Failure"]


def test_sink() -> None:
    """It gets what it accepts, lets only controls go on, and says so in the graph."""
    seen: list[Any] = []
    chain = SinkStage("s", seen.append, on=Text) >> PassthroughStage("behind")
    assert run(chain, "a", 1, StreamElement.end_of_turn(), "b") == ["EndOfTurn"]
    assert seen == ["a", "b"]
    assert SinkStage("s", print).type is StageType.SINK

    async def save(element: StreamElement) -> None:
        await asyncio.sleep(0.01)
        seen.append(element.payload)

    assert run_on_loop(SinkStage("s", save), "c", 4) == []
    assert seen == ["a", "b", "c", 4]


def test_wrong_functions() -> None:
    """What is no function, or one of the wrong kind, is refused where it is written."""
    for kind in (MapStage, FilterStage, SinkStage):
        with pytest.raises(TypeError, match="FlatMapStage"):
            kind("s", twice)
        with pytest.raises(TypeError, match="needs a function"):
            kind("s", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="async already"):
        MapStage("s", upper_async, blocking=True)
    with pytest.raises(ValueError, match="executor"):
        MapStage("s", upper_async, executor=ThreadPoolExecutor())
    with pytest.raises(TypeError, match="Executor"):
        MapStage("s", upper, executor="threads")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="concurrency"):
        MapStage("s", upper, concurrency=0)
    with pytest.raises(ValueError, match="timeout"):
        MapStage("s", upper, timeout=0.0)
    with pytest.raises(ValueError, match="on_error"):
        MapStage("s", upper, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="one element at a time"):
        MapStage("s", upper, on_error=Fallback(GenerateStage("g", list)))
    with pytest.raises(TypeError, match="Text"):
        MapStage("s", upper, on="text")
    with pytest.raises(ValueError, match="name"):
        MapStage("", upper)
    with pytest.raises(TypeError, match="iterator"):
        GenerateStage("s", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async iterator"):
        StageFunc("s", StageType.TRANSFORM, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Rx operator"):
        OperatorStage("s")
    with pytest.raises(TypeError, match="Rx operator"):
        OperatorStage("s", 5)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ errors


class Flaky:
    """Raises the first so many times."""

    def __init__(self, times: int, error: type[Exception] = ValueError) -> None:
        self.left = times
        self.calls = 0
        self.error = error

    def __call__(self, text: str) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error(text)
        return text.upper()

    def later(self) -> Callable[[str], Any]:
        async def call(text: str) -> str:
            await asyncio.sleep(0.01)
            return self(text)

        return call


def both(flaky: Flaky) -> list[Callable[[str], Any]]:
    return [flaky, flaky.later()]


@pytest.mark.parametrize("which", [0, 1])
def test_fail(which: int) -> None:
    """CASE 2: the first error ends it, names stage, type and element, and nothing is called after it."""
    flaky = Flaky(1)
    error = failure(MapStage("bad", both(flaky)[which], on=Text), "a", "b")
    assert (error.stage, error.stage_type) == ("bad", StageType.TRANSFORM)
    assert error.element.text == "a"
    assert isinstance(error.__cause__, ValueError)
    assert flaky.calls == 1


@pytest.mark.parametrize("which", [0, 1])
def test_emit_and_skip(which: int) -> None:
    """`emit` puts a Failure in its place, in the envelope that it was; `skip` drops it; the rest goes on."""
    result = Pipeline.of(MapStage("m", both(Flaky(1))[which], on=Text, on_error="emit")).run(
        [StreamElement.of("a", metadata={"k": 1}), "b"]
    )
    assert shown(result.elements) == ["Failure", "B"]
    assert result.failures[0].stage == "m"
    assert result.elements[0].metadata == {"k": 1}
    assert run(MapStage("m", both(Flaky(1))[which], on=Text, on_error="skip"), "a", "b") == ["B"]


@pytest.mark.parametrize("which", [0, 1])
def test_retry(which: int) -> None:
    """It tries so often, then does as `then` says; errors that are not to be retried fail at once."""
    flaky = Flaky(2)
    assert run(MapStage("m", both(flaky)[which], on=Text, on_error=Retry(attempts=3)), "a", "b") == ["A", "B"]
    assert flaky.calls == 4
    flaky = Flaky(3)
    assert isinstance(failure(MapStage("m", both(flaky)[which], on=Text, on_error=Retry(attempts=3)), "a"), StageError)
    assert flaky.calls == 3
    for then, expected in (("emit", ["Failure", "B"]), ("skip", ["B"])):
        policy = Retry(attempts=2, then=then)  # type: ignore[arg-type]
        assert run(MapStage("m", both(Flaky(2))[which], on=Text, on_error=policy), "a", "b") == expected
    flaky = Flaky(1, KeyError)
    policy = Retry(attempts=5, retry_on=(ValueError, OSError))
    assert isinstance(failure(MapStage("m", both(flaky)[which], on=Text, on_error=policy), "a").__cause__, KeyError)
    assert flaky.calls == 1
    assert run(
        MapStage("m", both(Flaky(1, KeyError))[which], on=Text, on_error=Retry(retry_on=lambda e: "a" in str(e))), "a"
    ) == ["A"]


@virtual
async def test_retry_waits() -> None:
    """Waits are on the clock of the execution: constant, growing, and with jitter within its bounds."""
    loop = asyncio.get_running_loop()
    cases: list[tuple[Retry, float, float]] = [
        (Retry(attempts=4, wait=10.0), 30.0, 30.0),
        (Retry(attempts=4, wait=lambda tries: 10.0 * 2**tries), 140.0, 140.0),
        (Retry(attempts=4, wait=1.0, jitter=5.0), 3.0, 18.0),
    ]
    for policy, least, most in cases:
        begin = loop.time()
        result = await Pipeline.of(MapStage("m", Flaky(3), on=Text, on_error=policy)).execute(["a"])
        assert result.text == "A"
        assert least - 1e-6 <= loop.time() - begin <= most + 1e-6


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("other", ["map", "async", "flat", "pass"])
def test_fallback(which: int, other: str) -> None:
    """The element goes to the other stage, plain or async, as it was; if that raises, this stage has failed."""
    stages: dict[str, Stage] = {
        "map": MapStage("other", lambda text: f"({text})", on=Text),
        "async": MapStage("other", upper_async, on=Text),
        "flat": FlatMapStage("other", twice, on=Text),
        "pass": PassthroughStage("other"),
    }
    expected = {"map": ["(a)"], "async": ["A"], "flat": ["a", "aa"], "pass": ["a"]}[other]
    policies: list[Any] = [Fallback(stages[other]), Retry(attempts=2, then=Fallback(stages[other]))]
    for flaky, policy in zip((Flaky(1), Flaky(2)), policies, strict=True):
        kind = FlatMapStage if other == "flat" else MapStage
        function = both(flaky)[which]
        if other == "flat":
            function = flat_of(function, bool(which))
        assert run(kind("m", function, on=Text, on_error=policy), "a", "b") == [*expected, "B"]


def flat_of(function: Callable[[str], Any], asynchronous: bool) -> Callable[[str], Any]:
    async def later(text: str) -> list[str]:
        return [await function(text)]

    return later if asynchronous else lambda text: [function(text)]


def test_fallback_that_fails() -> None:
    """The error is this stage's, with the second error as its cause."""
    spare = MapStage("spare", lambda e: 1 / 0)
    error = failure(MapStage("m", Flaky(1), on=Text, on_error=Fallback(spare)), "a")
    assert error.stage == "m"
    assert isinstance(error.__cause__, ZeroDivisionError)


# ------------------------------------------------------------------------------------------ taking time


@virtual
async def test_concurrency() -> None:
    """So many at once and no more; the order stays, or is given up."""
    running, most = 0, 0

    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(10 - n)
        running -= 1
        return n

    for ordered in (True, False):
        most = 0
        begin = asyncio.get_running_loop().time()
        result = await Pipeline.of(MapStage("m", work, on=int, concurrency=4, ordered=ordered)).execute(range(8))
        values = [e.data for e in result.elements]
        assert most == 4
        assert sorted(values) == list(range(8))
        assert (values == list(range(8))) == ordered
        assert asyncio.get_running_loop().time() - begin < 20


@virtual
async def test_controls_among_concurrent_work() -> None:
    """A control stays behind what came before it and before what came after, ordered or not."""

    async def work(n: int) -> int:
        await asyncio.sleep(10 - n)
        return n

    for ordered in (True, False):
        stage = MapStage("m", work, on=int, concurrency=4, ordered=ordered)
        result = await Pipeline.of(stage).execute([1, 2, StreamElement.end_of_turn(), 3, 4])
        got = shown(result.elements)
        assert set(got[:2]) == {1, 2}
        assert got[2] == "EndOfTurn"
        assert set(got[3:]) == {3, 4}


@virtual
async def test_concurrent_error() -> None:
    """CASE 2: with several in work, ordered, what is before the failing one leaves, the rest is cancelled."""
    cancelled: list[int] = []

    async def work(n: int) -> int:
        try:
            await asyncio.sleep(n)
        except asyncio.CancelledError:
            cancelled.append(n)
            raise
        if n == 2:
            raise ValueError(n)
        return n

    async with assert_no_leaks():
        result = await Pipeline.of(MapStage("m", work, on=int, concurrency=4)).execute(
            [1, 2, 5, 6], raise_on_error=False
        )
    assert shown(result.elements) == [1]
    assert isinstance(result.error, StageError)
    assert result.error.element.data == 2
    assert sorted(cancelled) == [5, 6]


@virtual
async def test_interruptible() -> None:
    """An interrupt cancels what is in work; without `interruptible` its late result is discarded."""
    ended: list[str] = []

    async def work(text: str) -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ended.append(f"{text} cancelled")
            raise
        ended.append(text)
        return text.upper()

    for options, expected in (
        ({"interruptible": True}, ["a cancelled", "b"]),
        ({}, ["a", "b"]),
        ({"concurrency": 2}, ["a", "b"]),
        ({"concurrency": 2, "interruptible": True}, ["a cancelled", "b"]),
    ):
        ended.clear()
        execution = Pipeline.of(MapStage("m", work, on=Text, **options)).execute(rx.never())
        async with execution:
            elements = aiter(execution)
            execution.send("a")
            await asyncio.sleep(5)
            execution.interrupt()
            execution.send("b")
            got = [await anext(elements), await anext(elements)]
        assert shown(got) == ["Interrupt", "B"], options
        assert ended == expected, options


def test_blocking() -> None:
    """A blocking function runs on a thread of its own, one at a time, in order; `context` is there, too."""
    threads: list[str] = []

    def work(text: str, *, context: StageContext) -> str:
        threads.append(threading.current_thread().name)
        return f"{context.stage}:{text}"

    with assert_no_leaks():
        assert run(MapStage("b", work, on=Text, blocking=True), "x", "y") == ["b:x", "b:y"]
    assert set(threads) == {"rxstage:b"}


def test_blocking_kinds() -> None:
    """Filters, sinks and 1:N stages may block as well; a generator runs on the thread."""
    threads: set[str] = set()

    def letters(text: str) -> Iterator[str]:
        for letter in text:
            threads.add(threading.current_thread().name)
            yield letter

    seen: list[str] = []
    assert run(FlatMapStage("f", letters, on=Text, blocking=True), "ab") == ["a", "b"]
    assert threads == {"rxstage:f"}
    assert run(FilterStage("f", no_b, on=Text, blocking=True), "a", "b") == ["a"]
    assert run(SinkStage("s", seen.append, on=Text, blocking=True), "a", "b") == []
    assert seen == ["a", "b"]


def test_concurrent_plain_function() -> None:
    """A plain function with `concurrency` runs on so many threads at once."""
    meet = threading.Barrier(3, timeout=WAIT)

    def work(n: int) -> int:
        meet.wait()
        return n

    with assert_no_leaks():
        assert run(MapStage("m", work, on=int, concurrency=3), *range(6)) == list(range(6))


def square(n: int) -> int:
    return n * n


def sign(n: int) -> bool:
    return n > 1


def fails(n: int) -> int:
    raise ValueError(n)


def test_process_pool() -> None:
    """Plain functions run in other processes; results, filters, and errors with their cause come back."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert run(MapStage("m", square, on=int, executor=pool, concurrency=2), *range(5)) == [0, 1, 4, 9, 16]
        assert run(FilterStage("f", sign, on=int, executor=pool), 1, 2, 3) == [2, 3]
        error = failure(MapStage("m", fails, on=int, executor=pool), 7)
        assert isinstance(error.__cause__, ValueError)
        assert run(MapStage("m", fails, on=int, executor=pool, on_error="emit"), 7) == ["Failure"]


@virtual
async def test_timeout() -> None:
    """Each element has so long; past it the function is cancelled, and the policy decides."""
    cancelled: list[str] = []

    async def work(text: str) -> str:
        try:
            await asyncio.sleep(100 if text == "slow" else 1)
        except asyncio.CancelledError:
            cancelled.append(text)
            raise
        return text

    async with assert_no_leaks():
        result = await Pipeline.of(MapStage("m", work, on=Text, timeout=5.0, on_error="emit")).execute(
            ["a", "slow", "b"]
        )
        assert shown(result.elements) == ["a", "Failure", "b"]
        assert isinstance(result.failures[0].error, TimeoutError)
        assert cancelled == ["slow"]
        assert asyncio.get_running_loop().time() == pytest.approx(7.0)
        with pytest.raises(StageError, match=r"timeout of 5\.0 s"):
            await Pipeline.of(MapStage("m", work, on=Text, timeout=5.0)).execute(["slow"])


def test_timeout_of_a_plain_function() -> None:
    """A plain function cannot be stopped: it is abandoned, counted, and another thread takes the next element."""
    gate = threading.Event()

    def work(text: str) -> str:
        if text == "stuck":
            gate.wait(WAIT)
        return text

    try:
        result = Pipeline.of(MapStage("m", work, on=Text, timeout=1.0, on_error="skip")).run(["a", "stuck", "b"])
        assert result.text == "ab"
        assert result.metrics.stages["m"].abandoned == 1
    finally:
        gate.set()
    for thread in threading.enumerate():
        if thread.name == "rxstage:m":
            thread.join(WAIT)
            assert not thread.is_alive()


@virtual
async def test_timeout_ignored() -> None:
    """An async function that ignores its cancellation is left behind and counted; the stream goes on."""
    release = asyncio.Event()

    async def work(text: str) -> str:
        while text == "stubborn" and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass
        return text

    execution = Pipeline.of(MapStage("m", work, on=Text, timeout=1.0, on_error="skip")).execute(["a", "stubborn", "b"])
    asyncio.get_running_loop().call_later(3.0, release.set)
    assert shown([e async for e in execution]) == ["a", "b"]
    assert execution.metrics().stages["m"].abandoned == 1
    await settle()


# ------------------------------------------------------------------------------------------ context


def test_context() -> None:
    """A function may ask for its context: ids, names, clock, events."""
    seen: list[StageContext] = []

    def work(text: str, context: StageContext) -> str:
        seen.append(context)
        context.emit_event("custom.done", text=text)
        return text

    pipeline = Pipeline.of(MapStage("m", work, on=Text), name="p")
    events: list[Any] = []
    pipeline.events.subscribe(events.append)
    pipeline.run(["a"])
    (context,) = seen
    assert (context.stage, context.pipeline, context.stage_type) == ("m", "p", StageType.TRANSFORM)
    assert context.execution_id
    assert context.now() >= 0
    assert context.cancelled
    custom = [event for event in events if event.type == "custom.done"]
    assert [(event.stage, event.data) for event in custom] == [("m", {"text": "a"})]


def test_context_in_every_shape() -> None:
    """Every shape of stage may ask for it: generators, producers, whole streams, classes."""
    names: list[str] = []

    def flat(text: str, context: StageContext) -> Iterator[str]:
        names.append(context.stage)
        yield text

    async def stream(elements: AsyncIterator[StreamElement], context: StageContext) -> AsyncIterator[StreamElement]:
        names.append(context.stage)
        await context.sleep(0.001)
        async for element in elements:
            yield element

    def produce(context: StageContext) -> Iterator[str]:
        names.append(context.stage)
        yield "p"

    pipeline = Pipeline.of(
        FlatMapStage("flat", flat, on=Text),
        StageFunc("stream", StageType.TRANSFORM, stream),
        GenerateStage("produce", produce),
        UpperAsync("upper"),
    )
    assert sorted(pipeline.run(["a"]).text) == ["A", "P"]
    assert sorted(names) == ["flat", "produce", "stream"]


# ------------------------------------------------------------------------------------------ produce


@virtual
async def test_generate() -> None:
    """Lists, generators, async generators and coroutines produce; what comes in passes by; both must end."""

    async def later() -> AsyncIterator[str]:
        for letter in "xy":
            await asyncio.sleep(1)
            yield letter

    async def listed() -> list[str]:
        return ["x", "y"]

    for function in (lambda: ["x", "y"], lambda: iter("xy"), later, listed):
        result = await Pipeline.of(GenerateStage("g", function)).execute(["a"])
        assert sorted(e.text or "" for e in result.elements) == ["a", "x", "y"]
        made = [e for e in result.elements if e.text != "a"]
        assert [e.text for e in made] == ["x", "y"]
        assert {e.source for e in made} == {"g"}
        assert all(e.sequence for e in made)
        assert len({e.sequence for e in result.elements}) == 3


@virtual
async def test_generate_obeys_demand() -> None:
    """CASE 14: an endless producer makes only as much as there is room for, and is closed once."""
    made, closed = 0, 0

    def forever() -> Iterator[int]:
        nonlocal made, closed
        try:
            while True:
                made += 1
                yield made
        finally:
            closed += 1

    async def same(n: int) -> int:
        return n

    async with assert_no_leaks():
        pipeline = Pipeline.of(GenerateStage("g", forever), MapStage("m", same, on=int))
        async with pipeline.execute() as execution:
            elements = aiter(execution)
            assert [(await anext(elements)).data for _ in range(3)] == [1, 2, 3]
            await settle()
            assert made <= 3 + 3 * 16 + 2
    assert closed == 1


@virtual
async def test_generate_ends_the_stream() -> None:
    """A producer may give controls; an EndOfStream ends the input, too."""

    def produce() -> Iterator[Any]:
        yield "x"
        yield StreamElement.end_of_turn()
        yield StreamElement.end_of_stream()
        yield "never"

    result = await Pipeline.of(GenerateStage("g", produce)).execute(rx.never())
    assert shown(result.elements) == ["x", "EndOfTurn"]


@virtual
async def test_generate_fails_and_retries() -> None:
    """An error is the stage's; a Retry calls the function again, from the start, and says so."""
    calls = 0

    def breaks() -> Iterator[str]:
        nonlocal calls
        calls += 1
        yield f"x{calls}"
        if calls < 3:
            raise ValueError(calls)

    with pytest.raises(StageError) as caught:
        await Pipeline.of(GenerateStage("g", breaks)).execute()
    assert caught.value.stage_type is StageType.GENERATE
    calls = 0
    pipeline = Pipeline.of(GenerateStage("g", breaks, on_error=Retry(attempts=3, wait=5.0)))
    events: list[Any] = []
    pipeline.events.subscribe(events.append)
    result = await pipeline.execute()
    assert shown(result.elements) == ["x1", "x2", "x3"]
    assert [event.attempt for event in events if event.type == "stage.restarted"] == [2, 3]
    assert asyncio.get_running_loop().time() == pytest.approx(10.0)


def test_generate_blocking() -> None:
    """A blocking iterator is pulled on a thread."""
    threads: set[str] = set()

    def produce() -> Iterator[int]:
        for n in range(3):
            threads.add(threading.current_thread().name)
            yield n

    with assert_no_leaks():
        result = Pipeline.of(GenerateStage("g", produce, blocking=True)).run()
    assert shown(result.elements) == [0, 1, 2]
    assert threads == {"rxstage:g"}


# ------------------------------------------------------------------------------------------ whole streams


async def sums(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
    total = 0
    async for element in elements:
        if element.data is not None:
            total += element.data
        elif isinstance(element.content, EndOfTurn):
            yield total
            total = 0


@virtual
async def test_stage_func() -> None:
    """State is local; a payload gets the envelope of what was read; a control that was handed over passes by itself."""
    subject = StageFunc("sum", StageType.ACCUMULATE, sums)
    assert subject.type is StageType.ACCUMULATE
    turn = StreamElement.end_of_turn()
    sources = [StreamElement.of(n, metadata={f"k{n}": n}) for n in (1, 2)]
    result = await Pipeline.of(subject).execute([*sources, turn, 5, turn])
    assert shown(result.elements) == [3, "EndOfTurn", 5, "EndOfTurn"]
    assert result.elements[0].metadata == {"k1": 1, "k2": 2}
    assert result.elements[2].metadata == {}
    assert result.elements[0].source == "sum"


@virtual
async def test_stage_func_cannot_swallow_controls() -> None:
    """Whether it yields a control, drops it, or ends: it goes on once."""

    async def yields(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            yield element

    async def drops(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            if not element.is_control:
                yield element

    async def copies(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            yield element.replace(metadata={"seen": True})

    async def ends(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            if element.is_control:
                return
            yield element

    source = ["a", StreamElement.end_of_turn(), StreamElement.of(ValueError("x")), "b", StreamElement.interrupt(), "c"]
    for function in (yields, drops, copies):
        got = shown((await Pipeline.of(StageFunc("f", StageType.TRANSFORM, function)).execute(source)).elements)
        assert got.count("Interrupt") == 1
        assert got.count("Failure") == 1
        assert got[-1] == "c"
    got = shown((await Pipeline.of(StageFunc("f", StageType.TRANSFORM, ends)).execute(source[:4])).elements)
    assert got[:2] == ["a", "EndOfTurn"]


@virtual
async def test_stage_func_restarts() -> None:
    """A Retry starts it again with fresh state where it stands in the stream, and says so; used up, it fails."""
    starts = 0

    async def breaks(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        nonlocal starts
        starts += 1
        count = 0
        async for element in elements:
            count += 1
            if element.text == "bad":
                raise ValueError("bad")
            yield f"{element.text}{count}"

    subject = StageFunc("f", StageType.TRANSFORM, breaks, on_error=Retry(attempts=2, wait=2.0))
    pipeline = Pipeline.of(subject)
    events: list[Any] = []
    pipeline.events.subscribe(events.append)
    result = await pipeline.execute(["a", "b", "bad", "c"])
    assert shown(result.elements) == ["a1", "b2", "c1"]
    assert starts == 2
    assert [event.type for event in events].count("stage.restarted") == 1
    with pytest.raises(StageError, match="bad"):
        await pipeline.execute(["bad", "bad", "c"])


@virtual
async def test_stage_func_ends_early() -> None:
    """One that returns before its input has ended completes the output."""

    async def first(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for element in elements:
            yield element
            return

    result = await Pipeline.of(StageFunc("f", StageType.TRANSFORM, first)).execute(["a", "b", "c"])
    assert shown(result.elements) == ["a"]


def test_stage_func_wrong() -> None:
    """None, or something that is no async iterator, is the stage's error and says what to do."""

    async def nones(elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
        async for _ in elements:
            yield None

    assert "yielded None" in str(failure(StageFunc("f", StageType.TRANSFORM, nones), "a"))
    assert isinstance(failure(StageFunc("f", StageType.TRANSFORM, lambda elements: [1]), "a").__cause__, TypeError)


# ------------------------------------------------------------------------------------------ operators


def test_operator() -> None:
    """Any operators, in series; what they emit becomes elements; controls go round unless they are seen."""
    turn = StreamElement.end_of_turn()
    count = OperatorStage("count", ops.scan(lambda total, _: total + 1, 0))
    assert run(count, "a", turn, "b") == [1, "EndOfTurn", 2]
    seeing = OperatorStage("count", ops.scan(lambda total, _: total + 1, 0), sees_controls=True)
    assert run(seeing, "a", turn, "b") == [1, 2, 3]
    assert run(OperatorStage("o", ops.map(lambda e: e.text), ops.filter(lambda t: t != "b"), ops.take(2)), *"abcd") == [
        "a",
        "c",
    ]
    result = Pipeline.of(count).run(["a"])
    assert result.elements[0].source == "count"


def test_operator_in_time() -> None:
    """Operators with time run on the execution's clock; what they still hold comes at the end."""
    assert run_marbles(OperatorStage("d", ops.debounce(3)), "-a-b------c-|") == "------b-----(c|)"
    assert (
        run_marbles(OperatorStage("b", ops.buffer_with_count(2), ops.map(len)), "-a-b-c|", lookup={"2": 2, "1": 1})
        == "---2--(1|)"
    )


def test_operator_errors() -> None:
    """What an operator raises, in a callback or as on_error, is the stage's error with its cause."""
    for operator in (ops.map(lambda e: 1 / 0), ops.flat_map(lambda e: rx.throw(ZeroDivisionError()))):
        error = failure(OperatorStage("o", operator), "a")
        assert error.stage == "o"
        assert isinstance(error.__cause__, ZeroDivisionError)
    error = failure(OperatorStage("o", lambda source: 5), "a")  # type: ignore[arg-type, return-value]
    assert "no Observable" in str(error.__cause__)


# ------------------------------------------------------------------------------------------ @stage


@stage
def shout(text: str) -> str:
    """A stage of a function with annotations."""
    return text.upper()


def test_decorated() -> None:
    """The function's name, annotations and kind say everything."""
    assert isinstance(shout, MapStage)
    assert (shout.name, shout.accepts, shout.emits) == ("shout", (str,), (str,))
    assert run(shout, "a", 1) == ["A", 1]


def test_decorated_annotations() -> None:
    """Each kind of annotation hands over what it says, and other content passes by."""

    @stage
    def element(element: StreamElement) -> StreamElement:
        return element.replace(content="e")

    @stage
    def bare(element):  # type: ignore[no-untyped-def]
        return element.replace(content="e")

    @stage
    def anything(element: Any) -> Any:
        return element.replace(content="e")

    @stage
    def content(text: Text) -> Text:
        return Text(text.text * 2)

    @stage
    def audio(audio: Audio) -> str:
        return f"{audio.sample_rate}"

    @stage
    def order(order: Order) -> int:
        return order.number

    @stage
    def union(value: Message | str) -> str:
        return value.text if isinstance(value, Message) else value.upper()

    @stage
    def optional(value: Optional[int]) -> str:  # noqa: UP045
        return f"<{value}>"

    @stage
    def mixed(value: Text | Order) -> str:
        return value.text if isinstance(value, Text) else f"#{value.number}"

    @stage
    def listed(values: list[int]) -> int:
        return sum(values)

    @stage
    def data(data: Data) -> Data:
        return Data((data.value,))

    sound = Audio(b"", 8000)
    assert run(element, "a", 1, sound) == ["e", "e", "e"]
    assert run(bare, "a", 1) == ["e", "e"]
    assert run(anything, "a", 1) == ["e", "e"]
    assert run(content, "a", 1) == ["aa", 1]
    assert run(audio, "a", sound) == ["a", "8000"]
    assert run(order, Special(4), 1) == [4, 1]
    assert run(union, Message.user("m"), "a", 1) == ["m", "A", 1]
    assert run(optional, 1, None, "a") == ["<1>", "<None>", "a"]
    assert run(mixed, "a", Order(5), 1) == ["a", "#5", 1]
    assert run(listed, [1, 2], "a") == [3, "a"]
    assert run(data, 1, "a") == [(1,), "a"]


def test_decorated_returns() -> None:
    """The return annotation becomes `emits`, through iterators and unions, without None and controls."""

    @stage
    def many(text: str) -> Iterator[Text | Audio]:
        yield Text(text)

    @stage
    async def later(text: str) -> AsyncIterator[int]:
        yield 1

    @stage
    def generator(text: str) -> Generator[Message, None, None]:
        yield Message.user(text)

    @stage
    def maybe(text: str) -> Text | EndOfTurn | None:
        return Text(text)

    @stage
    def unknown(text: str) -> Any:
        return text

    assert (many.emits, later.emits, generator.emits) == ((Text, Audio), (int,), (Message,))
    assert (maybe.emits, unknown.emits) == ((Text,), ())
    assert isinstance(many, FlatMapStage)
    assert run_on_loop(later, "a") == [1]


def test_decorated_with_options() -> None:
    """Options go to the stage; a name of its own too; a generator is 1:N, no parameter produces, a stream loops."""

    @stage(name="other", concurrency=2, on_error="skip", timeout=5.0)
    async def work(text: str) -> str:
        return text

    assert (work.name, work.concurrency, work.on_error, work.timeout) == ("other", 2, "skip", 5.0)

    @stage
    def produce() -> Iterator[str]:
        yield "p"

    @stage
    def produce_with(context: StageContext) -> Iterator[str]:
        yield context.stage

    @stage(type=StageType.ACCUMULATE)
    async def loop(elements: AsyncIterator[StreamElement]) -> AsyncIterator[str]:
        async for element in elements:
            yield element.text or ""

    @stage
    def with_default(text: str, suffix: str = "!") -> str:
        return text + suffix

    @stage
    def with_context(text: str, *, context: StageContext) -> str:
        return f"{context.stage}:{text}"

    assert (produce.type, loop.type, loop.shape) == (StageType.GENERATE, StageType.ACCUMULATE, Shape.STREAM)
    assert run(produce) == ["p"]
    assert run(produce_with) == ["produce_with"]
    assert run(loop, "a") == ["a"]
    assert run(with_default, "a") == ["a!"]
    assert run(with_context, "a") == ["with_context:a"]


def test_decorated_wrong() -> None:
    """Two arguments are refused; what has no name of its own needs one."""
    with pytest.raises(TypeError, match="one argument"):

        @stage
        def two(a: str, b: str) -> str:
            return a + b

    with pytest.raises(TypeError, match="name="):
        stage(partial(with_suffix, suffix="?"))
    named = stage(name="partial")(partial(with_suffix, suffix="?"))
    assert run(named, "a") == ["a?"]


def with_suffix(text: str, *, suffix: str) -> str:
    return text + suffix


def test_decorated_with_unknown_names() -> None:
    """A name that only type checkers know does not take the others away; local classes are found."""

    class Local:
        value = 3

    @stage
    def known(text: str) -> OnlyForCheckers:  # type: ignore[name-defined]  # noqa: F821
        return text.upper()

    @stage
    def local(value: Local) -> int:
        return value.value

    assert known.accepts == (str,)
    assert run(known, "a", 1) == ["A", 1]
    assert run(local, Local(), "a") == [3, "a"]


def test_decorated_unknown_argument() -> None:
    """What a function gets has to be known: an annotation that cannot be resolved is refused, with the remedy."""
    with pytest.raises(TypeError, match="OnlyForCheckers"):

        @stage
        def unknown(value: OnlyForCheckers) -> str:  # type: ignore[name-defined]  # noqa: F821
            return str(value)


# ------------------------------------------------------------------------------------------ classes


def test_class() -> None:
    """A subclass has options as fields, a name by default, and declares on the class what it accepts."""

    class RepeatText(Stage):
        """Text, several times."""

        accepts: ClassVar[Any] = Text
        emits: ClassVar[Any] = [Text, Image]
        type: ClassVar[StageType] = StageType.TRANSFORM
        times: int = 2

        def apply(self, element: StreamElement) -> Iterator[str]:
            for _ in range(self.times):
                yield element.text or ""

    subject = RepeatText(times=3)
    assert (subject.name, subject.accepts, subject.emits) == ("repeat_text", (Text,), (Text, Image))
    assert run(subject, "a", 1) == ["a", "a", "a", 1]
    assert run(RepeatText("named"), "a") == ["a", "a"]
    assert repr(RepeatText("named")) == "RepeatText('named')"
    with pytest.raises(ValueError, match="times"):
        RepeatText(times="many")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tiems"):
        RepeatText(tiems=2)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="frozen"):
        subject.times = 4
    assert subject == subject
    assert subject != RepeatText(times=3)
    assert len({subject, RepeatText(times=3)}) == 2


def test_class_sink() -> None:
    """A class whose type is SINK lets nothing but controls pass."""
    seen: list[str] = []

    class Save(Stage):
        """Saves text."""

        type: ClassVar[StageType] = StageType.SINK
        accepts: ClassVar[Any] = Text

        def apply(self, element: StreamElement) -> None:
            seen.append(element.text or "")

    assert run(Save() >> PassthroughStage("p"), "a", 1, StreamElement.end_of_turn()) == ["EndOfTurn"]
    assert seen == ["a"]


def test_classes_that_are_wrong() -> None:
    """Two ways of writing a stage at once, or none, or types that are none, are refused."""
    with pytest.raises(TypeError, match="apply and process"):

        class Two(Stage):
            def apply(self, element: StreamElement) -> Any:
                return element

            async def process(self, elements: AsyncIterator[StreamElement]) -> AsyncIterator[Any]:
                yield 1

    class Nothing(Stage):
        pass

    with pytest.raises(TypeError, match="must override apply, process or build"):
        Pipeline.of(Nothing())
    with pytest.raises(TypeError, match="must be classes"):

        class Wrong(Stage):
            accepts: ClassVar[Any] = "Text"

            def apply(self, element: StreamElement) -> Any:
                return element


def test_inherited() -> None:
    """A subclass of a stage with `apply` keeps it, or overrides the same one."""

    class Louder(Upper):
        """With an exclamation mark."""

        def apply(self, element: StreamElement) -> str:
            return super().apply(element) + "!"

    assert run(Louder(), "a") == ["A!"]
    assert Louder.shape is Shape.ELEMENT
    assert Louder().name == "louder"


def test_unknown_options() -> None:
    """An option that is misspelt is told with the stage's name and the nearest one, another one with all there are."""

    class Louder(Stage):
        """Makes text longer."""

        times: int = 2

        def apply(self, text: StreamElement) -> StreamElement:
            return text

    several: dict[str, Any] = {"colour": 3, "times": "many"}
    with pytest.raises(ValidationError, match=r"1 validation error for Louder 'l'\ntime\n.*did you mean 'times'\?"):
        Louder("l", time=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError) as caught:
        Louder("l", **several)
    wrong, unknown = caught.value.errors()
    assert (wrong["loc"], wrong["type"]) == (("times",), "int_parsing")
    assert (unknown["loc"], unknown["input"]) == (("colour",), 3)
    assert unknown["msg"].startswith("there is no option 'colour'; there are times, name, on_error, timeout")


def test_options_of_an_instance() -> None:
    """`accepts`, `emits` and `type` may be given to one stage and leave its class alone."""
    subject = MapStage("m", lambda e: e.replace(content="x"), accepts=Audio, emits=Text, type=StageType.BIDIRECTIONAL)
    assert (subject.accepts, subject.emits, subject.type) == ((Audio,), (Text,), StageType.BIDIRECTIONAL)
    assert run(subject, "a", Audio(b"", 8000)) == ["a", "x"]
    assert MapStage("n", upper).accepts == ()
    assert MapStage("n", upper).type is StageType.TRANSFORM


def test_series() -> None:
    """Stages in series are one stage, flattened, and run in order; only stages can be in one."""
    chain = MapStage("a", upper, on=Text) >> FlatMapStage("b", twice, on=Text) >> FilterStage("c", no_b)
    assert isinstance(chain, Series)
    assert [each.name for each in chain.stages] == ["a", "b", "c"]
    assert run(MapStage("a", upper, on=Text) >> FlatMapStage("b", twice, on=Text), "x") == ["X", "XX"]
    with pytest.raises(TypeError, match="MapStage"):
        MapStage("a", upper) >> upper


def test_tool_calls_and_images_pass() -> None:
    """Content of every kind passes what does not accept it, unchanged."""
    values = [ToolCall("t"), Image(b"i"), Message.user("m"), 3, None, "", b""]
    assert run(MapStage("m", lambda a: a, on=Audio), *values) == values


def test_passthrough_joins() -> None:
    """A passthrough stands where branches start and meet."""
    builder = PipelineBuilder().chain(PassthroughStage("in"))
    builder.branch("in", MapStage("a", upper, on=Text), MapStage("b", str.title, on=Text))
    pipeline = builder.merge("a", "b", into=PassthroughStage("out")).build()
    assert sorted(shown(pipeline.run(["xy"]).elements)) == ["XY", "Xy"]


def test_failures_pass_functions() -> None:
    """A Failure that came in is no content: functions do not see it."""
    error = ValueError("x")
    result = Pipeline.of(MapStage("m", lambda e: "seen")).run([Failure(error, "before"), "a"])
    assert shown(result.elements) == ["Failure", "seen"]
    assert result.failures[0].error is error


def test_laws_catch_shared_state() -> None:
    """CASE 9: a function with state of its own is found by the laws."""
    with pytest.raises(LawBroken, match="breaks the law"):
        check_stage(MapStage("m", lambda text, seen=[]: (seen.append(text), f"{len(seen)}")[1], on=Text))
