"""What an MCP server offers and answers, in the forms of this library."""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Unpack

from rxstage.content import Image, Parts, Text
from rxstage.tools.context import ToolContext, ToolError
from rxstage.tools.result import cut
from rxstage.tools.schema import excess
from rxstage.tools.source import ToolSourceError
from rxstage.tools.tool import Tool, ToolOptions

if TYPE_CHECKING:
    from mcp import types

__all__ = ["tools_of", "value_of"]

_LONGEST: Final = 64  # characters of a name
_MOST_WORDS: Final = 8000  # characters of a description

_Call = Callable[[str, Mapping[str, Any], ToolContext], Awaitable[Any]]


def tools_of(
    server: str,
    offered: Iterable[types.Tool],
    only: Collection[str] | None,
    call: _Call,
    **options: Unpack[ToolOptions],
) -> list[Tool]:
    """The tools that a server offers, by name.

    A name with characters that the APIs of models do not take, or too many, gets others, the same every time. The
    first of two tools of one name counts.

    Args:
        server: name of the server, for errors.
        offered: what it lists.
        only: the names that are wanted; None: all.
        call: does a call by the server's own name of the tool.
        **options: for all tools.

    Raises:
        ToolSourceError: one that is wanted is not offered, or a schema cannot be used.
    """
    by_name: dict[str, types.Tool] = {}
    for each in offered:
        if only is None or each.name in only:
            by_name.setdefault(each.name, each)
    if missing := set(only or ()) - by_name.keys():
        raise ToolSourceError(f"MCP server {server!r} does not offer {', '.join(sorted(missing))}")
    names: dict[str, str] = {}
    for own in sorted(by_name, key=lambda own: (_fitting(own) != own, own)):  # a name that fits is never taken away
        name = _fitting(own)
        if name in names:
            name = f"{name[: _LONGEST - 9]}_{hashlib.sha256(own.encode('utf-8', 'replace')).hexdigest()[:8]}"
        names.setdefault(name, own)
    return [
        Tool.from_schema(
            partial(call, own),
            name=name,
            description=cut(by_name[own].description or "", _MOST_WORDS),
            parameters=_schema(server, by_name[own]),
            **options,
        )
        for name, own in sorted(names.items())
    ]


def value_of(result: types.CallToolResult) -> Any:
    """What a server answered: text, a JSON value, or `Parts` where there are images in it.

    Raises:
        ToolError: it answered that the call failed.
    """
    parts = [_part(each) for each in result.content]
    text = "\n".join(part.text for part in parts if isinstance(part, Text))
    if result.is_error:
        raise ToolError(text or "The tool failed and does not say why.")
    if not parts:
        return result.structured_content
    return text if all(isinstance(part, Text) for part in parts) else Parts(tuple(parts))


def _fitting(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_LONGEST] or "tool"


def _schema(server: str, tool: types.Tool) -> Mapping[str, Any]:
    schema = {"type": "object", "properties": {}} | tool.input_schema
    wrong = excess(schema)
    if not wrong and (schema["type"] != "object" or not isinstance(schema["properties"], Mapping)):
        wrong = "are no object"
    if wrong:
        raise ToolSourceError(
            f"MCP server {server!r}: the arguments of its tool {tool.name[:80]!r} {wrong}; name the tools that are "
            f"wanted with only="
        )
    return schema


def _part(content: types.ContentBlock) -> Text | Image:
    if content.type == "text":
        return Text(content.text)
    if content.type == "image":
        return _image(content.data, content.mime_type, "an image")
    if content.type == "audio":
        return Text(f"[sound, {content.mime_type}, {_size(content.data)} bytes]")
    if content.type == "resource_link":
        return Text(f"[resource {content.name!r} at {content.uri}]")
    resource = content.resource
    if hasattr(resource, "text"):
        return Text(resource.text)
    return _image(resource.blob, resource.mime_type or "", f"the resource {resource.uri}")


def _image(data: str, mime_type: str, what: str) -> Text | Image:
    if mime_type.startswith("image/"):
        try:
            return Image(b64decode(data, validate=True), mime_type)
        except (binascii.Error, ValueError):
            return Text(f"[{what}, which cannot be read]")
    return Text(f"[{what}, {mime_type or 'of unknown type'}, {_size(data)} bytes]")


def _size(data: str) -> int:
    return len(data) * 3 // 4
