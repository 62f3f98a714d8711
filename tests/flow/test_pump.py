"""Edges with a buffer of their own, and the trampoline of inline graphs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wiring import Out, make_scope

from rxstage import EndOfTurn, MapStage, Pipeline, PipelineBuilder, StageError, StreamElement, Text
from rxstage.flow.buffer import BATCH, Buffer
from rxstage.flow.pump import Trampoline, open_pump
from rxstage.testing import settle, virtual


def text(value: str) -> StreamElement:
    return StreamElement.of(value)


def wired(capacity: int = 4, **config: Any) -> tuple[Any, Any, Out, list[BaseException]]:
    failures: list[BaseException] = []
    scope = make_scope(failures.append, asyncio.get_running_loop(), **config)
    out = Out()
    buffer = Buffer(capacity, edge=("a", "b"))
    return scope, open_pump(scope, buffer, out.port()), out, failures


@virtual
async def test_delivers_on_the_loop() -> None:
    """What goes in comes out on the loop, in order, controls in their place, and the end last, once."""
    scope, port, out, _ = wired()
    (pump,) = scope.workers
    port.push(text("a"))
    port.control(StreamElement(EndOfTurn()))
    port.push(text("b"))
    port.done()
    assert out.elements == []
    assert not pump.parked
    assert pump.holding() == "edge 'a' -> 'b': 3 queued"
    await settle()
    assert out.names == ["a", "EndOfTurn", "b"]
    assert out.dones == 1
    assert pump.parked
    assert pump.holding() is None


@virtual
async def test_obeys_the_valve() -> None:
    """While the valve behind it is closed nothing moves and its own closes; each opening moves it on."""
    _, port, out, _ = wired(2)
    out.valve.close("x")
    for value in "ab":
        port.push(text(value))
    await settle()
    assert out.elements == []
    assert port.valve.closers
    out.valve.open("x")
    await settle()
    assert out.names == ["a", "b"]
    assert not port.valve.closers
    out.valve.close("x")
    port.done()
    await settle()
    out.valve.open("x")
    await settle()
    assert out.dones == 1


@virtual
async def test_a_valve_that_closes_in_mid_batch() -> None:
    """It looks at the valve after every element."""
    _, port, out, _ = wired(10)
    elements: list[StreamElement] = []

    def push(element: StreamElement) -> None:
        elements.append(element)
        out.valve.close("each")

    scope = make_scope(None, asyncio.get_running_loop())
    behind = out.port()
    behind.push = push
    port = open_pump(scope, Buffer(10), behind)
    for value in "abc":
        port.push(text(value))
    for n in range(1, 4):
        await settle()
        assert len(elements) == n
        out.valve.open("each")


@virtual
async def test_batches() -> None:
    """It delivers so many and lets the loop do other work between."""
    _, port, out, _ = wired(1000)
    for n in range(BATCH * 3):
        port.push(text(str(n)))
    await asyncio.sleep(0)
    assert len(out.elements) == BATCH
    await settle()
    assert len(out.elements) == BATCH * 3


@virtual
async def test_interrupt_goes_at_once() -> None:
    """An interrupt goes on in the push itself, and what was queued is gone."""
    _, port, out, _ = wired()
    port.push(text("a"))
    port.control(StreamElement.interrupt())
    assert out.names == ["Interrupt"]
    port.push(text("b"))
    await settle()
    assert out.names == ["Interrupt", "b"]


@virtual
async def test_errors_behind() -> None:
    """What raises behind it fails the execution; nothing more is delivered once that has ended."""
    failures: list[BaseException] = []
    scope = make_scope(failures.append, asyncio.get_running_loop())
    out = Out()
    behind = out.port()

    def push(element: StreamElement) -> None:
        raise ValueError(element.text)

    behind.push = push
    port = open_pump(scope, Buffer(4), behind)
    port.push(text("a"))
    port.push(text("b"))
    await settle()
    assert [str(error) for error in failures] == ["a"]
    scope.ended = True
    port.push(text("c"))
    await settle()
    assert len(failures) == 1


@virtual
async def test_edge_with_options() -> None:
    """In a pipeline an edge with a size and a policy of its own keeps to them."""
    gate = asyncio.Event()

    async def waits(value: int) -> int:
        await gate.wait()
        return value

    builder = PipelineBuilder().add(MapStage("a", lambda n: n, on=int), MapStage("b", waits, on=int))
    pipeline = builder.connect("a", "b", buffer_size=3, overflow="drop_oldest").build()
    execution = pipeline.execute(range(20))
    asyncio.get_running_loop().call_later(5, gate.set)
    values = [e.data async for e in execution]
    assert values[-3:] == [17, 18, 19]
    edge = execution.statistics().edges["a", "b"]
    assert (edge.capacity, edge.dropped) == (3, 20 - len(values))


# ------------------------------------------------------------------------------------------ inline


def test_trampoline_keeps_the_stack_flat() -> None:
    """Five thousand nodes behind trampolines are no depth of the call stack, and order stays."""
    trampoline, out = Trampoline(), Out()
    port = out.port()
    for _ in range(5000):
        port = trampoline.port(port)
    port = trampoline.outermost(port)
    for value in "abc":
        port.push(text(value))
    port.control(StreamElement(EndOfTurn()))
    port.done()
    assert out.names == ["a", "b", "c", "EndOfTurn"]
    assert out.dones == 1


def test_trampoline_after_an_error() -> None:
    """An error comes out of the outermost push, drops what was on its way, and leaves it usable."""
    trampoline, out = Trampoline(), Out()
    end = out.port()

    def push(element: StreamElement) -> None:
        if element.text == "bad":
            raise ValueError("bad")
        out.elements.append(element)

    end.push = push
    inner = trampoline.port(end)

    def twice(element: StreamElement) -> None:
        inner.push(element)
        inner.push(element)

    middle = trampoline.port(end)
    middle.push = twice
    port = trampoline.outermost(middle)
    with pytest.raises(ValueError, match="bad"):
        port.push(text("bad"))
    assert not trampoline.queue
    port.push(text("good"))
    assert out.names == ["good", "good"]


def test_trampoline_pushed_from_inside() -> None:
    """One that is pushed into again from behind queues behind what is on its way."""
    trampoline, out = Trampoline(), Out()
    port: Any = None
    end = out.port()

    def push(element: StreamElement) -> None:
        out.elements.append(element)
        if element.text == "a":
            port.push(text("from inside"))

    end.push = push
    port = trampoline.outermost(trampoline.port(end))
    port.push(text("a"))
    port.push(text("b"))
    assert out.names == ["a", "from inside", "b"]


def test_trampoline_without_an_outermost() -> None:
    """An operator that emits by itself enters in the middle: that is drained, too."""
    trampoline, out = Trampoline(), Out()
    middle = trampoline.port(out.port())
    middle.push(text("a"))
    middle.done()
    assert out.names == ["a"]
    assert out.dones == 1


def test_deep_pipeline_inline() -> None:
    """A deep chain of operators runs inline, and an error at its end is that stage's."""
    from reactivex import operators as ops

    from rxstage import OperatorStage

    stages: list[Any] = [OperatorStage(f"o{n}", ops.map(lambda e: e)) for n in range(60)]
    assert Pipeline.of(*stages).run(["a", "b"]).text == "ab"
    with pytest.raises(StageError) as caught:
        Pipeline.of(*stages, MapStage("bad", lambda e: 1 / 0, on=Text)).run(["a"])
    assert caught.value.stage == "bad"
