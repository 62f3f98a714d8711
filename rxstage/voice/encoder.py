"""Encodes one stretch of sound of one form. All but bare samples needs PyAV (extra `codecs`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

from rxstage.content import Audio, AudioFormat
from rxstage.errors import require
from rxstage.voice.coding import Coding
from rxstage.voice.encoded import EncodedAudio
from rxstage.voice.pcm import audio_of, samples_of

__all__ = ["LAYOUTS", "SAMPLES", "Encoder", "open_encoder"]

SAMPLES: Final = {AudioFormat.PCM16: "s16", AudioFormat.PCM32: "s32", AudioFormat.FLOAT32: "flt"}
"""What FFmpeg calls the formats that it has too."""

LAYOUTS: Final = ("mono", "stereo", "2.1", "quad", "5.0", "5.1", "6.1", "7.1")
"""What FFmpeg calls so many channels, from one on."""


class Encoder(ABC):
    """Gets pieces of one form, and gives what can be sent of them."""

    def __init__(self, coding: Coding, audio: Audio, rate: int) -> None:
        self._form = (audio.sample_rate, audio.channels, audio.format)
        self._mime_type, self._rate, self._channels = coding.mime_type, rate, audio.channels
        self._seconds = 0.0  # of sound that has not come out yet
        self._begins = True

    def fits(self, audio: Audio) -> bool:
        """Whether sound is of its form."""
        return self._form == (audio.sample_rate, audio.channels, audio.format)

    def encode(self, audio: Audio) -> list[EncodedAudio]:
        """Take a piece."""
        self._seconds += audio.duration
        return self._made(self._encode(audio))

    def end(self) -> list[EncodedAudio]:
        """What is still inside; the stream ends with it."""
        return self._made(self._end())

    def close(self) -> None:
        """Give it up."""
        return

    def _made(self, pieces: list[bytes]) -> list[EncodedAudio]:
        made: list[EncodedAudio] = []
        for data in filter(None, pieces):
            seconds = self._seconds / len(pieces)
            made.append(EncodedAudio(data, self._mime_type, self._rate, self._channels, seconds, self._begins))
            self._begins = False
        if made:
            self._seconds = 0.0
        return made

    @abstractmethod
    def _encode(self, audio: Audio) -> list[bytes]: ...

    def _end(self) -> list[bytes]:
        return []


def open_encoder(
    name: str,
    coding: Coding,
    audio: Audio,
    sample_rate: int | None = None,
    bit_rate: int | None = None,
    options: Mapping[str, str] | None = None,
) -> Encoder:
    """An encoder for sound of a form.

    Args:
        name: what it is called in messages.
        coding: what it is to make.
        audio: sound of the form; it is not taken.
        sample_rate: wanted rate [Hz]; None: the sound's, or the next one that the codec takes.
        bit_rate: bits a second; None: a usual one.
        options: of the codec, as FFmpeg has them.

    Raises:
        MissingExtra: PyAV is not installed.
        ValueError: the codec cannot take sound of that form.
    """
    rate = sample_rate or coding.rate_for(audio.sample_rate)
    if coding.format is not None:
        if rate != audio.sample_rate:
            raise ValueError(
                f"{name} at {rate} Hz cannot be made of sound of {audio.sample_rate} Hz; put a ResampleStage before it"
            )
        return _Samples(coding, audio, rate)
    if audio.channels > len(LAYOUTS):
        raise ValueError(f"{name} cannot hold {audio.channels} channels; put ResampleStage(channels=1) before it")
    try:
        kind = _Stream if coding.container else _Packets
        return kind(coding, audio, rate, bit_rate, options or {})
    except require("av", "codecs").error.FFmpegError as error:
        raise ValueError(
            f"{name} cannot be made of {audio.channels} channel(s) of {rate} Hz"
            f"{f' with {dict(options)}' if options else ''} ({error.strerror or error}); put a ResampleStage before it"
        ) from error


class _Samples(Encoder):
    """Bare samples."""

    def __init__(self, coding: Coding, audio: Audio, rate: int) -> None:
        super().__init__(coding, audio, rate)
        assert coding.format is not None
        self._format = coding.format

    def _encode(self, audio: Audio) -> list[bytes]:
        if audio.format is self._format:
            return [audio.samples]
        return [audio_of(samples_of(audio), audio.sample_rate, self._format).samples]


class _Coded(Encoder):
    """What a codec makes."""

    def __init__(self, coding: Coding, audio: Audio, rate: int) -> None:
        super().__init__(coding, audio, rate)
        self._av = require("av", "codecs")
        self._coding = coding
        self._layout = LAYOUTS[audio.channels - 1]
        self._sample = SAMPLES.get(audio.format, "s16")
        self._at = 0  # frames so far
        self._codec: Any = None
        self._converter: Any = None

    def _set(self, context: Any, bit_rate: int | None, options: Mapping[str, str]) -> None:
        """What a codec is told before it is opened."""
        coding = self._coding
        context.format = coding.sample
        context.time_base = Fraction(1, self._rate)
        context.options = dict(options)
        if bit_rate or coding.bit_rate:
            context.bit_rate = bit_rate or min(coding.bit_rate, 4 * self._rate) * self._channels

    def _use(self, codec: Any, frame_size: int) -> None:
        """What encodes, and what brings the sound into the form and frames that it wants."""
        self._codec = codec
        self._converter = self._av.AudioResampler(self._coding.sample, self._layout, self._rate, frame_size or None)

    def _encode(self, audio: Audio) -> list[bytes]:
        if not audio.frames:
            return []
        samples = audio.samples
        if audio.format is AudioFormat.MULAW:
            samples = audio_of(samples_of(audio), audio.sample_rate).samples
        frame = self._av.AudioFrame(self._sample, self._layout, audio.frames)
        frame.sample_rate, frame.pts, frame.time_base = audio.sample_rate, self._at, Fraction(1, audio.sample_rate)
        frame.planes[0].update(samples)
        self._at += audio.frames
        return self._written(self._packets(frame))

    def _end(self) -> list[bytes]:
        rest = self._packets(None) if self._at else []
        return self._written([*rest, *self._codec.encode(None)])

    def _packets(self, frame: Any) -> list[Any]:
        return [packet for each in self._converter.resample(frame) for packet in self._codec.encode(each)]

    @abstractmethod
    def _written(self, packets: list[Any]) -> list[bytes]: ...


class _Packets(_Coded):
    """Packets without a container."""

    def __init__(
        self, coding: Coding, audio: Audio, rate: int, bit_rate: int | None, options: Mapping[str, str]
    ) -> None:
        super().__init__(coding, audio, rate)
        context = self._av.CodecContext.create(coding.codec, "w")
        context.sample_rate, context.layout = rate, self._layout
        self._set(context, bit_rate, options)
        context.open()
        self._use(context, context.frame_size)

    def _written(self, packets: list[Any]) -> list[bytes]:
        return [bytes(packet) for packet in packets]


class _Stream(_Coded):
    """Packets in a container in which nobody seeks."""

    def __init__(
        self, coding: Coding, audio: Audio, rate: int, bit_rate: int | None, options: Mapping[str, str]
    ) -> None:
        super().__init__(coding, audio, rate)
        self._out = _Out()
        self._container = self._av.open(
            self._out, "w", format=coding.container, container_options={"flush_packets": "1", **coding.options}
        )
        stream = self._container.add_stream(coding.codec, rate=rate, layout=self._layout)
        self._set(stream.codec_context, bit_rate, options)
        self._container.start_encoding()
        self._use(stream, stream.codec_context.frame_size)

    def _written(self, packets: list[Any]) -> list[bytes]:
        for packet in packets:
            self._container.mux(packet)
        return self._out.taken()

    def _end(self) -> list[bytes]:
        rest = super()._end()
        self._container.close()
        return [b"".join([*rest, *self._out.taken()])]

    def close(self) -> None:
        self._container.close()  # by the collector of garbage, PyAV 14 would crash


class _Out:
    """The file that a container writes to."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def taken(self) -> list[bytes]:
        """All that was written since, as one."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return [data] if data else []
