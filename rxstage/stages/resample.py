"""Sound at another rate, with other channels, in another format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from rxstage.audiospec import AudioSpec
from rxstage.content import Audio, AudioFormat, EndOfTurn, Interrupt
from rxstage.element import StreamElement
from rxstage.errors import require
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.pcm import audio_of, mixed, samples_of

if TYPE_CHECKING:
    from rxstage.voice.pcm import Samples

__all__ = ["ResampleStage"]


class ResampleStage(Stage):
    """Converts sound: rate (band-limited, by libsoxr), number of channels, sample format.

    What has the wanted form already goes on as it is. The rate is converted as a stream, so that pieces of any size
    fit together without a click; at an `EndOfTurn`, at the end and where the form of what comes in changes, what the
    filter still holds goes out, and the next piece begins anew.

    Args:
        name: name in the graph.
        sample_rate: wanted rate [Hz]; None leaves it.
        channels: wanted number of channels; None leaves it. One is the mean of all.
        format: wanted sample format; None leaves it.
        quality: of the filter: `"QQ"` (quick) to `"VHQ"`.

    Emits: `Audio`, not always a piece for a piece: the filter delays by some milliseconds. Everything else passes by.
    Holds: what the filter needs: 20 ms at most at the usual rates.
    Completes: with its input.
    Fails: with `StageError` where several channels are to become several others.
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Audio,)
    emits: ClassVar[tuple[Any, ...]] = (Audio,)

    sample_rate: int | None = Field(default=16_000, gt=0)
    channels: int | None = Field(default=1, gt=0)
    format: AudioFormat | None = AudioFormat.PCM16
    quality: Literal["QQ", "LQ", "MQ", "HQ", "VHQ"] = "HQ"

    def audio_out(self, incoming: AudioSpec) -> AudioSpec:
        """What it makes of what comes in."""
        return AudioSpec(
            self.sample_rate or incoming.sample_rate, self.channels or incoming.channels, self.format or incoming.format
        )

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        converter: _Converter | None = None
        newest: StreamElement | None = None
        async for element in elements:
            audio = element.content
            if audio.__class__ is Audio:
                if converter is None or not converter.fits(audio):
                    if converter is not None and newest is not None and (rest := converter.rest()) is not None:
                        yield newest.replace(content=rest)
                    converter = _Converter(self, audio)
                newest = element
                if converter.idle:
                    yield element
                elif (converted := converter.convert(audio)) is not None:
                    yield element.replace(content=converted)
                continue
            if audio.__class__ is EndOfTurn and converter is not None and newest is not None:
                if (rest := converter.rest()) is not None:
                    yield newest.replace(content=rest)
                converter = None
            elif audio.__class__ is Interrupt:
                converter = None
            yield element
        if converter is not None and newest is not None and (rest := converter.rest()) is not None:
            yield newest.replace(content=rest)


class _Converter:
    """Converts one stretch of sound of one form."""

    def __init__(self, stage: ResampleStage, audio: Audio) -> None:
        self._form = (audio.sample_rate, audio.channels, audio.format)
        self._rate = stage.sample_rate or audio.sample_rate
        self._channels = stage.channels or audio.channels
        self._format = stage.format or audio.format
        self.idle = self._form == (self._rate, self._channels, self._format)
        self._stream: Any = None
        if self._rate != audio.sample_rate:
            soxr = require("soxr", "audio")
            self._stream = soxr.ResampleStream(
                audio.sample_rate, self._rate, self._channels, dtype="float32", quality=stage.quality
            )

    def fits(self, audio: Audio) -> bool:
        return self._form == (audio.sample_rate, audio.channels, audio.format)

    def convert(self, audio: Audio) -> Audio | None:
        samples = mixed(samples_of(audio), self._channels)
        if self._stream is not None:
            samples = self._stream.resample_chunk(samples)
        return self._made(samples)

    def rest(self) -> Audio | None:
        """What the filter still holds."""
        if self._stream is None:
            return None
        numpy = require("numpy", "audio")
        empty = numpy.zeros((0, self._channels), dtype=numpy.float32)
        return self._made(self._stream.resample_chunk(empty, last=True))

    def _made(self, samples: Samples) -> Audio | None:
        return audio_of(samples, self._rate, self._format) if len(samples) else None
