"""What goes over the wire: JSON messages as pydantic models, the head of a binary frame, and the close codes.

A text frame holds one JSON message. A binary frame holds sound: a head of 8 bytes, little-endian, and 16-bit samples in
the form that `hello` and `welcome` have settled:

    byte 0      kind: 1 is sound
    byte 1      flags: 1 says that sound before this frame was left out
    bytes 2-3   0
    bytes 4-7   sequence number

Each end numbers what it sends, sound and messages of the class `Numbered` together, from 1. What has a number that was
seen already is a copy and is dropped; so a session goes on over a new connection without loss and without doubles.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct as Packing
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rxstage.content import AudioFormat
from rxstage.errors import RxStageError

__all__ = [
    "GAP",
    "HEAD",
    "KNOWN_FORMS",
    "LARGEST_STEP",
    "MESSAGES",
    "SOUND",
    "SUBPROTOCOL",
    "VERSION",
    "Ack",
    "Anything",
    "Bye",
    "CloseCode",
    "Element",
    "End",
    "EndOfTurnMessage",
    "FailureMessage",
    "Hello",
    "InterruptMessage",
    "Limits",
    "Mark",
    "MessageMessage",
    "Numbered",
    "Ping",
    "Pong",
    "Sound",
    "TextMessage",
    "ToolCallMessage",
    "ToolResultMessage",
    "Transcript",
    "Value",
    "Violation",
    "Welcome",
    "WireMessage",
    "parse",
    "sound_head",
]

VERSION: Final = 1
"""Version of the protocol; in `hello`, `welcome` and the name of the subprotocol."""

SUBPROTOCOL: Final = f"rxstage.v{VERSION}"
"""What a client offers as `Sec-WebSocket-Protocol`."""

HEAD: Final = Packing("<BBHI")
"""Kind, flags, nothing, sequence: what a binary frame begins with."""

SOUND: Final = 1
"""Kind of a binary frame that holds sound."""

GAP: Final = 1
"""Flag of a binary frame: sound before it was left out, because the other end or the network was too slow."""

LARGEST_STEP: Final = 65_536
"""By how much a sequence number may be above the one before."""


class CloseCode(IntEnum):
    """Why a connection was closed; 4000 and above are this protocol's own."""

    NORMAL = 1000  #: all is said
    GOING_AWAY = 1001  #: the server stops, or the page was left
    TOO_BIG = 1009  #: a message was larger than `limits.message_bytes`
    INTERNAL = 1011  #: no answer to the heartbeat, or a fault of the server
    MALFORMED = 4400  #: no JSON, an unknown type, a wrong field, a bad binary frame, a wrong order
    UNAUTHORIZED = 4401  #: no token, or not the right one
    FORBIDDEN = 4403  #: a kind of message that this client may not send
    UNSUPPORTED_AUDIO = 4406  #: a rate, number of channels or format that the server does not take
    HELLO_TIMEOUT = 4408  #: no `hello` in time
    REPLACED = 4409  #: the session goes on over another connection
    UNSUPPORTED_VERSION = 4426  #: another version of the protocol
    TOO_MANY = 4429  #: more messages or bytes per second than `limits` allow
    FAILED = 4500  #: the pipeline failed
    FULL = 4503  #: as many sessions as the server takes


