"""Processors of genai-processors, known by what they can do: nothing of it is imported here."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from rxstage.content import Audio, AudioFormat, Data, Image, Message, Parts, Text, ToolCall, ToolResult, Video
from rxstage.element import StreamElement
from rxstage.stages.middleware.layers import Flow
from rxstage.stages.middleware.relay import Put, relayed
from rxstage.stages.middleware.turn import MiddlewareContext

__all__ = ["is_processor", "processor_flow"]

_TOLD: Final = ("debug", "status")  # substreams that tell of the work and are no part of its result
_PCM: Final = re.compile(r"audio/(?:l16|pcm)\b")
_RATE: Final = re.compile(r"rate=(\d+)")
_CHANNELS: Final = re.compile(r"channels=(\d+)")
_ASSUMED_RATE: Final = 24_000  # Hz; what the Gemini API sends where the type does not say


def is_processor(value: Any) -> bool:
    """Whether it is a Processor or a PartProcessor."""
    return not isinstance(value, type) and callable(value) and callable(getattr(value, "to_processor", None))


def processor_flow(processor: Any) -> Flow:
    """What a Processor makes of the parts of a turn.

    Raises:
        TypeError: the module that it comes from has no `ProcessorPart`.
    """
    return functools.partial(_flow, processor.to_processor(), _library(processor))


def _library(processor: Any) -> Any:
    """The module of its base class, which has what parts are made with."""
    for kind in reversed(type(processor).__mro__):
        module = sys.modules.get(kind.__module__)
        if hasattr(module, "ProcessorPart") and hasattr(module, "context"):
            return module
    raise TypeError(
        f"{processor!r} has to_processor(), but none of its classes comes from a module with ProcessorPart and context"
    )


async def _flow(processor: Any, library: Any, context: MiddlewareContext) -> AsyncGenerator[StreamElement, None]:
    async def work(put: Put) -> None:
        # In a context of its own a Processor's tasks end with it; and a context must not be left by a `yield`.
        async with library.context():
            async for part in processor(_parts(context._sent(), library.ProcessorPart)):
                await put(part)

    async with aclosing(relayed(work, f"rxstage:{context.stage.stage}")) as parts:
        async for part in parts:
            if part.substream_name in _TOLD:
                context.stage.emit_event(f"processor.{part.substream_name}", text=_text_of(part) or repr(part))
            elif (content := _content(part)) is not None:
                yield _put_in(context._one(content), part)


# ------------------------------------------------------------------------------------------ what goes in


async def _parts(elements: list[StreamElement], make: Any) -> AsyncIterator[Any]:
    for element in elements:
        for part in _made(element.content, "user", make, element.metadata):
            yield part


def _made(content: Any, role: str, make: Any, metadata: Mapping[str, Any]) -> Iterator[Any]:
    """The parts of a content."""
    known: dict[str, Any] = {"role": role, "metadata": dict(metadata)}
    match content:
        case Text(text):
            yield make(text, **known)
        case Message():
            role = "model" if content.role == "assistant" else content.role
            for each in (*content.parts, *content.tool_calls):
                yield from _made(each, role, make, metadata)
        case Parts(parts):
            for each in parts:
                yield from _made(each, role, make, metadata)
        case Image() | Video():
            yield make(content.data, mimetype=content.mime_type, **known)
        case Audio(format=AudioFormat.PCM16):
            channels = f";channels={content.channels}" if content.channels > 1 else ""
            yield make(content.samples, mimetype=f"audio/l16;rate={content.sample_rate}{channels}", **known)
        case ToolCall(name, arguments, id):
            part = make.from_function_call(name=name, args=dict(arguments), **{**known, "role": "model"})
            part.part.function_call.id = id or None
            yield part
        case ToolResult():
            yield make.from_function_response(
                name=content.name,
                response=content.value,
                function_call_id=content.call_id,
                is_error=content.is_error,
                **{**known, "role": "user"},
            )
        case Data(value) if isinstance(value, make):
            yield value
        case _:
            raise TypeError(
                f"no part for a Processor can be made of {content!r}; make a ProcessorPart of it in a MapStage before, "
                f"or say with accepts= what it is for"
            )


# ------------------------------------------------------------------------------------------ what comes out


def _content(part: Any) -> Any:
    """The content of a part; None where it only marks the end of a turn."""
    if (call := part.function_call) is not None:
        return ToolCall(call.name, call.args or {}, call.id or "")
    if (response := part.function_response) is not None:
        values = response.response or {}
        failed = "error" in values
        value = values["error"] if failed else values.get("result", values)
        return ToolResult(response.id or "", value, response.name or "", failed)
    kind = part.mimetype
    data = part.bytes
    if data is not None and kind.startswith("image/"):
        return Image(data, kind)
    if data is not None and kind.startswith("video/"):
        return Video(data, kind)
    if data is not None and _PCM.match(kind):
        rate, channels = _RATE.search(kind), _CHANNELS.search(kind)
        return Audio(data, int(rate[1]) if rate else _ASSUMED_RATE, int(channels[1]) if channels else 1)
    text = _text_of(part)
    if text is None:
        return Data(part)
    return Text(text) if text else None


def _text_of(part: Any) -> str | None:
    """The text of a part; None where it is something else."""
    try:
        return str(part.text)
    except ValueError:
        return None


def _put_in(element: StreamElement, part: Any) -> StreamElement:
    """The element with what is known of the part."""
    known = {**element.metadata, **part.metadata}
    if part.role:
        known["role"] = part.role
    if part.substream_name:
        known["substream"] = part.substream_name
    return element.replace(metadata=known)
