"""One visitor of the page: an execution of the pipeline, and what is told of it beside its output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from rxstage.cli.serve_pipeline import Voice
from rxstage.cli.serve_timeline import Timeline
from rxstage.content import Audio, Data, Message
from rxstage.element import StreamElement
from rxstage.execution import Execution
from rxstage.priority import Priority
from rxstage.websocket.hosted import ServerSession

__all__ = ["converse"]

_EVERY: Final = 0.25  # seconds between two reports of the pressure


async def converse(voice: Voice, session: ServerSession) -> None:
    """Answer one visitor, till nothing more comes.

    Beside the answers, values are sent that the page draws: `{"kind": "timing", …}` for each turn, and
    `{"kind": "pressure", …}` where it has changed.
    """
    loop = asyncio.get_running_loop()
    timeline = Timeline(voice.silence)
    news = asyncio.Event()

    def hear(event: Any) -> None:
        timeline.hear(event)
        if timeline:
            news.set()

    async def said() -> AsyncIterator[StreamElement]:
        async for element in session:
            if element.content.__class__ is Message:
                timeline.written(loop.time())
                news.set()
            yield element

    async with voice.pipeline.execute(said()) as execution:
        session.execution = execution
        execution.events.subscribe(hear)
        chores = (
            asyncio.create_task(_tell_times(session, timeline, news), name="rxstage serve times"),
            asyncio.create_task(_tell_pressure(session, execution), name="rxstage serve pressure"),
        )
        try:
            async for element in execution:
                if element.content.__class__ is Audio:
                    timeline.sounded(loop.time())
                    if timeline:
                        news.set()
                await session.send(element)
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.wait(chores)


async def _tell_times(session: ServerSession, timeline: Timeline, news: asyncio.Event) -> None:
    while True:
        await news.wait()
        news.clear()
        for turn in timeline.take():
            await session.send(StreamElement.of({"kind": "timing", **turn}))


async def _tell_pressure(session: ServerSession, execution: Execution) -> None:
    told: list[Any] = []
    while True:
        now = _pressure(session, execution)
        if now != told and session.connected:
            told = now
            value = Data({"kind": "pressure", "edges": now})
            await session.send(StreamElement(value, priority=Priority.LOW))  # an old one may be left out
        await asyncio.sleep(_EVERY)


def _pressure(session: ServerSession, execution: Execution) -> list[Any]:
    """For each edge: source, target, elements in it, most that were in it, capacity, dropped, whether it waits."""
    sides = session.statistics()
    incoming, outgoing = sides.incoming, sides.outgoing
    edges = execution.statistics().edges.items()
    return [
        ["", "<input>", incoming.depth, incoming.peak, incoming.capacity, incoming.dropped, False],
        *([*names, edge.depth, edge.peak, edge.capacity, edge.dropped, edge.waiting] for names, edge in edges),
        ["<output>", "", outgoing.depth, outgoing.peak, outgoing.capacity, outgoing.dropped, False],
    ]
