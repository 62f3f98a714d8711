"""The ways to encode sound that are known here, by name and by MIME type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from rxstage.content import AudioFormat

__all__ = ["CODINGS", "MIME_TYPES", "Coding", "CodingName", "Decoding", "parse_mime_type"]

CodingName: TypeAlias = Literal[
    "pcm16", "pcm32", "float32", "mulaw", "opus", "ogg", "webm", "mp3", "aac", "flac", "wav"
]
"""Name of a way to encode sound."""

_OPUS: Final = (8_000, 12_000, 16_000, 24_000, 48_000)
_MP3: Final = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_AAC: Final = (*_MP3, 64_000, 88_200, 96_000)


class Coding(Struct, frozen=True):
    """How sound is encoded. Names are those of FFmpeg.

    Attributes:
        mime_type: of what comes out.
        format: of bare samples; None where there is a codec.
        codec: the encoder.
        container: what it is put into; "": nothing, each packet is a piece of its own.
        sample: format of the samples that the encoder gets.
        rates: sample rates that it takes [Hz], ascending; none: any.
        bit_rate: bits a second of a channel, where nobody says otherwise; 0: the codec has none.
        options: of the container: that nothing waits in it, as nobody will seek in what comes out.
    """

    mime_type: str
    format: AudioFormat | None = None
    codec: str = ""
    container: str = ""
    sample: str = "s16"
    rates: tuple[int, ...] = ()
    bit_rate: int = 0
    options: Mapping[str, str] = {}

    def rate_for(self, rate: int) -> int:
        """The rate that it takes and that loses least of sound of a rate."""
        if not self.rates or rate in self.rates:
            return rate
        return next((each for each in self.rates if each > rate), self.rates[-1])


CODINGS: Final[Mapping[str, Coding]] = {
    "pcm16": Coding("audio/pcm", AudioFormat.PCM16),
    "pcm32": Coding("audio/pcm; format=pcm32", AudioFormat.PCM32),
    "float32": Coding("audio/pcm; format=float32", AudioFormat.FLOAT32),
    "mulaw": Coding("audio/pcmu", AudioFormat.MULAW),
    "opus": Coding("audio/opus", None, "libopus", "", "flt", _OPUS, 32_000),
    "ogg": Coding("audio/ogg; codecs=opus", None, "libopus", "ogg", "flt", _OPUS, 32_000, {"page_duration": "20000"}),
    "webm": Coding(
        "audio/webm; codecs=opus",
        None,
        "libopus",
        "webm",
        "flt",
        _OPUS,
        32_000,
        {"live": "1", "cluster_time_limit": "100"},
    ),
    "mp3": Coding(
        "audio/mpeg", None, "libmp3lame", "mp3", "fltp", _MP3, 64_000, {"write_xing": "0", "id3v2_version": "0"}
    ),
    "aac": Coding("audio/aac", None, "aac", "adts", "fltp", _AAC, 64_000),
    "flac": Coding("audio/ogg; codecs=flac", None, "flac", "ogg", "s16", options={"page_duration": "20000"}),
    "wav": Coding("audio/wav", None, "pcm_s16le", "wav", "s16"),
}
"""By name."""


class Decoding(Struct, frozen=True):
    """How sound of a MIME type is decoded: exactly one of these is set.

    Attributes:
        format: bare samples of that format.
        packets: a decoder that gets each piece as one packet.
        frames: a decoder of frames that begin and end anywhere in the pieces.
        container: a format with a header, and the codec named in it.
    """

    format: AudioFormat | None = None
    packets: str = ""
    frames: str = ""
    container: str = ""


_PCM: Final = {format.value: Decoding(format) for format in AudioFormat}
_KNOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "ogg": ("audio/ogg", "application/ogg"),
    "matroska": ("audio/webm", "video/webm", "audio/x-matroska"),
    "mov": ("audio/mp4", "audio/m4a", "audio/x-m4a", "video/mp4"),
    "wav": ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"),
    "flac": ("audio/flac", "audio/x-flac"),
}
MIME_TYPES: Final[Mapping[str, Decoding]] = {
    "audio/pcm": _PCM["pcm16"],
    "audio/pcmu": _PCM["mulaw"],
    "audio/basic": _PCM["mulaw"],
    "audio/opus": Decoding(packets="opus"),
    "audio/mpeg": Decoding(frames="mp3float"),
    "audio/mp3": Decoding(frames="mp3float"),
    "audio/aac": Decoding(frames="aac"),
    "audio/aacp": Decoding(frames="aac"),
    **{mime_type: Decoding(container=name) for name, types in _KNOWN.items() for mime_type in types},
}
"""By MIME type, without its parameters."""


def parse_mime_type(mime_type: str) -> tuple[Decoding, Mapping[str, str]]:
    """How sound of a MIME type is decoded, and the parameters of that.

    Raises:
        ValueError: nothing is known about it.
    """
    name, *rest = (part.strip() for part in mime_type.lower().split(";"))
    parameters = {key.strip(): value.strip().strip('"') for key, _, value in (part.partition("=") for part in rest)}
    decoding = MIME_TYPES.get(name)
    if name == "audio/pcm" and "format" in parameters:
        decoding = _PCM.get(parameters["format"])
    if decoding is None:
        raise ValueError(f"sound of type {mime_type[:80]!r} cannot be decoded; known are {', '.join(MIME_TYPES)}")
    return decoding, parameters
