"""One utterance on its way through an engine that understands while it is said."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final, cast

from rxstage.content import Audio
from rxstage.errors import require
from rxstage.ports.stt import Stt, Transcript
from rxstage.voice.pcm import mono16

__all__ = ["Hearing"]

_AHEAD: Final = 256  # pieces that may wait for a slow engine: 5 s of 20 ms


class Hearing:
    """Feeds an engine piece by piece. Belongs to the task that makes it; close it.

    Args:
        stt: the engine.
    """

    def __init__(self, stt: Stt) -> None:
        self._stt = stt
        self._pieces: asyncio.Queue[Audio | None] = asyncio.Queue(_AHEAD)
        self._partials: deque[Transcript] = deque(maxlen=1)  # the newest takes the place of those before
        self._final: Transcript | None = None
        self._rate = 0
        self._resampler: Any = None
        self._task = asyncio.create_task(self._run(), name="rxstage:hearing")

    async def add(self, audio: Audio) -> None:
        """Hand on a piece of sound; waits where the engine is too slow. Past an error of the engine nothing happens."""
        if self._task.done():
            return
        put = asyncio.ensure_future(self._pieces.put(self._fitted(audio)))
        try:
            await asyncio.wait((put, self._task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()

    def partial(self) -> Transcript | None:
        """What was understood since the last look."""
        return self._partials.popleft() if self._partials else None

    async def end(self) -> Transcript:
        """The sound has ended: the final transcript. Raises what the engine raised."""
        if not self._task.done():
            await self._pieces.put(None)
        await self._task
        return self._final or Transcript("")

    async def aclose(self) -> None:
        """Give the utterance up."""
        self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.exception()

    async def _run(self) -> None:
        async with aclosing(cast("Any", self._stt.stream(self._sound()))) as found:
            async for transcript in found:
                if transcript.final:
                    self._final = transcript
                else:
                    self._partials.append(transcript)

    async def _sound(self) -> AsyncIterator[Audio]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    def _fitted(self, audio: Audio) -> Audio:
        """As the engine wants it: 16-bit mono at its rate."""
        sound, rate = mono16(audio), self._stt.sample_rate
        if audio.sample_rate != rate:
            if self._rate != audio.sample_rate:
                self._rate = audio.sample_rate
                self._resampler = require("soxr", "audio").ResampleStream(audio.sample_rate, rate, 1, dtype="int16")
            samples = require("numpy", "audio").frombuffer(sound, dtype="<i2")
            sound = self._resampler.resample_chunk(samples).tobytes()
        return Audio(sound, rate)
