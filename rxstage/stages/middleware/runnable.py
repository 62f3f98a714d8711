"""LangChain Runnables, known by what they can do: nothing of LangChain is imported here."""

from __future__ import annotations

import base64
import functools
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, Final

from rxstage.content import Data, Image, Message, Text, ToolCall, ToolResult, Usage
from rxstage.conversation import PROMPT
from rxstage.element import StreamElement
from rxstage.stages.middleware.layers import Flow
from rxstage.stages.middleware.turn import MiddlewareContext

__all__ = ["is_runnable", "runnable_flow"]

_ROLES: Final = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}


def is_runnable(value: Any) -> bool:
    """Whether it can be asked as a LangChain Runnable can."""
    return not isinstance(value, type) and callable(getattr(value, "astream", None)) and hasattr(value, "ainvoke")


def runnable_flow(runnable: Any, make_input: Callable[[MiddlewareContext], Any] | None = None) -> Flow:
    """What a Runnable makes of a turn: the pieces of its answer as they come, and one message at the end."""
    return functools.partial(_flow, runnable, make_input or _input_of)


async def _flow(
    runnable: Any, make_input: Callable[[MiddlewareContext], Any], context: MiddlewareContext
) -> AsyncGenerator[StreamElement, None]:
    given = make_input(context)
    if hasattr(given, "__await__"):
        given = await given
    answer = _Answer()
    async with aclosing(runnable.astream(given)) as chunks:
        async for chunk in chunks:
            for content in answer.contents(chunk):
                yield context._one(content)
    for content in answer.rest():
        yield context._one(content)


# ------------------------------------------------------------------------------------------ what goes in


def _input_of(context: MiddlewareContext) -> Any:
    """Text as a string, a single value as it is, anything else as messages."""
    elements = context._sent()
    contents = [element.content for element in elements]
    if all(content.__class__ is Text for content in contents) and not any(PROMPT in each.metadata for each in elements):
        return "".join(content.text for content in contents)
    if len(contents) == 1 and contents[0].__class__ is Data:
        return contents[0].value
    return [each for message in context.messages for each in _given(message)]


def _given(message: Message) -> Iterator[Any]:
    """A message in the forms that every LangChain model takes."""
    results = [part for part in message.parts if part.__class__ is ToolResult]
    for result in results:
        yield {"role": "tool", "content": str(result.value), "tool_call_id": result.call_id, "name": result.name}
    if results:
        return
    calls = [
        {"type": "tool_call", "name": call.name, "args": dict(call.arguments), "id": call.id}
        for call in message.tool_calls
    ]
    if not calls and not message.name and all(part.__class__ is Text for part in message.parts):
        yield message.role, message.text
        return
    given: dict[str, Any] = {"role": message.role, "content": [_block(part) for part in message.parts]}
    if message.name:
        given["name"] = message.name
    if calls:
        given["tool_calls"] = calls
    yield given


def _block(part: Any) -> dict[str, Any]:
    if part.__class__ is Text:
        return {"type": "text", "text": part.text}
    if part.__class__ is Image:
        return {"type": "image", "base64": base64.b64encode(part.data).decode(), "mime_type": part.mime_type}
    raise TypeError(
        f"a Runnable takes text, images and single values, got {type(part).__name__}; say with make_input= what it is "
        f"to get, or with accepts= what it is for"
    )


# ------------------------------------------------------------------------------------------ what comes out


class _Answer:
    """Chunks of an answer, and what only all of them together tell."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._joined: Any = None  # the chunks with calls of tools, which come in pieces
        self._usage: Usage | None = None
        self._came = False

    def contents(self, chunk: Any) -> Iterator[Any]:
        """What goes on at once."""
        if not hasattr(chunk, "response_metadata"):  # which every message has
            yield Data(chunk) if chunk is None else chunk
            return
        kind: str = chunk.type
        text = _text_of(chunk.content)
        if kind not in ("ai", "AIMessageChunk"):
            role = _ROLES.get(kind.removesuffix("MessageChunk").lower(), "user")
            yield Message(role, (Text(text),), name=getattr(chunk, "name", None))
            return
        self._came = True
        if used := getattr(chunk, "usage_metadata", None):
            self._usage = (self._usage or Usage()) + Usage(used["input_tokens"], used["output_tokens"])
        if getattr(chunk, "tool_call_chunks", None) or getattr(chunk, "tool_calls", None):
            self._joined = chunk if self._joined is None else self._joined + chunk
        if text:
            self._texts.append(text)
            yield text

    def rest(self) -> Iterator[Any]:
        """What comes at the end: the calls of tools, and the message with all of it."""
        if not self._came:
            return
        made = self._joined.tool_calls if self._joined is not None else ()
        calls = tuple(ToolCall(call["name"], call["args"], call["id"] or "") for call in made)
        yield from calls
        text = "".join(self._texts)
        yield Message.assistant(*((text,) if text else ()), tool_calls=calls, usage=self._usage)


def _text_of(content: Any) -> str:
    """The text in the content of a message: a string, or blocks of which some are text."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else ()
    return "".join(
        block if isinstance(block, str) else str(block.get("text") or "")
        for block in blocks
        if isinstance(block, str) or block.get("type") == "text"
    )
