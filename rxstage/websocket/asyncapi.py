"""The protocol as an AsyncAPI 3 document, made from the models."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from rxstage.websocket.codec import FROM_STRANGERS
from rxstage.websocket.protocol import MESSAGES, SUBPROTOCOL, VERSION, CloseCode, Hello, Numbered, Welcome

__all__ = ["asyncapi"]

_SOUND = (
    "A head of 8 bytes, little-endian: kind (1 is sound), flags (1: sound before it was left out), two bytes 0, "
    "sequence number (uint32); then 16-bit little-endian samples in the settled form, interleaved."
)


def asyncapi() -> dict[str, Any]:
    """The document."""
    _, schemas = models_json_schema(
        [(model, "serialization") for model in MESSAGES], ref_template="#/components/schemas/{model}"
    )
    names = {model: model.model_fields["type"].default for model in MESSAGES}
    messages: dict[str, Any] = {
        name: {
            "name": name,
            "summary": (model.__doc__ or "").partition("\n")[0],
            "contentType": "application/json",
            "x-numbered": issubclass(model, Numbered),
            "x-from-strangers": name in FROM_STRANGERS or not issubclass(model, Numbered),
            "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
        }
        for model, name in names.items()
    }
    messages["audio"] = {
        "name": "audio",
        "summary": "Sound, in a binary frame.",
        "description": _SOUND,
        "contentType": "application/octet-stream",
        "x-numbered": True,
        "x-from-strangers": True,
        "payload": {"type": "string", "format": "binary"},
    }
    from_server = sorted(set(messages) - {names[Hello]})
    from_client = sorted(set(messages) - {names[Welcome]})
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": SUBPROTOCOL,
            "version": str(VERSION),
            "description": "Elements of a stream, both ways over one WebSocket; sound is binary, the rest JSON.",
        },
        "channels": {
            "session": {
                "address": "/",
                "description": f"A WebSocket with the subprotocol {SUBPROTOCOL}.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in sorted(messages)},
                "x-close-codes": {str(code.value): code.name.lower() for code in CloseCode},
            }
        },
        "operations": {
            "receive": {
                "action": "receive",
                "summary": "What a client sends.",
                "channel": {"$ref": "#/channels/session"},
                "messages": [{"$ref": f"#/channels/session/messages/{name}"} for name in from_client],
            },
            "send": {
                "action": "send",
                "summary": "What the server sends.",
                "channel": {"$ref": "#/channels/session"},
                "messages": [{"$ref": f"#/channels/session/messages/{name}"} for name in from_server],
            },
        },
        "components": {"messages": dict(sorted(messages.items())), "schemas": schemas["$defs"]},
    }
