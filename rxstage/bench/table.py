"""The rows of the engine: what it costs, as ratios to baselines measured in the same run.

Every figure is CPU time of the process, the least of several interleaved repetitions, so that what else the
machine does matters little.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import reactivex as rx
from msgspec import Struct
from reactivex import operators as ops

from rxstage.builder import PipelineBuilder
from rxstage.config import PipelineConfig
from rxstage.content import Text
from rxstage.element import StreamElement
from rxstage.observe.bus import EventBus
from rxstage.pipeline import Pipeline
from rxstage.stage import Stage
from rxstage.stages.basic import MapStage, PassthroughStage

__all__ = ["CASES", "Case", "Row", "measure", "run_table"]

Job = Callable[[], Any]


class Row(Struct, frozen=True):
    """One line of the table.

    Attributes:
        what: what is measured, and against what.
        value: the figure.
        unit: `"×"` for a ratio to the baseline, `"KiB"`, `"%"`, `"s"`, `"ms"` or `"µs"`.
        bar: what it must not exceed.
        moonshot: what it would be good to reach.
        notes: the two sides of a ratio, in absolute terms.
    """

    what: str
    value: float
    unit: str
    bar: float | None
    moonshot: float | None
    notes: str = ""


class Case(Struct, frozen=True):
    """A job of ours and its baseline.

    Attributes:
        name: short name.
        what: as in `Row`.
        make: gives `(ours, baseline)` for a number of elements; both do the same work.
        count: elements (or repetitions) of one job.
        bar, moonshot: as in `Row`.
    """

    name: str
    what: str
    make: Callable[[int], tuple[Job, Job]]
    count: int
    bar: float | None = None
    moonshot: float | None = None


# ------------------------------------------------------------------------------------------ the stages under test


def _same(index: int) -> Callable[[StreamElement], StreamElement]:
    """One of several distinct functions that give back what they get: what is measured is all overhead."""
    names: dict[str, Any] = {}
    exec(f"def same_{index}(element): return element", names)
    return names[f"same_{index}"]  # type: ignore[no-any-return]


def _renew(index: int) -> Callable[[StreamElement], StreamElement]:
    """One of several distinct functions that make a new element, as a map stage does."""
    content = Text(f"text {index}")
    return lambda element: element.replace(content=content)


def _same_async(index: int) -> Callable[[StreamElement], Awaitable[StreamElement]]:
    names: dict[str, Any] = {}
    exec(f"async def same_{index}(element): return element", names)
    return names[f"same_{index}"]  # type: ignore[no-any-return]


def _elements(count: int) -> list[StreamElement]:
    return [StreamElement.of(f"text {i}") for i in range(count)]


def _chain(functions: list[Any], config: PipelineConfig | None = None, events: EventBus | None = None) -> Pipeline:
    stages = [MapStage(f"stage {i}", function) for i, function in enumerate(functions)]
    return PipelineBuilder(config, events=events).chain(*stages).build()


# ------------------------------------------------------------------------------------------ cases


def _against_loop(kind: Callable[[int], Any]) -> Callable[[int], tuple[Job, Job]]:
    def make(count: int) -> tuple[Job, Job]:
        elements, functions = _elements(count), [kind(i) for i in range(10)]
        pipeline = _chain(functions)

        def loop() -> list[StreamElement]:
            result = []
            for element in elements:
                for function in functions:
                    element = function(element)
                result.append(element)
            return result

        return lambda: pipeline.run(elements).elements, loop

    return make


def _against_map(count: int) -> tuple[Job, Job]:
    elements, functions = _elements(count), [_same(i) for i in range(10)]
    pipeline = _chain(functions)
    stock: list[Any] = [*(ops.map(function) for function in functions), ops.to_list()]
    return (
        lambda: pipeline.run(elements).elements,
        lambda: rx.from_iterable(elements).pipe(*stock).run(),
    )


def _operator_against_map(count: int) -> tuple[Job, Job]:
    elements, functions = _elements(count), [_same(i) for i in range(10)]
    pipeline = _chain(functions)
    stock = [ops.map(function) for function in functions]

    def collect(observable: Any) -> list[StreamElement]:
        result: list[StreamElement] = []
        observable.subscribe(result.append)
        return result

    return (
        lambda: collect(rx.from_iterable(elements).pipe(pipeline)),
        lambda: collect(rx.from_iterable(elements).pipe(*stock)),
    )


def _against_queues(count: int) -> tuple[Job, Job]:
    elements, functions = _elements(count), [_same_async(i) for i in range(3)]
    pipeline = _chain(functions)
    end = object()

    async def ours() -> Any:
        return (await pipeline.execute(elements)).elements

    async def stage(function: Any, before: asyncio.Queue[Any], after: asyncio.Queue[Any]) -> None:
        while (element := await before.get()) is not end:
            await after.put(await function(element))
        await after.put(end)

    async def queues() -> list[Any]:
        chain: list[asyncio.Queue[Any]] = [asyncio.Queue(16) for _ in range(4)]

        async def feed() -> None:
            for element in elements:
                await chain[0].put(element)
            await chain[0].put(end)

        tasks = [asyncio.create_task(stage(f, chain[i], chain[i + 1])) for i, f in enumerate(functions)]
        tasks.append(asyncio.create_task(feed()))
        result = []
        while (element := await chain[3].get()) is not end:
            result.append(element)
        await asyncio.gather(*tasks)
        return result

    return lambda: asyncio.run(ours()), lambda: asyncio.run(queues())


def _start_stop(count: int) -> tuple[Job, Job]:
    functions = [_same(i) for i in range(5)]
    pipeline = _chain(functions)
    stock = [ops.map(function) for function in functions]
    element = StreamElement.of("text")

    def ours() -> int:
        return sum(len(pipeline.run(element).elements) for _ in range(count))

    def bare() -> int:
        seen: list[Any] = []
        for _ in range(count):
            rx.from_iterable((element,)).pipe(*stock).subscribe(seen.append).dispose()
        return len(seen)

    return ours, bare


def _start_stop_operator(count: int) -> tuple[Job, Job]:
    functions = [_same(i) for i in range(5)]
    pipeline = _chain(functions)
    element = StreamElement.of("text")

    def ours() -> int:
        seen: list[Any] = []
        for _ in range(count):
            rx.from_iterable((element,)).pipe(pipeline).subscribe(seen.append).dispose()
        return len(seen)

    return ours, _start_stop(count)[1]


def _fan(count: int) -> tuple[Job, Job]:
    elements, functions = _elements(count), [_same(i) for i in range(3)]
    branches = [MapStage(f"branch {i}", function) for i, function in enumerate(functions)]
    pipeline = PipelineBuilder().branch(PassthroughStage("in"), *branches).build()

    def calls() -> list[StreamElement]:
        result = []
        for element in elements:
            for function in functions:
                result.append(function(element))  # noqa: PERF401  the baseline is the plain loop that it stands for
        return result

    return lambda: pipeline.run(elements).elements, calls


def _with_metrics(count: int) -> tuple[Job, Job]:
    elements, functions = _elements(count), [_same(i) for i in range(10)]
    on, off = _chain(functions, PipelineConfig(metrics=True)), _chain(functions)
    return lambda: on.run(elements).elements, lambda: off.run(elements).elements


def _with_events(count: int) -> tuple[Job, Job]:
    elements, functions = _elements(count), [_same(i) for i in range(10)]
    bus = EventBus()
    bus.subscribe("*", lambda event: None)
    on, off = _chain(functions, events=bus), _chain(functions)
    return lambda: on.run(elements).elements, lambda: off.run(elements).elements


CASES: Final = (
    Case("map-new", "10 map stages that make a new element / plain loop", _against_loop(_renew), 5_000, 1.6, 1.2),
    Case("map-same", "10 map stages that do nothing / plain loop", _against_loop(_same), 20_000, 1.6, 1.2),
    Case("map-rx", "10 map stages, run() / ops.map ×10, run()", _against_map, 20_000, 0.5, 0.35),
    Case("map-rx-operator", "10 map stages as operator / ops.map ×10", _operator_against_map, 20_000, 0.5, 0.35),
    Case("async", "3 async stages / asyncio.Queue(16) and tasks", _against_queues, 20_000, 0.35, 0.2),
    Case("start", "start + 1 element + stop, 5 stages, run() / ops.map", _start_stop, 1_000, 1.0, 0.5),
    Case("start-operator", "the same as operator / ops.map", _start_stop_operator, 1_000, 1.0, 0.5),
    Case("fan", "fan-out 1→3 and merge / calling the three functions", _fan, 20_000, 6.0, 3.0),
    Case("metrics", "metrics on / off, 10 map stages", _with_metrics, 20_000, 1.15, 1.05),
    Case("events", "events on / off, 10 map stages", _with_events, 20_000, 1.15, 1.05),
)


# ------------------------------------------------------------------------------------------ measuring


def measure(jobs: list[Job], repetitions: int) -> list[float]:
    """Least CPU time [s] of each job over interleaved repetitions."""
    best = [float("inf")] * len(jobs)
    for _ in range(repetitions):
        for index, job in enumerate(jobs):
            gc.collect()
            begin = time.process_time()
            result = job()
            best[index] = min(best[index], time.process_time() - begin)
            del result
    return best


def _row(case: Case, quick: bool) -> Row:
    count = max(case.count // 10, 100) if quick else case.count
    ours, baseline = case.make(count)
    mine, theirs = measure([ours, baseline], 3 if quick else 12)
    notes = f"{mine / count * 1e9:,.0f} / {theirs / count * 1e9:,.0f} ns"
    return Row(case.what, mine / theirs, "×", case.bar, case.moonshot, notes)


async def _idle_memory(stages: list[Stage], count: int) -> float:
    """KiB of one open execution that waits for input."""
    pipeline = PipelineBuilder().chain(*stages).build()

    async def one() -> tuple[Any, Any]:
        execution = pipeline.execute(rx.never())
        elements = aiter(execution)
        execution.send("text")
        await anext(elements)
        return execution, elements

    kept = [await one() for _ in range(5)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept += [await one() for _ in range(count)]
    await asyncio.sleep(0)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for execution, _ in kept:
        execution.cancel()
        await execution.closed()
    return (after - before) / count / 1024


def _idle(quick: bool) -> Iterator[Row]:
    count = 50 if quick else 200
    plain: list[Stage] = [MapStage(f"stage {i}", _same(i)) for i in range(5)]
    mixed: list[Stage] = [MapStage(f"stage {i}", _same_async(i) if i % 2 == 0 else _same(i)) for i in range(5)]
    yield Row("idle 5-stage execution, synchronous", asyncio.run(_idle_memory(plain, count)), "KiB", 16, 4)
    yield Row("idle 5-stage execution, three of them async", asyncio.run(_idle_memory(mixed, count)), "KiB", 40, 15)


def _build(quick: bool) -> Row:
    stages = [MapStage(f"stage {i}", _same(0)) for i in range(10_000)]
    (best,) = measure([lambda: PipelineBuilder().chain(*stages).build()], 2 if quick else 7)
    return Row("build of 10,000 stages", best, "s", 0.25, 0.05)


def _import(quick: bool) -> Row:
    baseline = "import reactivex, reactivex.operators; from pydantic import BaseModel, Field"
    codes = ("pass", "import rxstage", baseline)
    with tempfile.TemporaryDirectory() as cache:  # byte code is written there by a first, unmeasured import of each
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache

        def job(code: str) -> float:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        columns = [[job(code) for code in codes] for _ in range(4 if quick else 10)][1:]
    bare, ours, theirs = (min(column) for column in zip(*columns, strict=True))
    notes = f"{(ours - bare) * 1e3:.0f} / {(theirs - bare) * 1e3:.0f} ms"
    return Row("import rxstage / import reactivex and pydantic", (ours - bare) / (theirs - bare), "×", 1.5, 1.2, notes)


def run_table(quick: bool = False) -> list[Row]:
    """Measure everything; takes about a minute, or a few seconds if `quick`, which is less exact."""
    rows = [_row(case, quick) for case in CASES]
    rows += [*_idle(quick), _build(quick), _import(quick)]
    rows += importlib.import_module("rxstage.bench.conversation").conversation_rows(quick)
    return [*rows, *importlib.import_module("rxstage.bench.voice").voice_rows(quick)]
