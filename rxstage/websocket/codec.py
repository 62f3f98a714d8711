"""Elements as messages of the protocol, and back."""

from __future__ import annotations

from typing import Any, Final

from rxstage import wire
from rxstage.content import (
    Audio,
    Data,
    EndOfStream,
    EndOfTurn,
    Failure,
    Image,
    Interrupt,
    Message,
    Parts,
    Text,
    ToolCall,
    ToolResult,
    Video,
)
from rxstage.conversation import TRANSCRIPT
from rxstage.element import Metadata, StreamElement
from rxstage.priority import Priority
from rxstage.voice.speech import Spoken
from rxstage.websocket.protocol import (
    CloseCode,
    Element,
    End,
    EndOfTurnMessage,
    FailureMessage,
    InterruptMessage,
    Mark,
    MessageMessage,
    Numbered,
    TextMessage,
    ToolCallMessage,
    ToolResultMessage,
    Transcript,
    Value,
    Violation,
)

__all__ = ["EVERYTHING", "FROM_STRANGERS", "element_of", "kind_of", "message_of"]

FROM_STRANGERS: Final = frozenset({"audio", "text", "message", "end_of_turn", "interrupt", "end"})
"""What a client may send that is not trusted; a message only as the user, and nothing with metadata."""

EVERYTHING: Final = FROM_STRANGERS | {
    "transcript",
    "tool_call",
    "tool_result",
    "mark",
    "data",
    "failure",
    "element",
}
"""What a trusted end may send."""


_KINDS: Final = {
    Audio: "audio",
    Text: "text",
    Message: "message",
    Data: "data",
    ToolCall: "tool_call",
    ToolResult: "tool_result",
    EndOfTurn: "end_of_turn",
    Interrupt: "interrupt",
    EndOfStream: "end",
    Failure: "failure",
}


def kind_of(element: StreamElement) -> str:
    """The type of the message that an element travels in; `"audio"` for sound."""
    content = element.content
    if content.__class__ is Text and TRANSCRIPT in element.metadata:
        return "transcript"
    if content.__class__ is Data and content.value.__class__ is Spoken:
        return "mark"
    return _KINDS.get(content.__class__, "element")


def message_of(element: StreamElement, sequence: int, trusted: bool) -> Numbered:
    """The message for an element that is no sound.

    Args:
        element: what is sent.
        sequence: its number.
        trusted: whether metadata and tracebacks go with it.

    Raises:
        WireError: it has no wire form, a value of a class that is not registered.
    """
    content = element.content
    plain: Any = {"sequence": sequence}
    if trusted and element.metadata:
        plain["metadata"] = _value_out(dict(element.metadata))
    match content:
        case Text(text):
            if (state := element.metadata.get(TRANSCRIPT)) is not None:
                return Transcript(text=text, final=state == "final", **plain)
            return TextMessage(text=text, **plain)
        case Message(role):
            simple = content == Message(role, (Text(content.text),) if content.parts else ())
            form = None if simple else _json(StreamElement(content))["content"]
            return MessageMessage(role=role, text=content.text, content=form, **plain)  # type: ignore[arg-type]
        case Data(Spoken(text)):
            return Mark(text=text, **plain)
        case Data(value):
            tree = _value_out(value)
            if isinstance(tree, dict) and tree.get("$") == "object":
                return Value(name=tree["type"], value=tree["value"], **plain)
            return Value(value=tree, **plain)
        case ToolCall():
            return ToolCallMessage(
                name=content.name, arguments=_value_out(dict(content.arguments)), id=content.id, **plain
            )
        case ToolResult():
            return ToolResultMessage(
                call_id=content.call_id,
                value=_value_out(content.value),
                name=content.name,
                is_error=content.is_error,
                **plain,
            )
        case EndOfTurn():
            return EndOfTurnMessage(**plain)
        case Interrupt(reason):
            return InterruptMessage(reason=reason, **plain)
        case EndOfStream():
            return End(**plain)
        case Failure():
            told = _json(StreamElement(content))["content"]["error"]
            trace = told["traceback"] if trusted else ""
            return FailureMessage(
                error=told["type"], message=told["message"], stage=content.stage, traceback=trace, **plain
            )
        case _:
            return Element(element=_json(StreamElement(content)), **plain)


def element_of(message: Numbered, trusted: bool) -> StreamElement:
    """The element for a message.

    Args:
        message: what arrived.
        trusted: whether the other end may send everything, with metadata.

    Raises:
        Violation: it may not send that, or it stands for no element.
    """
    kind: str = message.type  # type: ignore[attr-defined]
    if not trusted and kind not in FROM_STRANGERS:
        raise Violation(CloseCode.FORBIDDEN, f"a client may not send {kind!r}")
    try:
        element = _element_of(message, trusted)
        if trusted and message.metadata:
            metadata = {**element.metadata, **_value_in(message.metadata)}
            return element.replace(metadata=metadata)
    except wire.WireError as error:
        raise Violation(CloseCode.MALFORMED, f"{kind}: {error}") from error
    return element


def _element_of(message: Numbered, trusted: bool) -> StreamElement:
    match message:
        case TextMessage(text=text):
            return StreamElement.of(text)
        case MessageMessage(role=role):
            if trusted:
                if message.content is not None:
                    return _element_in(message.content, (Message,))
            elif role != "user":
                raise Violation(CloseCode.FORBIDDEN, f"a client may not send messages as {role!r}")
            return StreamElement.of(Message(role, (Text(message.text),)))
        case EndOfTurnMessage():
            return StreamElement.end_of_turn()
        case InterruptMessage(reason=reason):
            return StreamElement.interrupt(reason)
        case End():
            return StreamElement.end_of_stream()
        case Transcript(text=text, final=final):
            metadata = Metadata({TRANSCRIPT: "final" if final else "partial"})
            return StreamElement(Text(text), metadata, Priority.LOW)
        case Mark(text=text):
            return StreamElement.of(Data(Spoken(text)))
        case Value(name=name, value=value):
            return StreamElement.of(Data(_value_in({"$": "object", "type": name, "value": value} if name else value)))
        case ToolCallMessage():
            return StreamElement.of(ToolCall(message.name, _value_in(message.arguments), message.id))
        case ToolResultMessage():
            result = ToolResult(message.call_id, _value_in(message.value), message.name, message.is_error)
            return StreamElement.of(result)
        case FailureMessage():
            error = wire.RemoteError(message.error, message.message, message.traceback)
            return StreamElement.of(Failure(error, message.stage))
        case Element(element=document):
            return _element_in(document.get("content"), (Image, Video, Parts, Audio))
        case _:
            raise Violation(CloseCode.MALFORMED, f"{type(message).__name__} is no part of the stream")


def _json(element: StreamElement) -> dict[str, Any]:
    """Its wire form as JSON has it: bytes in base64."""
    import msgspec

    document: dict[str, Any] = msgspec.json.decode(wire.to_json(element))
    return document


def _value_out(value: Any) -> Any:
    return _json(StreamElement(Data(value)))["content"]["value"]


def _value_in(tree: Any) -> Any:
    return _element_in({"kind": "data", "value": tree}, (Data,)).content.value


def _element_in(content: Any, kinds: tuple[type, ...]) -> StreamElement:
    element = wire.from_dict({"rxstage": 1, "content": content})
    if not isinstance(element.content, kinds):
        raise wire.WireError(f"{type(element.content).__name__} travels in a message of its own")
    return element
