"""Decodes one stream of encoded sound. All but bare samples needs PyAV (extra `codecs`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rxstage.content import Audio, AudioFormat
from rxstage.errors import RxStageError, require
from rxstage.voice.coding import Decoding, parse_mime_type
from rxstage.voice.demuxer import Demuxer
from rxstage.voice.encoded import EncodedAudio
from rxstage.voice.encoder import LAYOUTS
from rxstage.voice.pcm import audio_of, samples_of

__all__ = ["DecodeError", "Decoder"]

_MOST: Final = 8 * 1024 * 1024  # bytes in which there has to be some sound
_PRE_SKIP: Final = 312  # frames at 48 kHz that libopus begins with, before the sound
_PAGE: Final = b"OggS"  # what a page of Ogg begins with
_LARGEST_PAGE: Final = 65_307  # bytes


class DecodeError(RxStageError):
    """Encoded sound is broken, cut off, or of a type that is not known."""


class Decoder:
    """Gets the pieces of one stream, and gives the sound in them.

    Args:
        piece: the first piece; it is not taken.
        format: wanted sample format.
    """

    def __init__(self, piece: EncodedAudio, format: AudioFormat) -> None:
        self._form = (piece.mime_type, piece.sample_rate, piece.channels)
        self._format = format
        self._inner: _Inner | None = None
        self._broken = False
        self._seconds = 0.0
        self._bytes = 0  # in which there was no sound

    def fits(self, piece: EncodedAudio) -> bool:
        """Whether a piece goes on with its stream."""
        return not piece.begins and self._form == (piece.mime_type, piece.sample_rate, piece.channels)

    def decode(self, piece: EncodedAudio) -> Iterator[Audio]:
        """The sound that is complete with a piece; nothing, once the stream has turned out to be broken.

        The iterator is to be used up before the next call: it decodes no more than is asked for.

        Raises:
            MissingExtra: PyAV is not installed.
            DecodeError: it is broken.
        """
        if self._broken or not piece.data:
            return
        if self._inner is None:
            self._inner = self._opened(piece)
        self._bytes += len(piece.data)
        yield from self._sound(self._inner.decode(piece.data))
        if self._bytes > _MOST:
            self._broken = True
            raise DecodeError(f"there is no sound in {self._bytes} bytes of {self._form[0]!r}; {_REMEDY}")

    def end(self) -> Iterator[Audio]:
        """The rest: no more pieces will come. Raises as `decode` does."""
        if self._broken or self._inner is None:
            return
        yield from self._sound(self._inner.end())
        if self._bytes and not self._seconds:
            raise DecodeError(f"there is no sound in these {self._bytes} bytes of {self._form[0]!r}; {_REMEDY}")

    def close(self) -> None:
        """Give it up."""
        if self._inner is not None:
            self._inner.close()

    def _opened(self, piece: EncodedAudio) -> _Inner:
        try:
            decoding, parameters = parse_mime_type(piece.mime_type)
            return _inner(decoding, parameters, piece)
        except ValueError as error:
            self._broken = True
            raise DecodeError(str(error)) from error

    def _sound(self, pieces: Iterator[Audio]) -> Iterator[Audio]:
        while True:
            try:
                audio = next(pieces, None)
            except Exception as error:
                self._broken = True
                what = "it ends too soon" if isinstance(error, EOFError) else getattr(error, "strerror", "") or error
                after = f" after {self._seconds:.2f} s of sound" if self._seconds else ""
                raise DecodeError(f"the {self._form[0]!r} is broken{after} ({what}); {_REMEDY}") from error
            if audio is None:
                return
            self._bytes = 0
            self._seconds += audio.duration
            yield audio if audio.format is self._format else _as(audio, self._format)


_REMEDY: Final = "send the whole of it, with the mime_type that it has"


def _as(audio: Audio, format: AudioFormat) -> Audio:
    return audio_of(samples_of(audio), audio.sample_rate, format)


def _inner(decoding: Decoding, parameters: Mapping[str, str], piece: EncodedAudio) -> _Inner:
    if decoding.format is not None:
        return _Samples(decoding.format, parameters, piece)
    if decoding.packets:
        return _Packets(decoding.packets, piece)
    if decoding.frames:
        return _Frames(decoding.frames)
    return _Container(decoding.container)


class _Inner(ABC):
    """What decodes bytes of one kind."""

    @abstractmethod
    def decode(self, data: bytes) -> Iterator[Audio]: ...

    @abstractmethod
    def end(self) -> Iterator[Audio]: ...

    def close(self) -> None:
        return


class _Samples(_Inner):
    """Bare samples; a piece may end within one."""

    def __init__(self, format: AudioFormat, parameters: Mapping[str, str], piece: EncodedAudio) -> None:
        usual = 8000 if format is AudioFormat.MULAW else 0
        rate = piece.sample_rate or int(parameters.get("rate", usual))
        if rate <= 0:
            raise ValueError(
                f"the rate of {piece.mime_type!r} is not known; say it: EncodedAudio(..., sample_rate=16000)"
            )
        self._form = (rate, piece.channels or int(parameters.get("channels", 1)), format)
        self._width = format.width * self._form[1]
        self._left = b""

    def decode(self, data: bytes) -> Iterator[Audio]:
        data = self._left + data if self._left else data
        end = len(data) - len(data) % self._width
        self._left = data[end:]
        if end:
            yield Audio(data[:end], *self._form)

    def end(self) -> Iterator[Audio]:
        if self._left:
            raise ValueError(f"it ends within a frame, of which {len(self._left)} of {self._width} bytes have come")
        yield from ()


class _Coded(_Inner):
    """What a codec of FFmpeg's makes of it."""

    def __init__(self) -> None:
        self._av = require("av", "codecs")
        self._form: Any = None
        self._converter: Any = None

    def _audio(self, frames: Iterable[Any]) -> Iterator[Audio]:
        for frame in frames:
            form = (frame.sample_rate, frame.layout.name, frame.format.name)
            if form != self._form:
                self._form = form
                packed = "s16" if frame.format.name.startswith(("s16", "u8")) else "flt"
                self._converter = self._av.AudioResampler(packed, frame.layout, frame.sample_rate)
            for each in self._converter.resample(frame):
                channels = each.layout.nb_channels
                format = AudioFormat.PCM16 if each.format.name == "s16" else AudioFormat.FLOAT32
                length = each.samples * channels * format.width
                yield Audio(bytes(each.planes[0])[:length], each.sample_rate, channels, format)


