"""`priority_queue=True`: buffers are drained by priority, with bounded starvation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from forms import FORMS, Form, texts
from reactivex.subject import Subject

from rxstage import (
    EndOfTurn,
    Interrupt,
    MapStage,
    PassthroughStage,
    Pipeline,
    PipelineBuilder,
    PipelineConfig,
    Priority,
    StageFunc,
    StageType,
    StreamElement,
)
from rxstage.testing import assert_no_leaks, virtual

CONFIG = PipelineConfig(priority_queue=True, buffer_size=100)
LOW, NORMAL, HIGH, CRITICAL = Priority


def element(text: str, priority: Priority) -> StreamElement:
    return StreamElement.of(text, priority=priority)


async def drained(items: list[Any], config: PipelineConfig = CONFIG, where: str = "worker") -> list[str]:
    """What comes out of a buffer that all items had entered before the first of them was taken."""
    gate = asyncio.Event()

    async def held(item: StreamElement) -> StreamElement:
        await gate.wait()
        return item

    async def stream(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
        await gate.wait()
        async for item in elements:
            yield item

    builder = PipelineBuilder(config).add(PassthroughStage("in"))
    if where == "worker":
        builder.chain("in", MapStage("held", held))
    elif where == "concurrent":
        builder.chain("in", MapStage("held", held, interruptible=True))
    elif where == "stream":
        builder.chain("in", StageFunc("held", StageType.TRANSFORM, stream))
    elif where == "edge":
        builder.add(PassthroughStage("p"), MapStage("held", held))
        builder.connect("in", "p", buffer_size=100).connect("p", "held", buffer_size=1)
    source: Subject[Any] = Subject()
    async with assert_no_leaks(), builder.build().execute(source) as execution:
        elements = aiter(execution)
        source.on_next(element("first", NORMAL))
        await asyncio.sleep(1.0)
        for item in items:
            source.on_next(item)
        await asyncio.sleep(1.0)
        gate.set()
        source.on_completed()
        return [text for text in texts([item async for item in elements]) if text != "first"]


@pytest.mark.parametrize("where", ["worker", "concurrent", "stream", "output"])
@virtual
async def test_by_priority(where: str) -> None:
    """Every buffer is drained by priority, first in first out within one."""
    items = [element(f"{priority.name}{number}", priority) for number in range(2) for priority in Priority]
    seen = await drained(items, where=where)
    assert seen == ["CRITICAL0", "CRITICAL1", "HIGH0", "HIGH1", "NORMAL0", "NORMAL1", "LOW0", "LOW1"]


@virtual
async def test_off_by_default() -> None:
    """Without it, buffers are drained in order of arrival."""
    items = [element(priority.name, priority) for priority in Priority]
    assert await drained(items, PipelineConfig(buffer_size=100)) == [priority.name for priority in Priority]


@virtual
async def test_controls_keep_their_place() -> None:
    """What came before a control leaves before it, what came after it after."""
    items = [element("low", LOW), EndOfTurn(), element("high", HIGH), ValueError("v"), element("critical", CRITICAL)]
    assert await drained(items) == ["low", "EndOfTurn", "high", "Failure", "critical"]


@pytest.mark.parametrize("where", ["worker", "stream", "edge"])
@virtual
async def test_an_interrupt_overtakes(where: str) -> None:
    """An `Interrupt` overtakes; critical content and failures stay."""
    before = [element("low", LOW), element("c", CRITICAL), ValueError("v"), EndOfTurn()]
    items = [*before, Interrupt("i"), element("x", LOW)]
    seen = await drained(items, where=where)
    assert seen.count("Interrupt") == 1
    assert seen[seen.index("Interrupt") :] == ["Interrupt", "c", "Failure", "x"]
    assert "EndOfTurn" not in seen


@virtual
async def test_starvation_is_bounded() -> None:
    """With critical elements without end, the lower ones still get through."""
    items = [element("low", LOW)] + [element(f"c{number}", CRITICAL) for number in range(60)]
    seen = await drained(items)
    assert seen.index("low") <= 10
    assert [text for text in seen if text != "low"] == [f"c{number}" for number in range(60)]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_nothing_is_lost(form: Form) -> None:
    """In every form everything comes out, whatever its priority."""

    async def same(item: StreamElement) -> StreamElement:
        await asyncio.sleep(0.001)
        return item

    priorities = list(Priority)
    items = [element(str(number), priorities[number % 4]) for number in range(60)]
    pipeline = Pipeline.of(
        MapStage("a", same), MapStage("b", same), config=PipelineConfig(priority_queue=True, buffer_size=4)
    )
    elements, error = form(pipeline, items)
    assert error is None
    assert sorted(texts(elements), key=int) == [str(number) for number in range(60)]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
@virtual
async def test_overflow_drops_the_lowest(policy: Any) -> None:
    """A dropping policy drops the lowest priority first."""
    config = PipelineConfig(priority_queue=True, buffer_size=2, overflow=policy)
    items = [element("low", LOW), element("high", HIGH), element("critical", CRITICAL)]
    assert await drained(items, config) == ["critical", "high"]
