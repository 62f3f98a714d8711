"""The laws that any stage keeps, to be run on every stage: on those of this library, and on your own."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import reactivex as rx
from msgspec import Struct
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxstage.config import PipelineConfig
from rxstage.content import (
    CONTROL_KINDS,
    Audio,
    Data,
    EndOfTurn,
    Failure,
    Image,
    Interrupt,
    Message,
    Parts,
    Text,
    ToolCall,
    ToolResult,
    Video,
)
from rxstage.element import StreamElement
from rxstage.errors import ExecutionCancelled, ExecutionTimeout, IdleTimeout
from rxstage.execution import Execution
from rxstage.flow.callback import kinds_of
from rxstage.pipeline import Pipeline
from rxstage.priority import Priority
from rxstage.stage import Shape, Stage, StageType
from rxstage.stages.basic import PassthroughStage
from rxstage.testing.leaks import assert_no_leaks
from rxstage.testing.virtual import run_virtual

__all__ = ["LAWS", "LawBroken", "LawReport", "check_stage"]

_WITHIN: Final = 86400.0  # virtual seconds for one execution
_MANY: Final = 10_000  # elements after which a stage is taken for an endless one
_AT_ONCE: Final = 8
_REAL: Final = 30.0  # real seconds for a `run()`
_TAG: Final = "law.input"
_SOME: Final[dict[type, tuple[Any, ...]]] = {
    Text: ("alpha", "bravo", "charlie", "delta", "echo"),
    Audio: tuple(Audio(bytes([n, 0]) * 160, 16_000) for n in range(5)),
    Video: tuple(Video(bytes([n]), "image/jpeg") for n in range(5)),
    Image: tuple(Image(bytes([n])) for n in range(5)),
    Message: tuple(Message.user(text) for text in ("alpha", "bravo", "charlie", "delta", "echo")),
    ToolCall: tuple(ToolCall("add", {"a": n}, str(n)) for n in range(5)),
    ToolResult: tuple(ToolResult(str(n), n) for n in range(5)),
    Parts: tuple(Parts(("alpha", n)) for n in range(5)),
    Data: tuple(Data(n) for n in range(1, 6)),
}


class LawBroken(AssertionError):
    """A stage does not keep a law.

    Attributes:
        stage: its name.
        law: name of the law.
        seen: what was seen instead.
    """

    def __init__(self, stage: str, law: str, seen: str) -> None:
        self.stage = stage
        self.law = law
        self.seen = seen
        super().__init__(f"stage {stage!r} breaks the law {law!r} ({_sentence(law)}): {seen}")


class LawReport(Struct, frozen=True):
    """Which laws were checked and kept, and which were not checked and why."""

    stage: str
    kept: tuple[str, ...]
    skipped: Mapping[str, str]


class _NotHere(Exception):
    """A law says nothing about this stage."""


class _Seen(Exception):
    """What was seen where a law is broken."""


def check_stage(
    factory: Callable[[], Stage] | Stage,
    inputs: Iterable[Any] | None = None,
    *,
    skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    config: PipelineConfig | None = None,
) -> LawReport:
    """Check that a stage keeps the laws of a stage.

        def test_my_stage() -> None:
            check_stage(lambda: MyStage(size=3), ["some", "texts"])

    Every execution is in virtual time but those of `run()`, which is one of the forms that must agree.

    Args:
        factory: makes the stage, with the same behaviour each time; or a stage.
        inputs: elements or raw values that it works on without an error; by default some that it accepts. Its
            output has to depend on nothing else, in its order too, unless it is declared `ordered=False`.
        skip: laws that do not apply to it, each with the reason.
        only: laws to be checked; by default all.
        config: of the pipelines that it is run in.

    Returns:
        What was checked and what was not, with the reasons.

    Raises:
        LawBroken: it breaks one.
        ValueError: an unknown law, a `skip` without a reason, or no inputs can be made up for it.
    """
    make = (lambda: factory) if isinstance(factory, Stage) else factory
    skipped = dict(skip or {})
    for law in (*skipped, *(only or ())):
        if law not in LAWS:
            raise ValueError(f"there is no law {law!r}; the laws are {', '.join(LAWS)}")
    for law, reason in skipped.items():
        if not reason.strip():
            raise ValueError(f"say why the law {law!r} does not apply")
    bench = _Bench(make, inputs, config)
    kept: list[str] = []
    for law in LAWS:
        if law in skipped or (only is not None and law not in only):
            continue
        try:
            LAWS[law](bench)
        except _NotHere as reason_:
            skipped[law] = str(reason_)
        except _Seen as seen:
            raise LawBroken(bench.name, law, str(seen)) from seen.__cause__
        except AssertionError as error:  # a deadlock, something left behind
            raise LawBroken(bench.name, law, str(error)) from error
        else:
            kept.append(law)
    return LawReport(bench.name, tuple(kept), skipped)


# ------------------------------------------------------------------------------------------ the bench


class _Ran(Struct):
    """What an execution gave."""

    elements: list[StreamElement]
    error: BaseException | None = None


class _Bench:
    """A stage under test, and the ways to run it."""

    def __init__(self, make: Callable[[], Stage], inputs: Iterable[Any] | None, config: PipelineConfig | None) -> None:
        self.make = make
        self.config = config or PipelineConfig()
        stage = make()
        if not isinstance(stage, Stage):
            raise TypeError(f"the factory has to make a Stage, got {stage!r}")
        self.name = stage.name
        self.type = stage.type
        self.shape = stage.shape
        self.accepts = stage.accepts
        self.ordered = (stage.ordered or stage.concurrency == 1) and self.shape is not Shape.PRODUCER
        self.interruptible = stage.interruptible
        self.sees_controls = self.shape is Shape.OPERATOR and bool(getattr(stage, "sees_controls", False))
        self.inputs = [
            each.replace(metadata={**each.metadata, _TAG: number})
            for number, each in enumerate(map(StreamElement.of, _made_up(stage) if inputs is None else inputs))
        ]
        if not self.inputs:
            raise ValueError("the laws need at least one input")

    def pipeline(self, **changes: Any) -> Pipeline:
        return self.of(self.make(), **changes)

    def of(self, stage: Stage, **changes: Any) -> Pipeline:
        config = self.config.with_(**changes) if changes else self.config
        if stage.type is StageType.SINK:  # at the end of a graph, its controls would end there
            return Pipeline.of(stage, PassthroughStage("law.out"), config=config, name="law")
        return Pipeline.of(stage, config=config, name="law")

    def run(self, source: Any, pipeline: Pipeline | None = None) -> _Ran:
        """Once, in virtual time."""
        used = pipeline or self.pipeline()
        return run_virtual(self._whole(used.execute(source)))

    async def _whole(self, execution: Execution) -> _Ran:
        async with assert_no_leaks():
            return await self.collect(execution)

    async def collect(self, execution: Execution) -> _Ran:
        ran = _Ran([])
        try:
            async with asyncio.timeout(_WITHIN):
                async with execution:
                    async for element in execution:
                        ran.elements.append(element)
                        if len(ran.elements) > _MANY:
                            raise _Seen(f"more than {_MANY} elements came out of {len(self.inputs)}")
        except (_Seen, AssertionError):
            raise
        except Exception as error:
            if type(error) is TimeoutError:
                raise _Seen(f"it had not ended after {_WITHIN:g} s of virtual time") from error
            ran.error = error
        return ran

    @functools.cached_property
    def reference(self) -> list[Any]:
        """What comes out of the inputs."""
        return self.good(self.run(self.inputs))

    def good(self, ran: _Ran) -> list[Any]:
        """The contents of a run that has to succeed."""
        if ran.error is not None:
            raise _Seen(f"it failed with {ran.error!r}") from ran.error
        return self.contents(ran.elements)

    def contents(self, elements: Iterable[StreamElement]) -> list[Any]:
        contents = [_comparable(element.content) for element in elements]
        return contents if self.ordered else sorted(contents, key=repr)

    def same(self, contents: list[Any], what: str) -> None:
        if contents != self.reference:
            raise _Seen(f"{what} gave {_some(contents)}, where it gave {_some(self.reference)} before")

    def endless(self) -> Iterator[StreamElement]:
        return itertools.cycle(self.inputs)


def _made_up(stage: Stage) -> Sequence[Any]:
    kinds, values = kinds_of(stage.accepts)
    usable = [kind for kind in _SOME if kind in kinds]
    if usable:
        return _SOME[usable[0]]
    if values or (stage.accepts and not kinds & CONTROL_KINDS):
        raise ValueError(f"stage {stage.name!r} accepts {stage.accepts}; give `inputs` for it")
    return _SOME[Text]


def _comparable(content: Any) -> Any:
    if isinstance(content, Failure):
        return "Failure", type(content.error), str(content.error)
    return content


def _some(values: Sequence[Any], most: int = 8) -> str:
    shown = ", ".join(repr(value)[:80] for value in values[:most])
    return f"[{shown}{', …' if len(values) > most else ''}] ({len(values)})"


class _Bad(abc.ObservableBase[Any]):
    """A source that does not keep the contract of Rx: it goes on after its end."""

    def __init__(self, values: Sequence[Any], error: Exception | None) -> None:
        self.values = values
        self.error = error

    def subscribe(
        self, on_next: Any = None, on_error: Any = None, on_completed: Any = None, *, scheduler: Any = None
    ) -> abc.DisposableBase:
        if not callable(on_next):
            on_next, on_error, on_completed = on_next.on_next, on_next.on_error, on_next.on_completed
        for value in self.values:
            on_next(value)
        for _ in range(2):
            if self.error is not None:
                on_error(self.error)
            else:
                on_completed()
            on_next(self.values[0])
        if self.error is None:
            on_error(RuntimeError("after the end"))
        else:
            on_completed()
        return Disposable()

    def pipe(self, *operators: Any) -> Any:
        return functools.reduce(lambda source, operator: operator(source), operators, self)


class _Watch:
    """An observer that notes everything, what comes after the end too."""

    def __init__(self, wanted: int = _MANY) -> None:
        self.ran = _Ran([])
        self.terminals: list[str] = []
        self.late: list[Any] = []
        self.ended = asyncio.Event()
        self.enough = asyncio.Event()
        self.wanted = wanted

    def on_next(self, element: StreamElement) -> None:
        (self.late if self.terminals else self.ran.elements).append(element)
        if len(self.ran.elements) >= self.wanted:
            self.enough.set()

    def on_error(self, error: Exception) -> None:
        self.ran.error = error
        self._end("on_error")

    def on_completed(self) -> None:
        self._end("on_completed")

    def _end(self, terminal: str) -> None:
        self.terminals.append(terminal)
        self.ended.set()
        self.enough.set()

    def subscribe(self, source: Any) -> abc.DisposableBase:
        subscription: abc.DisposableBase = source.subscribe(self.on_next, self.on_error, self.on_completed)
        return subscription

    async def end(self) -> _Ran:
        """What came, once it has ended and had time to say more."""
        try:
            async with asyncio.timeout(_WITHIN):
                await self.ended.wait()
        except TimeoutError as error:
            raise _Seen(f"no terminal came in {_WITHIN:g} s of virtual time") from error
        await asyncio.sleep(10)
        if len(self.terminals) != 1:
            raise _Seen(f"{len(self.terminals)} terminals came: {', '.join(self.terminals)}")
        if self.late:
            raise _Seen(f"{_some(self.late)} came after {self.terminals[0]}")
        return self.ran


async def _steps(values: Iterable[Any], closed: list[str] | None = None) -> AsyncIterator[Any]:
    """The values, each after a turn of the loop."""
    if closed is not None:
        closed.append("opened")
    try:
        for value in values:
            await asyncio.sleep(0)
            yield value
    finally:
        if closed is not None:
            closed.append("closed")


def _generated(values: Iterable[Any], closed: list[str]) -> Iterator[Any]:
    closed.append("opened")
    try:
        yield from values
    finally:
        closed.append("closed")


def _closed_once(what: str, told: Sequence[str]) -> None:
    if told and list(told) != ["opened", "closed"]:  # one that was not begun need not be closed
        raise _Seen(f"{what} was opened {told.count('opened')} and closed {told.count('closed')} times")


# ------------------------------------------------------------------------------------------ the laws


def _terminal(bench: _Bench) -> None:
    """exactly one terminal comes, and nothing after it"""

    async def main() -> list[Any]:
        watch = _Watch()
        async with assert_no_leaks():
            watch.subscribe(rx.from_iterable(bench.inputs).pipe(bench.pipeline()))
            return bench.good(await watch.end())

    bench.same(run_virtual(main), "the operator form")


def _empty(bench: _Bench) -> None:
    """an empty source completes it"""
    for name, source in (("an empty list", []), ("an empty async iterator", _steps([])), ("rx.empty()", rx.empty())):
        ran = bench.run(source)
        if ran.error is not None:
            raise _Seen(f"{name} ended it with {ran.error!r}") from ran.error


def _endless(bench: _Bench) -> None:
    """disposing of an endless source returns, closes it once, and leaves no task, thread or subscription"""
    closed: list[str] = []
    sources: dict[str, Callable[[], Any]] = {
        "an endless generator": lambda: _generated(bench.endless(), closed),
        "an endless async generator": lambda: _steps(bench.endless(), closed),
        "a source that gives nothing": rx.never,
    }
    for what, make in sources.items():
        closed.clear()
        run_virtual(_left_early(bench, make(), 3 if what.startswith("an") and bench.type is not StageType.SINK else 0))
        _closed_once(what, closed)


async def _left_early(bench: _Bench, source: Any, wanted: int) -> None:
    async with assert_no_leaks():
        execution = bench.pipeline().execute(source)
        async with execution:
            iterator = aiter(execution)
            try:
                async with asyncio.timeout(5):
                    for _ in range(wanted):
                        await anext(iterator)
            except (TimeoutError, StopAsyncIteration):
                pass  # it has little to say, or enough
            await asyncio.sleep(0)
            execution.cancel()
            execution.cancel()
            async with asyncio.timeout(_WITHIN):
                await execution.closed()


def _source_error(bench: _Bench) -> None:
    """an error of the source reaches the caller, itself or as a cause"""

    def failing() -> Iterator[Any]:
        yield from bench.inputs
        raise _SourceError("of the source")

    async def failing_async() -> AsyncIterator[Any]:
        for value in bench.inputs:
            yield value
        raise _SourceError("of the source")

    observable = rx.concat(rx.from_iterable(bench.inputs), rx.throw(_SourceError("of the source")))
    for what, source in (("iterator", failing()), ("async iterator", failing_async()), ("Observable", observable)):
        error = bench.run(source).error
        if not _caused_by(error, _SourceError):
            raise _Seen(f"the error of an {what} became {error!r}") from error


class _SourceError(Exception):
    pass


def _caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__
    return False


def _falsy(bench: _Bench) -> None:
    """payloads that are false (None, "", 0, b"") pass unchanged where it does not accept them"""
    if bench.type is StageType.SINK:
        raise _NotHere("a sink lets no content pass")
    if bench.shape not in (Shape.ELEMENT, Shape.PRODUCER):
        raise _NotHere("it sees everything, and makes of it what it likes")
    kinds, values = kinds_of(bench.accepts)
    falsy: tuple[Any, ...] = (None, "", 0, b"", False, [], {})
    foreign = [
        element
        for element in (StreamElement.of(value, metadata={_TAG: -1}) for value in falsy)
        if bench.shape is Shape.PRODUCER
        or (
            (kinds or values)
            and element.content.__class__ not in kinds
            and not (isinstance(element.content, Data) and isinstance(element.content.value, values))
        )
    ]
    if not foreign:
        raise _NotHere("it accepts everything")
    ran = bench.run(foreign)
    bench.good(ran)
    passed = [element.content for element in ran.elements if element.metadata.get(_TAG) == -1]
    if passed != [element.content for element in foreign]:
        raise _Seen(f"of {_some([e.content for e in foreign])} came out {_some(passed)}")


def _after_end(bench: _Bench) -> None:
    """what a bad source emits after its end is ignored"""
    for error in (None, _SourceError("of a bad source")):

        async def main(error: Exception | None = error) -> list[Any]:
            watch = _Watch()
            async with assert_no_leaks():
                watch.subscribe(bench.pipeline()(_Bad(bench.inputs, error)))  # type: ignore[arg-type]
                ran = await watch.end()
            if error is None:
                return bench.good(ran)
            if not _caused_by(ran.error, _SourceError):
                raise _Seen(f"the error of the source became {ran.error!r}")
            return []

        contents = run_virtual(main)
        if error is None:
            bench.same(contents, "a source that goes on after its end")


def _controls(bench: _Bench) -> None:
    """Failure and EndOfTurn come out once each, in their place among the content"""
    if bench.sees_controls:
        raise _NotHere("its operator sees the controls")
    source: list[StreamElement] = []
    for number, each in enumerate(bench.inputs):
        source.append(each)
        source.append(StreamElement(Failure(ValueError(str(number)), "law") if number % 2 else EndOfTurn()))
    ran = bench.run(source)
    bench.good(ran)
    sent = [element.content for element in source if element.is_control]
    own = {id(content) for content in sent}
    came = [element.content for element in ran.elements if id(element.content) in own]
    if [id(content) for content in came] != [id(content) for content in sent]:
        raise _Seen(f"of the controls {_some(sent)} came out {_some(came)}")
    if bench.shape is not Shape.ELEMENT:
        return
    place = 0
    for element in ran.elements:
        if id(element.content) in own:
            place += 1
        elif not element.is_control and _TAG in element.metadata and element.metadata[_TAG] != place:
            raise _Seen(
                f"{element.content!r}, made of input {element.metadata[_TAG]}, came out behind {place} controls, "
                f"though input {place} stands there"
            )


def _interrupt(bench: _Bench) -> None:
    """an Interrupt comes out once, nothing of the turn that it ends behind it, and the next turn works"""
    if bench.sees_controls:
        raise _NotHere("its operator sees the controls")
    interrupt = StreamElement(Interrupt("law"))
    first = [each.replace(metadata={_TAG: "before"}) for each in bench.inputs]
    ran = bench.run([*first, interrupt, *bench.inputs])
    contents = bench.good(ran)
    at = [index for index, element in enumerate(ran.elements) if element.content is interrupt.content]
    if len(at) != 1:
        raise _Seen(f"the Interrupt came out {len(at)} times, in {_some(contents)}")
    if bench.shape in (Shape.ELEMENT, Shape.PRODUCER):
        late = [element.content for element in ran.elements[at[0] :] if element.metadata.get(_TAG) == "before"]
        if late:
            raise _Seen(f"{_some(late)} of the interrupted turn came out behind the Interrupt")
        if bench.shape is Shape.ELEMENT:
            bench.same(bench.contents(ran.elements[at[0] + 1 :]), "the turn behind an Interrupt")


def _independent(bench: _Bench) -> None:
    """one stage object in several executions at once shares no state"""
    stage = bench.make()
    one, other = bench.of(stage), bench.of(stage)

    async def main() -> list[_Ran]:
        async with assert_no_leaks():
            executions = [(one, other)[n % 2].execute(_steps(bench.inputs)) for n in range(_AT_ONCE)]
            return await asyncio.gather(*(bench.collect(execution) for execution in executions))

    for ran in run_virtual(main):
        bench.same(bench.good(ran), f"one of {_AT_ONCE} executions at once")
    if not one.plan.asynchronous:
        subjects: list[Subject[Any]] = [Subject() for _ in range(_AT_ONCE)]

        async def interleaved() -> list[_Ran]:
            watches = [_Watch() for _ in subjects]
            for watch, subject in zip(watches, subjects, strict=True):
                watch.subscribe(subject.pipe(one))
            for value in bench.inputs:
                for subject in subjects:
                    subject.on_next(value)
            for subject in subjects:
                subject.on_completed()
            return [await watch.end() for watch in watches]

        for ran in run_virtual(interleaved):
            bench.same(bench.good(ran), f"one of {_AT_ONCE} subscriptions at once")


def _capacity_one(bench: _Bench) -> None:
    """with room for one element everywhere it goes on, and gives the same"""
    bench.same(bench.good(bench.run(bench.inputs, bench.pipeline(buffer_size=1))), "capacity 1")
    many = bench.inputs * 20
    if bench.shape is Shape.ELEMENT:
        one = bench.good(bench.run(many, bench.pipeline(buffer_size=1)))
        if one != (usual := bench.good(bench.run(many))):
            raise _Seen(f"capacity 1 gave {_some(one)}, where it gave {_some(usual)} before")
    else:
        bench.good(bench.run(many, bench.pipeline(buffer_size=1)))


def _forms(bench: _Bench) -> None:
    """the operator form, the run() form and all ways of taking an execution give the same"""
    forms: dict[str, list[Any]] = {}

    async def awaited() -> _Ran:
        result = await bench.pipeline().execute(bench.inputs, raise_on_error=False)
        return _Ran(list(result.elements), result.error)

    async def output() -> _Ran:
        watch = _Watch()
        watch.subscribe(bench.pipeline().execute(bench.inputs).output)
        return await watch.end()

    async def stage_operator() -> _Ran:
        watch = _Watch()
        watch.subscribe(bench.make()(rx.from_iterable(bench.inputs)))
        return await watch.end()

    for what, form in (
        ("await execute()", awaited),
        ("execute().output", output),
        ("source.pipe(stage)", stage_operator),
    ):
        forms[what] = bench.good(run_virtual(form))
    forms["an async source"] = bench.good(bench.run(_steps(bench.inputs)))
    with assert_no_leaks():
        result = bench.pipeline().run(bench.inputs, timeout=_REAL, raise_on_error=False)
    forms["run()"] = bench.good(_Ran(list(result.elements), result.error))
    if not (pipeline := bench.pipeline()).plan.asynchronous and not pipeline.plan.has_operators:
        with assert_no_leaks():
            watch = _Watch()
            watch.subscribe(rx.from_iterable(bench.inputs).pipe(pipeline))
        if not watch.terminals:
            raise _Seen("the operator form of a synchronous graph had not ended when subscribe returned")
        forms["source.pipe(pipeline) without a loop"] = bench.good(watch.ran)
    for what, contents in forms.items():
        bench.same(contents, what)


def _metadata(bench: _Bench) -> None:
    """the metadata of an element stays on what is made of it"""
    if bench.shape is Shape.OPERATOR:
        raise _NotHere("an operator makes what it likes")
    if bench.type is StageType.SINK:
        raise _NotHere("a sink lets no content pass")
    ran = bench.run([each.replace(metadata={**each.metadata, "law.kept": "yes"}) for each in bench.inputs])
    bench.good(ran)
    for element in ran.elements:
        made_here = bench.shape is Shape.PRODUCER and _TAG not in element.metadata
        if not element.is_control and not made_here and element.metadata.get("law.kept") != "yes":
            raise _Seen(f"{element!r} came out, whose metadata is not that of what came in")


def _envelope(bench: _Bench) -> None:
    """content that it does not accept passes with its whole envelope"""
    if bench.type is StageType.SINK or bench.shape is not Shape.ELEMENT:
        raise _NotHere("only functions of one element let foreign content pass untouched")
    kinds, _ = kinds_of(bench.accepts)
    foreign = next((kind for kind in _SOME if bench.accepts and kind not in kinds and kind is not Data), None)
    if foreign is None:
        raise _NotHere("it accepts everything")
    sent = StreamElement.of(_SOME[foreign][0], metadata={_TAG: "foreign"}, source="law", priority=Priority.LOW)
    ran = bench.run([sent])
    bench.good(ran)
    came = [e for e in ran.elements if e.metadata.get(_TAG) == "foreign"]
    if [e.replace(sequence=0, timestamp=0.0) for e in came] != [sent]:
        raise _Seen(f"of {sent!r} came out {_some(came)}")


def _take_one(bench: _Bench) -> None:
    """`take(1)` behind it stops and closes what feeds it"""
    if not bench.reference:
        raise _NotHere("nothing comes out of the inputs")
    closed: list[str] = []

    async def main() -> None:
        async with assert_no_leaks():
            watch = _Watch()
            execution = bench.pipeline().execute(_steps(bench.endless(), closed))
            watch.subscribe(execution.output.pipe(ops.take(1)))
            ran = await watch.end()
            async with asyncio.timeout(_WITHIN):
                await execution.closed()
        if len(ran.elements) != 1 or ran.error is not None:
            raise _Seen(f"{_some(ran.elements)} came, and {ran.error!r}")

    run_virtual(main)
    _closed_once("the source", closed)


def _dispose(bench: _Bench) -> None:
    """disposing from inside a handler, twice, and after the end does no harm"""

    something = bool(bench.reference)

    async def main() -> None:
        async with assert_no_leaks():
            subscription: list[abc.DisposableBase] = []
            seen: list[Any] = []

            def on_next(element: StreamElement) -> None:
                seen.append(element)
                for each in subscription * 2:
                    each.dispose()

            execution = bench.pipeline().execute(_steps(bench.inputs * 3))
            subscription.append(execution.output.subscribe(on_next, seen.append, lambda: seen.append("end")))
            async with asyncio.timeout(_WITHIN):
                await execution.closed()
            subscription[0].dispose()
            subscription[0].dispose()
            await asyncio.sleep(10)
            if something and len(seen) != 1:
                raise _Seen(f"{_some(seen[1:])} came after dispose")

    run_virtual(main)


def _idle(bench: _Bench) -> None:
    """with its input open, each of cancel, idle timeout and execution timeout ends it"""
    limits: dict[type[Exception], dict[str, float]] = {
        IdleTimeout: {"idle_timeout": 3600.0},
        ExecutionTimeout: {"execution_timeout": 7200.0},
        ExecutionCancelled: {},
    }
    for expected, limit in limits.items():

        async def main(limit: dict[str, float] = limit) -> _Ran:
            source: Observable[Any] = rx.concat(rx.from_iterable(bench.inputs), rx.never())
            async with assert_no_leaks():
                execution = bench.pipeline(**limit).execute(source)
                if not limit:
                    asyncio.get_running_loop().call_later(5400.0, execution.cancel)
                return await bench.collect(execution)

        error = run_virtual(main).error
        if not isinstance(error, expected):
            raise _Seen(f"it ended with {error!r}, where {expected.__name__} should have") from error


def _reusable(bench: _Bench) -> None:
    """the same pipeline gives the same when it is executed again, after a failed execution too"""
    pipeline = bench.pipeline()
    for what, source in (("first", bench.inputs), ("second", bench.inputs)):
        bench.same(bench.good(bench.run(source, pipeline)), f"the {what} execution of one pipeline")
    bench.run(itertools.chain(bench.inputs, _raising()), pipeline)
    bench.same(bench.good(bench.run(bench.inputs, pipeline)), "an execution after a failed one")


def _raising() -> Iterator[Any]:
    raise _SourceError("of the source")
    yield


LAWS: Final[Mapping[str, Callable[[_Bench], None]]] = {
    "terminal": _terminal,
    "empty": _empty,
    "endless": _endless,
    "source_error": _source_error,
    "falsy": _falsy,
    "after_end": _after_end,
    "controls": _controls,
    "interrupt": _interrupt,
    "independent": _independent,
    "reusable": _reusable,
    "capacity_one": _capacity_one,
    "forms": _forms,
    "metadata": _metadata,
    "envelope": _envelope,
    "take_one": _take_one,
    "dispose": _dispose,
    "idle": _idle,
}
"""The laws by name; each says in its docstring what has to hold."""


def _sentence(law: str) -> str:
    return (LAWS[law].__doc__ or "").strip()
