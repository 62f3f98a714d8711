"""Messages and tools as all APIs want them: what is not special to one."""

from __future__ import annotations

import base64
import re
import struct
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from pydantic_core import PydanticSerializationError, to_json

from rxstage.content import Audio, AudioFormat, Data, Image, Message, Parts, Text, ToolCall, ToolResult, Video
from rxstage.ports.provider import ProviderError, ToolSpec

__all__ = [
    "MALFORMED",
    "NAMES",
    "NAMES_RULE",
    "Remembered",
    "arguments_of",
    "base64_text",
    "call_of",
    "calls_of",
    "check_tools",
    "json_text",
    "media_of",
    "new_call_id",
    "result_text",
    "stop_list",
    "text_of",
    "unsupported",
    "wav",
]

MALFORMED: Final = ""
"""Key of the arguments of a call that the model wrote as no JSON object: what it wrote stands under it."""

NAMES: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
NAMES_RULE: Final = "letters, digits, _ and -, at most 64"
"""The names of tools that nearly every API takes."""

_CODES: Final = {AudioFormat.PCM16: (1, 16), AudioFormat.PCM32: (1, 32), AudioFormat.FLOAT32: (3, 32)}
_MULAW: Final = (7, 8)
_decode: Final = msgspec.json.Decoder().decode


def unsupported(part: object, provider: str, model: str, role: str = "") -> ProviderError:
    """The error of a part that an API does not take."""
    where = f" in a message of role {role!r}" if role else ""
    kind = type(part).__name__
    return ProviderError(f"{provider} takes no {kind}{where}", provider=provider, model=model)


def json_text(value: object) -> str:
    """A value as JSON; a `str` as it is.

    Raises:
        ValueError: it has no JSON form.
    """
    if isinstance(value, str):
        return value
    try:
        return to_json(value, fallback=msgspec.to_builtins, inf_nan_mode="strings").decode()
    except (PydanticSerializationError, TypeError, ValueError) as error:
        raise ValueError(f"a {type(value).__name__} has no JSON form for a model: {error}") from error


def text_of(part: object, provider: str, model: str, role: str = "") -> str:
    """The text of a `Text`, or of a `Data` as JSON.

    Raises:
        ProviderError: it is another part, or has no JSON form.
    """
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Data):
        try:
            return json_text(part.value)
        except ValueError as error:
            raise ProviderError(f"{provider}: {error}", provider=provider, model=model) from error
    raise unsupported(part, provider, model, role)


def result_text(result: ToolResult, provider: str, model: str) -> str:
    """What a tool gave, as text; of pictures and sound in it, that they were there."""
    if isinstance(result.value, Parts):
        return "\n".join(
            f"[{type(part).__name__.lower()}]" if media_of(part) is not None else text_of(part, provider, model)
            for part in result.value.parts
        )
    return text_of(Data(result.value), provider, model)


def media_of(part: object) -> tuple[bytes, str] | None:
    """Bytes and MIME type of a part that has them: an audio as WAV; None for any other."""
    if isinstance(part, (Image, Video)):
        return part.data, part.mime_type
    if isinstance(part, Audio):
        return wav(part), "audio/wav"
    return None


def wav(audio: Audio) -> bytes:
    """The samples with a WAV header before them."""
    code, bits = _CODES.get(audio.format, _MULAW)
    frame = audio.channels * bits // 8
    form = struct.pack("<HHIIHH", code, audio.channels, audio.sample_rate, audio.sample_rate * frame, frame, bits)
    size = len(audio.samples)
    return b"".join(
        (b"RIFF", struct.pack("<I", 36 + size), b"WAVEfmt ", struct.pack("<I", 16), form, b"data")
        + (struct.pack("<I", size), audio.samples)
    )


def base64_text(data: bytes) -> str:
    """Bytes in base 64."""
    return base64.b64encode(data).decode("ascii")


def calls_of(message: Message) -> tuple[ToolCall, ...]:
    """The calls of a message, wherever they stand in it."""
    inside = tuple(part for part in message.parts if isinstance(part, ToolCall) and part not in message.tool_calls)
    return (*inside, *message.tool_calls) if inside else message.tool_calls


def call_of(name: str, arguments: str, id: str) -> ToolCall:
    """A call as the model wrote it.

    Arguments that are no JSON object become `{"": what it wrote}`: that fits no tool's schema, so the model is told.
    """
    if not arguments.strip():
        return ToolCall(name, {}, id or new_call_id())
    try:
        value = _decode(arguments)
    except msgspec.DecodeError:
        value = None
    return ToolCall(name, value if isinstance(value, dict) else {MALFORMED: arguments}, id or new_call_id())


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call for an API that wants an object."""
    if MALFORMED in call.arguments:
        return {"malformed": call.arguments[MALFORMED]}
    return dict(call.arguments)


def new_call_id() -> str:
    """An id for a call that the model gave none."""
    return f"call_{uuid.uuid4().hex[:24]}"


def check_tools(tools: Sequence[ToolSpec], allowed: re.Pattern[str], rule: str, provider: str, model: str) -> None:
    """See that an API takes the names of tools.

    Raises:
        ProviderError: one does not fit, or stands twice.
    """
    seen: set[str] = set()
    for tool in tools:
        if not allowed.fullmatch(tool.name) or tool.name in seen:
            why = "is offered twice" if tool.name in seen else f"has a name that {provider} does not take: {rule}"
            raise ProviderError(f"tool {tool.name!r} {why}", provider=provider, model=model)
        seen.add(tool.name)


def stop_list(parameters: Mapping[str, Any]) -> list[str]:
    """The parameter `stop` as a list."""
    stop = parameters["stop"]
    return [stop] if isinstance(stop, str) else list(stop)


class Remembered:
    """What an API wants to have back with a call of a tool, and what a message has no place for, by the call.

    Bounded: the oldest are forgotten.
    """

    __slots__ = ("_held", "_limit", "_lock")

    def __init__(self, limit: int = 1024) -> None:
        self._held: dict[str, Any] = {}
        self._limit = limit
        self._lock = threading.Lock()  # one provider may serve several loops

    def keep(self, call: ToolCall, value: Any) -> None:
        """Remember a value."""
        with self._lock:
            self._held[_key(call)] = value
            if len(self._held) > self._limit:
                del self._held[next(iter(self._held))]

    def of(self, calls: Iterable[ToolCall]) -> Any:
        """What is known of the first of these calls that anything is known of, or None."""
        if not self._held:
            return None
        return next((value for call in calls if (value := self._held.get(_key(call))) is not None), None)


def _key(call: ToolCall) -> str:
    """An id alone will not do: some servers count them from 0 in every answer."""
    return f"{call.id} {call.name} {json_text(dict(call.arguments))}"
