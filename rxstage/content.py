"""What an element can carry.

Every kind is a frozen struct: cheap to make, safe to share between the branches of a fan-out.
Content kinds are data; the four controls (`Failure`, `EndOfTurn`, `Interrupt`, `EndOfStream`) travel
between them and are handled by the engine.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import force_setattr

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

__all__ = [
    "CONTENT_KINDS",
    "CONTROL_KINDS",
    "Audio",
    "AudioFormat",
    "Content",
    "Control",
    "Data",
    "EndOfStream",
    "EndOfTurn",
    "Failure",
    "Image",
    "Interrupt",
    "Message",
    "Parts",
    "Text",
    "ToolCall",
    "ToolResult",
    "Usage",
    "Video",
    "content_of",
    "payload_of",
]


class Text(Struct, frozen=True):
    """A piece of text."""

    text: str


class AudioFormat(StrEnum):
    """Encoding of the samples in `Audio.samples`; interleaved where there are several channels."""

    PCM16 = "pcm16"
    PCM32 = "pcm32"
    FLOAT32 = "float32"
    MULAW = "mulaw"

    @property
    def width(self) -> int:
        """Bytes per sample of one channel."""
        return _WIDTHS[self]


_WIDTHS: Final = {AudioFormat.PCM16: 2, AudioFormat.PCM32: 4, AudioFormat.FLOAT32: 4, AudioFormat.MULAW: 1}
_DTYPES: Final = {
    AudioFormat.PCM16: "<i2",
    AudioFormat.PCM32: "<i4",
    AudioFormat.FLOAT32: "<f4",
    AudioFormat.MULAW: "u1",
}


class Audio(Struct, frozen=True):
    """Raw audio.

    Args:
        samples: interleaved little-endian samples in `format`; another buffer (a `bytearray`, an array) is copied.
        sample_rate: frames per second [Hz], above 0.
        channels: samples per frame, at least 1.
        format: encoding of a sample, an `AudioFormat` or its value.

    Raises:
        TypeError: `samples` is no buffer.
        ValueError: rate or channel count is not positive, the format is unknown, or `samples` is no whole number of
            frames.
    """

    samples: bytes
    sample_rate: int
    channels: int = 1
    format: AudioFormat = AudioFormat.PCM16

    def __post_init__(self) -> None:
        if self.samples.__class__ is not bytes:
            force_setattr(self, "samples", bytes(memoryview(self.samples)))
        if self.format.__class__ is not AudioFormat:
            force_setattr(self, "format", AudioFormat(self.format))
        if self.sample_rate <= 0:
            raise ValueError(
                f"Audio.sample_rate must be above 0 Hz, got {self.sample_rate!r}; pass the source's rate, e.g. 16000"
            )
        if self.channels < 1:
            raise ValueError(f"Audio.channels must be at least 1, got {self.channels!r}")
        width = _WIDTHS[self.format] * self.channels
        if len(self.samples) % width:
            raise ValueError(
                f"Audio.samples holds {len(self.samples)} bytes, no whole number of {width}-byte frames "
                f"({self.channels} channel(s) of {self.format}); keep the rest for the next chunk"
            )

    @property
    def frames(self) -> int:
        """Number of frames (samples per channel)."""
        return len(self.samples) // (_WIDTHS[self.format] * self.channels)

    @property
    def duration(self) -> float:
        """Length [s]."""
        return self.frames / self.sample_rate

    def numpy(self) -> NDArray[np.generic]:
        """The samples as an array of shape `(frames, channels)`, a read-only view without a copy.

        Raises:
            MissingExtra: numpy is not installed (extra `audio`).
        """
        from rxstage.errors import require

        flat: NDArray[np.generic] = require("numpy", "audio").frombuffer(self.samples, dtype=_DTYPES[self.format])
        return flat.reshape(-1, self.channels)


class Image(Struct, frozen=True):
    """An encoded image: bytes, MIME type and size in pixels (0 where unknown)."""

    data: bytes
    mime_type: str = "image/png"
    width: int = 0
    height: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """`(width, height)` in pixels, as Pillow has it."""
        return self.width, self.height

    @classmethod
    def from_pil(cls, image: PilImage, format: str = "PNG") -> Image:
        """Encode a Pillow image in `format` (`"PNG"`, `"JPEG"`, `"WEBP"` …)."""
        from rxstage.errors import require

        buffer = io.BytesIO()
        image.save(buffer, format=format)
        mime_type = require("PIL.Image", "image").MIME.get(format.upper(), f"image/{format.lower()}")
        return cls(buffer.getvalue(), mime_type, image.width, image.height)

    def to_pil(self) -> PilImage:
        """Decode with Pillow.

        Raises:
            MissingExtra: Pillow is not installed (extra `image`).
        """
        from rxstage.errors import require

        return require("PIL.Image", "image").open(io.BytesIO(self.data))  # type: ignore[no-any-return]


class Video(Struct, frozen=True):
    """A frame or a clip of video: bytes, MIME type, size in pixels and duration [s] (0 where unknown)."""

    data: bytes
    mime_type: str = "video/mp4"
    width: int = 0
    height: int = 0
    duration: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """`(width, height)` in pixels."""
        return self.width, self.height

    @classmethod
    def from_pil(cls, image: PilImage, format: str = "JPEG") -> Video:
        """One frame, encoded as an image in `format`."""
        still = Image.from_pil(image, format)
        return cls(still.data, still.mime_type, still.width, still.height)

    def to_pil(self) -> PilImage:
        """Decode a single frame with Pillow (an `image/*` MIME type).

        Raises:
            MissingExtra: Pillow is not installed (extra `image`).
        """
        return Image(self.data, self.mime_type, self.width, self.height).to_pil()


class Usage(Struct, frozen=True):
    """What a model call used: tokens in and out, and its cost in US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0

    @property
    def total_tokens(self) -> int:
        """Tokens in and out together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens, self.cost + other.cost
        )


class ToolCall(Struct, frozen=True):
    """A model asks for a tool: its name, its arguments, and the id that the result refers to."""

    name: str
    arguments: Mapping[str, Any] = {}
    id: str = ""


class ToolResult(Struct, frozen=True):
    """What a tool gave for the call `call_id`; `is_error` marks a value that tells of a failure."""

    call_id: str
    value: Any = None
    name: str = ""
    is_error: bool = False


class Message(Struct, frozen=True):
    """One message of a conversation.

    Args:
        role: `"system"`, `"user"`, `"assistant"` or `"tool"`.
        parts: contents of the message, or values that become contents; a single one need not be in a tuple.
        name: name of the speaker.
        tool_calls: tools that the message asks for.
        usage: what the model used to make it.
    """

    role: str
    parts: tuple[Text | Audio | Image | Video | ToolCall | ToolResult | Data, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "parts", _parts(self.parts))
        force_setattr(self, "tool_calls", tuple(self.tool_calls))

    @classmethod
    def system(cls, *parts: Any) -> Message:
        """A system message of `parts` (strings or contents)."""
        return cls("system", parts)

    @classmethod
    def user(cls, *parts: Any) -> Message:
        """A user message of `parts` (strings or contents)."""
        return cls("user", parts)

    @classmethod
    def assistant(cls, *parts: Any, tool_calls: tuple[ToolCall, ...] = (), usage: Usage | None = None) -> Message:
        """An assistant message of `parts` (strings or contents)."""
        return cls("assistant", parts, tool_calls=tool_calls, usage=usage)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if part.__class__ is Text)


class Parts(Struct, frozen=True):
    """Several contents that belong together, in order; bare values become contents as in `content_of`."""

    parts: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        force_setattr(self, "parts", _parts(self.parts))


class Data(Struct, frozen=True):
    """Any Python object."""

    value: Any


class Control(Struct, frozen=True):
    """Base of the contents that steer a stream instead of filling it."""


class Failure(Control, frozen=True):
    """An element failed in `stage` and the stream goes on: it stands in that element's place."""

    error: BaseException
    stage: str = ""