class Violation(RxStageError):
    """The other end has broken the protocol. `code` is what the connection is closed with."""

    def __init__(self, code: CloseCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class WireMessage(BaseModel):
    """Base of all messages. Fields that a reader does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True, ser_json_inf_nan="strings")


class Numbered(WireMessage):
    """Base of the messages that stand for an element of the stream, and of what else must not get lost."""

    sequence: int = Field(default=0, ge=0, le=0xFFFFFFFF, description="number of the frame, from 1")
    metadata: dict[str, Any] | None = Field(default=None, description="metadata of the element; between trusted ends")


# --- how a session begins ---------------------------------------------------------------------------------------------


class Sound(WireMessage):
    """The form of the sound in the binary frames of one direction."""

    sample_rate: int = Field(default=16_000, ge=4_000, le=192_000, description="frames per second [Hz]")
    channels: int = Field(default=1, ge=1, le=8)
    format: Literal["pcm16"] = Field(default="pcm16", description="16-bit little-endian, interleaved")

    @property
    def form(self) -> tuple[int, int, AudioFormat]:
        """Rate, channels and format, as an `Audio` takes them."""
        return self.sample_rate, self.channels, AudioFormat.PCM16


class Limits(WireMessage):
    """What a client must not exceed."""

    message_bytes: int = Field(default=65_536, gt=0, description="size of a message; more closes with 1009")
    messages_per_second: float | None = Field(default=None, gt=0, description="more closes with 4429")
    bytes_per_second: float | None = Field(default=None, gt=0, description="more closes with 4429")


class Hello(WireMessage):
    """The first message of a client."""

    type: Literal["hello"] = "hello"
    version: int = VERSION
    token: str | None = Field(default=None, max_length=4096, description="where no header can carry it (browsers)")
    sends: Sound = Field(default=Sound(), description="form of the sound that the client will send")
    wants: Sound | None = Field(default=None, description="form of the sound that it wants; null: the server's own")
    session: str | None = Field(default=None, max_length=128, description="session to go on with")
    received: int = Field(default=0, ge=0, le=0xFFFFFFFF, description="newest sequence number that it has got in it")
    client: str = Field(default="", max_length=200, description="name of the program, for logs")


class Welcome(WireMessage):
    """The server's answer to `hello`; from here on both ends send."""

    type: Literal["welcome"] = "welcome"
    version: int = VERSION
    session: str = Field(description="name of the session, to go on with it; a secret between the two ends")
    resumed: bool = Field(default=False, description="whether it is the session asked for; else it is a new one")
    received: int = Field(default=0, ge=0, le=0xFFFFFFFF, description="newest sequence number that the server has got")
    takes: Sound = Field(default=Sound(), description="form of the sound that the server expects")
    sends: Sound = Field(default=Sound(), description="form of the sound that it will send")
    accepts: list[str] = Field(default_factory=list, description="types that the client may send")
    limits: Limits = Limits()
    resume_for: float = Field(default=0.0, ge=0, description="seconds that the session waits for a lost client")


# --- the stream -------------------------------------------------------------------------------------------------------


class TextMessage(Numbered):
    """A piece of text."""

    type: Literal["text"] = "text"
    text: str


class Transcript(Numbered):
    """What the user was heard to say: to be shown."""

    type: Literal["transcript"] = "transcript"
    text: str
    final: bool = True


class MessageMessage(Numbered):
    """A whole message of a conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "user", "assistant", "tool"] = "user"
    text: str = ""
    content: dict[str, Any] | None = Field(
        default=None, description="its wire form, where text alone does not tell it (images, calls of tools, usage)"
    )


class ToolCallMessage(Numbered):
    """The model asks for a tool."""

    type: Literal["tool_call"] = "tool_call"
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    id: str = ""


class ToolResultMessage(Numbered):
    """What a tool gave."""

    type: Literal["tool_result"] = "tool_result"
    call_id: str
    value: Any = None
    name: str = ""
    is_error: bool = False


class Mark(Numbered):
    """The sound of this text lies before this mark: where it is played, the text was heard."""

    type: Literal["mark"] = "mark"
    text: str


class Value(Numbered):
    """A value that belongs to the application, or of a registered class such as `rxstage.Level`."""

    type: Literal["data"] = "data"
    name: str = Field(default="", description="registered name of its class; empty for a plain value")
    value: Any = None


class FailureMessage(Numbered):
    """Something failed and the stream goes on."""

    type: Literal["failure"] = "failure"
    error: str = Field(description="class of the error")
    message: str = ""
    stage: str = ""
    traceback: str = Field(default="", description="between trusted ends")


class EndOfTurnMessage(Numbered):
    """The turn ends."""

    type: Literal["end_of_turn"] = "end_of_turn"


class InterruptMessage(Numbered):
    """Stop the running turn. Whoever gets it flushes what it has queued to play."""

    type: Literal["interrupt"] = "interrupt"
    reason: str = ""


class Element(Numbered):
    """Any other element, as a wire document (images, video, parts)."""

    type: Literal["element"] = "element"
    element: dict[str, Any]


class End(Numbered):
    """This end has nothing more to send; it goes on listening."""

    type: Literal["end"] = "end"


# --- the session itself -----------------------------------------------------------------------------------------------


class Ack(WireMessage):
    """Everything up to this number has arrived and need not be kept."""

    type: Literal["ack"] = "ack"
    received: int = Field(ge=0, le=0xFFFFFFFF)


class Ping(WireMessage):
    """Asks for a `pong` with the same time; for measuring, beside the heartbeat of WebSocket itself."""

    type: Literal["ping"] = "ping"
    time: float = 0.0


class Pong(WireMessage):
    """The answer to a `ping`."""

    type: Literal["pong"] = "pong"
    time: float = 0.0


class Bye(WireMessage):
    """The session is over; the close frame follows."""

    type: Literal["bye"] = "bye"
    reason: str = ""


MESSAGES: Final[tuple[type[WireMessage], ...]] = (
    Hello,
    Welcome,
    TextMessage,
    Transcript,
    MessageMessage,
    ToolCallMessage,
    ToolResultMessage,
    Mark,
    Value,
    FailureMessage,
    EndOfTurnMessage,
    InterruptMessage,
    Element,
    End,
    Ack,
    Ping,
    Pong,
    Bye,
)
"""All kinds of messages."""

Anything: TypeAlias = Annotated[
    Hello
    | Welcome
    | TextMessage
    | Transcript
    | MessageMessage
    | ToolCallMessage
    | ToolResultMessage
    | Mark
    | Value
    | FailureMessage
    | EndOfTurnMessage
    | InterruptMessage
    | Element
    | End
    | Ack
    | Ping
    | Pong
    | Bye,
    Field(discriminator="type"),
]
"""Any message, told apart by `type`."""

KNOWN_FORMS: Final = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Rates [Hz] that a server takes unless it is told otherwise."""

_ANYTHING: Final[TypeAdapter[Any]] = TypeAdapter(Anything, config=ConfigDict(defer_build=True))


def parse(text: str | bytes) -> Any:
    """The message in a text frame.

    Raises:
        Violation: it is none.
    """
    try:
        return _ANYTHING.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(step)[:50] for step in first["loc"])
        raise Violation(
            CloseCode.MALFORMED, f"no message of {SUBPROTOCOL}: {f'{place}: ' if place else ''}{first['msg'][:80]}"
        ) from None
    except RecursionError:
        raise Violation(CloseCode.MALFORMED, f"no message of {SUBPROTOCOL}: nested too deep") from None


def sound_head(frame: bytes) -> tuple[int, int]:
    """Flags and sequence number of a binary frame.

    Raises:
        Violation: it is no frame of sound.
    """
    if len(frame) < HEAD.size:
        raise Violation(CloseCode.MALFORMED, f"a binary frame has a head of {HEAD.size} bytes, got {len(frame)}")
    kind, flags, _, sequence = HEAD.unpack_from(frame)
    if kind != SOUND:
        raise Violation(CloseCode.MALFORMED, f"binary frames of kind {kind} are unknown; {SOUND} is sound")
    return flags, sequence