class _Packets(_Coded):
    """Each piece is a packet, of Opus."""

    def __init__(self, codec: str, piece: EncodedAudio) -> None:
        super().__init__()
        channels = piece.channels or 1
        if channels > 2:
            raise ValueError(f"bare packets of Opus have one channel or two, got {channels}; send it as audio/ogg")
        self._context = self._av.CodecContext.create(codec, "r")
        self._context.sample_rate, self._context.layout = 48_000, LAYOUTS[channels - 1]
        rate = (piece.sample_rate or 48_000).to_bytes(4, "little")
        self._context.extradata = b"OpusHead\1" + bytes([channels]) + _PRE_SKIP.to_bytes(2, "little") + rate + bytes(3)

    def decode(self, data: bytes) -> Iterator[Audio]:
        yield from self._audio(self._context.decode(self._av.Packet(data)))

    def end(self) -> Iterator[Audio]:
        yield from self._audio(self._context.decode(None))


class _Frames(_Coded):
    """Frames that tell themselves where they begin and end: MP3, AAC."""

    def __init__(self, codec: str) -> None:
        super().__init__()
        self._context = self._av.CodecContext.create(codec, "r")
        self._head: bytes | None = b""  # the beginning, till it is known what it is
        self._skip = 0
        self._left = b""  # no frame yet

    def decode(self, data: bytes) -> Iterator[Audio]:
        if data := self._untagged(data):
            self._left += data
            yield from self._parsed(data)

    def end(self) -> Iterator[Audio]:
        yield from self._parsed(None)
        if len(self._left) > 1 and self._left[0] == 0xFF and self._left[1] >= 0xE0:
            raise ValueError(f"it ends within a frame, of which {len(self._left)} bytes have come")

    def _parsed(self, data: bytes | None) -> Iterator[Audio]:
        for packet in self._context.parse(data):
            self._left = self._left[packet.size :]
            yield from self._audio(self._context.decode(packet))

    def _untagged(self, data: bytes) -> bytes:
        """Without the ID3 tag at the beginning, which is no frame."""
        if self._head is not None:
            data = self._head + data
            if len(data) < 10 and data[:3] == b"ID3"[: len(data)]:
                self._head = data
                return b""
            self._head = None
            if data.startswith(b"ID3"):
                size = 0
                for byte in data[6:10]:
                    size = size << 7 | byte & 0x7F
                self._skip = 10 + size
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        return data[skipped:]


class _Container(_Coded):
    """A header that names the codec, and packets."""

    def __init__(self, container: str) -> None:
        super().__init__()
        self._demuxer = Demuxer(container)
        self._tail = b"" if container == "ogg" else None  # from the beginning of the last page on

    def decode(self, data: bytes) -> Iterator[Audio]:
        if self._tail is not None:
            joined = self._tail + data
            self._tail = joined[max(joined.rfind(_PAGE), len(joined) - _LARGEST_PAGE, 0) :]
        return self._audio(self._demuxer.feed(data))

    def end(self) -> Iterator[Audio]:
        yield from self._audio(self._demuxer.end())
        if self._tail:
            page = self._tail
            length = 27 + page[26] if len(page) > 26 else 27
            if len(page) < length or len(page) < length + sum(page[27:length]):
                raise ValueError(f"it ends within a page, of which {len(page)} bytes have come")

    def close(self) -> None:
        self._demuxer.close()
