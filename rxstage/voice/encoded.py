"""Sound as it is sent and stored: encoded."""

from __future__ import annotations

from msgspec import Struct

from rxstage import wire

__all__ = ["EncodedAudio"]


class EncodedAudio(Struct, frozen=True):
    """A piece of encoded sound. Travels as `Data`.

    Attributes:
        data: bytes of a stream, cut anywhere; with `audio/opus` one packet.
        mime_type: what they are: `"audio/ogg; codecs=opus"`, `"audio/mpeg"`, `"audio/pcm"` …
        sample_rate: frames per second [Hz]; 0 where the bytes tell, or where it is not known.
        channels: samples per frame; 0 likewise.
        duration: seconds of sound that have gone into it; 0 where that is not known.
        begins: whether a new stream begins with it, whatever came before.
    """

    data: bytes
    mime_type: str
    sample_rate: int = 0
    channels: int = 0
    duration: float = 0.0
    begins: bool = False


wire.register(EncodedAudio, "rxstage.EncodedAudio")
