"""Sound encoded and decoded as it streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from rxstage.audiospec import AudioSpec
from rxstage.content import Audio, AudioFormat, Data, EndOfTurn, Failure, Interrupt
from rxstage.element import StreamElement
from rxstage.stage import Stage, StageContext, StageType
from rxstage.voice.coding import CODINGS, CodingName
from rxstage.voice.decoder import DecodeError, Decoder
from rxstage.voice.encoded import EncodedAudio
from rxstage.voice.encoder import Encoder, open_encoder

__all__ = ["DecodeStage", "EncodeStage"]


class EncodeStage(Stage):
    """Encodes sound, piece by piece as it comes.

    A stream of bytes ends at an `EndOfTurn`, at the end and where the form of the sound changes; the next sound begins
    another one. An `Interrupt` takes away what has not come out.

    Args:
        name: name in the graph.
        codec: `"pcm16"`, `"pcm32"`, `"float32"` and `"mulaw"` are bare samples; `"opus"` gives bare packets, for a
            transport that keeps them apart; `"ogg"` and `"webm"` are Opus in a container; `"mp3"`; `"aac"` in ADTS;
            `"flac"` in Ogg; `"wav"` with a header that leaves the length open.
        sample_rate: wanted rate [Hz]; None: that of the sound, or the next one that the codec has. A codec gets what
            it needs by itself; bare samples are not resampled.
        bit_rate: bits a second; None: 32 kbit/s a channel for Opus, 64 for MP3 and AAC.
        options: of the codec, as FFmpeg has them: `{"application": "lowdelay"}`.

    Emits: `Data(EncodedAudio)` in the place of `Audio`, when the codec has made some. Everything else passes by.
    Holds: what the codec needs: one or two of its frames, of 20 ms (Opus) to 130 ms (AAC at 8 kHz).
    Completes: with its input.
    Fails: with `StageError` where a codec cannot take the sound, or PyAV is not installed (extra `codecs`).
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (Audio,)
    emits: ClassVar[tuple[Any, ...]] = (Data,)

    codec: CodingName = "ogg"
    sample_rate: int | None = Field(default=None, gt=0)
    bit_rate: int | None = Field(default=None, gt=0)
    options: Mapping[str, str] = Field(default_factory=dict)

    def audio_in(self) -> AudioSpec | None:
        """Bare samples are not resampled here."""
        bare = CODINGS[self.codec].format is not None
        return AudioSpec(self.sample_rate) if bare and self.sample_rate is not None else None

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        encoder: Encoder | None = None
        newest: StreamElement | None = None
        try:
            async for element in elements:
                audio = element.content
                if audio.__class__ is Audio:
                    if encoder is None or not encoder.fits(audio):
                        if encoder is not None and newest is not None:
                            for piece in encoder.end():
                                yield newest.replace(content=Data(piece))
                        encoder = self._opened(audio)
                    newest = element
                    for piece in encoder.encode(audio):
                        yield element.replace(content=Data(piece))
                    continue
                if encoder is not None and newest is not None and audio.__class__ in (EndOfTurn, Interrupt):
                    if audio.__class__ is EndOfTurn:
                        for piece in encoder.end():
                            yield newest.replace(content=Data(piece))
                    encoder.close()
                    encoder = None
                yield element
            if encoder is not None and newest is not None:
                for piece in encoder.end():
                    yield newest.replace(content=Data(piece))
        finally:
            if encoder is not None:
                encoder.close()

    def _opened(self, audio: Audio) -> Encoder:
        coding = CODINGS[self.codec]
        return open_encoder(self.codec, coding, audio, self.sample_rate, self.bit_rate, self.options)


class DecodeStage(Stage):
    """Decodes sound, piece by piece as it comes.

    A stream of bytes ends at an `EndOfTurn`, at the end, with a piece that `begins` another one and where the type
    changes. What it is, is told by the MIME type of its pieces and never guessed from the bytes. An `Interrupt` takes
    away what has not come out.

    Args:
        name: name in the graph.
        format: wanted sample format.
        on_error: what a stream means that is broken, cut off or of an unknown type: `"fail"` ends the execution, with
            `"emit"` a `Failure` stands in the place of the rest of it, with `"skip"` the rest is left out; an event
            `audio.decode.failed` tells of both.

    Emits: `Audio` in the place of `Data(EncodedAudio)`, as much in one as the codec has in a frame. Everything else
        passes by.
    Holds: what the codec needs; of a container what its demultiplexer has read, 32 KiB.
    Completes: with its input.
    Fails: with `StageError` where a stream is broken, unless `on_error` says otherwise, and where PyAV is not installed
        (extra `codecs`).
    """

    type: ClassVar[StageType] = StageType.TRANSFORM
    accepts: ClassVar[tuple[Any, ...]] = (EncodedAudio,)
    emits: ClassVar[tuple[Any, ...]] = (Audio,)

    format: AudioFormat = AudioFormat.PCM16
    on_error: Literal["fail", "emit", "skip"] = "fail"

    def audio_out(self, incoming: AudioSpec) -> AudioSpec:
        """The format is known, the rest stands in the bytes."""
        return AudioSpec(format=self.format)

    async def process(
        self, elements: AsyncIterator[StreamElement], context: StageContext
    ) -> AsyncIterator[StreamElement]:
        decoder: Decoder | None = None
        newest: StreamElement | None = None
        try:
            async for element in elements:
                content = element.content
                if content.__class__ is Data and content.value.__class__ is EncodedAudio:
                    piece: EncodedAudio = content.value
                    if decoder is None or not decoder.fits(piece):
                        if decoder is not None and newest is not None:
                            for sound in self._heard(decoder.end(), newest, context):
                                yield sound
                            decoder.close()
                        decoder = Decoder(piece, self.format)
                    newest = element
                    for sound in self._heard(decoder.decode(piece), element, context):
                        yield sound
                    continue
                if decoder is not None and newest is not None and content.__class__ in (EndOfTurn, Interrupt):
                    if content.__class__ is EndOfTurn:
                        for sound in self._heard(decoder.end(), newest, context):
                            yield sound
                    decoder.close()
                    decoder = None
                yield element
            if decoder is not None and newest is not None:
                for sound in self._heard(decoder.end(), newest, context):
                    yield sound
        finally:
            if decoder is not None:
                decoder.close()

    def _heard(self, pieces: Iterator[Audio], element: StreamElement, context: StageContext) -> Iterator[StreamElement]:
        """The pieces in the envelope of an element, and what `on_error` makes of an error."""
        while not context.interrupted:
            try:
                audio = next(pieces, None)
            except DecodeError as error:
                if self.on_error == "fail":
                    raise
                context.emit_event("audio.decode.failed", error=str(error))
                if self.on_error == "emit":
                    yield element.replace(content=Failure(error, context.stage), sequence=0)
                return
            if audio is None:
                return
            yield element.replace(content=audio)