class EndOfTurn(Control, frozen=True):
    """The turn ends here; the stream goes on."""


class Interrupt(Control, frozen=True):
    """The running turn is to stop at once (barge-in)."""

    reason: str = ""


class EndOfStream(Control, frozen=True):
    """Nothing more will come: the execution drains and completes."""


Content: TypeAlias = (
    Text
    | Audio
    | Video
    | Image
    | Message
    | ToolCall
    | ToolResult
    | Parts
    | Data
    | Failure
    | EndOfTurn
    | Interrupt
    | EndOfStream
)

CONTENT_KINDS: Final[frozenset[type]] = frozenset(
    {Text, Audio, Video, Image, Message, ToolCall, ToolResult, Parts, Data}
)
CONTROL_KINDS: Final[frozenset[type]] = frozenset({Failure, EndOfTurn, Interrupt, EndOfStream})
_ALL_KINDS: Final = CONTENT_KINDS | CONTROL_KINDS


def content_of(value: Any) -> Any:
    """The content for a bare payload: `str` → `Text`, an exception → `Failure`, a content → itself, else `Data`."""
    kind = value.__class__
    if kind is str:
        return Text(value)
    if kind in _ALL_KINDS:
        return value
    if isinstance(value, str):
        return Text(str.__str__(value))  # the characters, where str() of an enum member would be its name
    if isinstance(value, BaseException):
        return Failure(value)
    return Data(value)


def payload_of(content: Any) -> Any:
    """The bare payload of a content: the `str` of a `Text`, the value of a `Data`, else the content itself."""
    kind = content.__class__
    if kind is Text:
        return content.text
    if kind is Data:
        return content.value
    return content


def _parts(parts: Any) -> tuple[Any, ...]:
    if parts.__class__ is not tuple and (
        isinstance(parts, (str, bytes, bytearray, memoryview)) or not isinstance(parts, (Sequence, Iterator))
    ):
        return (content_of(parts),)
    return tuple(map(content_of, parts))
