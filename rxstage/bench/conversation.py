"""What a conversation costs: a streamed piece of text, the way to the first token, a thousand at once, memory kept."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from rxstage.bench.server import completions_server
from rxstage.bench.table import Row
from rxstage.content import Message
from rxstage.pipeline import Pipeline
from rxstage.ports.provider import Finish, ModelEvent, ModelRequest, Provider
from rxstage.ports.store import Entry
from rxstage.stages.provider import ProviderStage

__all__ = ["conversation_rows"]

_CONVERSATIONS: Final = 1000
_ALLOWED: Final = 30.0  # µs of CPU that the stage may add to a piece of text
_PIECES: Final = 20  # of text in an answer of one of those


def conversation_rows(quick: bool = False) -> list[Row]:
    """Measure; rows whose library is not installed are left out."""
    rows = [_crowd(quick), asyncio.run(_first_token(quick))]
    if find_spec("openai") is not None:
        with completions_server() as address:
            rows.append(asyncio.run(_piece(address, quick)))
    if find_spec("aiosqlite") is not None:
        rows.append(asyncio.run(_kept(quick)))
    return rows


class _Paced(Provider):
    """Answers in pieces of text, with a pause of the loop's before each."""

    name = "paced"

    def __init__(self, pieces: int, pause: float = 0.0) -> None:
        self.pieces, self.pause = pieces, pause

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        for _ in range(self.pieces):
            await asyncio.sleep(self.pause)
            yield "word "
        yield Finish()


async def _piece(address: str, quick: bool) -> Row:
    """Pieces of text through the stage and its adapter, against what the SDK's own stream takes for it."""
    import openai

    from rxstage.adapters.openai import OpenAIProvider

    count = 1_000 if quick else 10_000
    client = openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0)
    provider = OpenAIProvider("bench", base_url=address)
    stage = ProviderStage(provider=provider, parameters={"max_tokens": count}, first_token_timeout=60, token_timeout=60)
    pipeline = Pipeline.of(stage)

    async def theirs() -> int:
        request: Any = {"model": "bench", "max_tokens": count, "messages": [{"role": "user", "content": "x"}]}
        seen = 0
        async for _ in await client.chat.completions.create(stream=True, **request):
            seen += 1
        return seen

    async def ours() -> int:
        seen = 0
        async for _ in pipeline.execute(Message.user("x")):
            seen += 1
        return seen

    best = [float("inf"), float("inf")]
    for _ in range(2 if quick else 5):
        for index, job in enumerate((ours, theirs)):
            begin = time.process_time()
            assert await job() > count
            best[index] = min(best[index], time.process_time() - begin)
    await client.close()
    await provider.aclose()
    mine, other = (seconds / count * 1e6 for seconds in best)
    bar = (other + _ALLOWED) / other
    note = f"{mine:.1f} / {other:.1f} µs; the bar is {_ALLOWED:g} µs more"
    return Row(
        "streamed pieces of text, ProviderStage / the openai SDK's own stream", mine / other, "×", bar, 1.0, note
    )


async def _first_token(quick: bool) -> Row:
    """From the question to the first piece of an answer, above what the provider takes."""
    pipeline = Pipeline.of(ProviderStage(provider=_Paced(1)))
    begin = time.process_time()
    count = 50 if quick else 500
    for _ in range(count):
        execution = pipeline.execute(Message.user("x"))
        async for _element in execution:
            break
        execution.cancel()
        await execution.closed()
    return Row(
        "new execution to the first token, ProviderStage", (time.process_time() - begin) / count * 1e3, "ms", 5.0, 0.5
    )


def _crowd(quick: bool) -> Row:
    """A thousand conversations at once, on one loop, against reading as many streams of the provider itself."""
    count = _CONVERSATIONS // 10 if quick else _CONVERSATIONS
    provider = _Paced(_PIECES, 0.05)
    pipeline = Pipeline.of(ProviderStage(provider=provider))

    async def ours() -> float:
        begin = asyncio.get_running_loop().time()
        texts = [element.text async for element in pipeline.execute(Message.user("x"))]
        assert len(texts) == _PIECES + 1  # no turn is lost
        return asyncio.get_running_loop().time() - begin

    async def bare() -> float:
        begin = asyncio.get_running_loop().time()
        assert len([event async for event in provider.stream(ModelRequest(messages=()))]) == _PIECES + 1
        return asyncio.get_running_loop().time() - begin

    async def all_of(job: Callable[[], Awaitable[float]]) -> list[float]:
        return sorted(await asyncio.gather(*(job() for _ in range(count))))

    cpu, last = [], []
    for job in (ours, bare):
        begin = time.process_time()
        took = asyncio.run(all_of(job))
        cpu.append((time.process_time() - begin) / count * 1e3)
        last.append((took[len(took) * 99 // 100] - _PIECES * 0.05) * 1e3)
    return Row(
        f"{count:,} streamed conversations at once, CPU for each",
        cpu[0],
        "ms",
        2.0,
        1.0,
        f"provider alone {cpu[1]:.2f} ms; end late by {last[0]:.0f} ms (p99), provider alone by {last[1]:.0f} ms",
    )


async def _kept(quick: bool) -> Row:
    """A conversation of 200 messages written to SQLite and read again."""
    from rxstage.adapters.stores import store_of

    messages = [Message.user(f"question {n}") if n % 2 else Message.assistant(f"answer {n} " * 20) for n in range(200)]
    best = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        async with store_of(f"sqlite:///{Path(folder) / 'bench.db'}") as store:
            for number in range(3 if quick else 15):
                begin = time.perf_counter()
                await store.append(str(number), [Entry(message) for message in messages], version=0)
                stored = await store.load(str(number))
                best = min(best, time.perf_counter() - begin)
                assert len(stored.entries) == 200
    note = f"wall time, {os.cpu_count()} cores"
    return Row("save and load a conversation of 200 messages, SQLite", best * 1e3, "ms", 5.0, 2.0, note)
