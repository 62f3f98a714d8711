"""What can be wrong with a call before it is done, in sentences for the model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from rxstage.content import ToolCall, ToolResult
from rxstage.tools.result import cut
from rxstage.tools.schema import ArgumentsError, excess
from rxstage.tools.tool import Tool

__all__ = ["checked", "failed"]

_MOST_WORDS: Final = 2000  # characters of what is told of arguments
_LONGEST_NAME: Final = 80  # characters of an unknown name that are looked at


def checked(call: ToolCall, tools: Mapping[str, Tool]) -> tuple[Tool, dict[str, Any]] | ToolResult:
    """The tool that is called and the arguments for its function, or a result that tells what is wrong."""
    tool = tools.get(call.name) if isinstance(call.name, str) else None
    if tool is None:
        return failed(call, _unknown(call.name, tools))
    arguments: Any = call.arguments
    malformed = isinstance(arguments, Mapping) and len(arguments) == 1 and "" in arguments  # text that was no JSON
    if malformed or not isinstance(arguments, Mapping):
        raw = arguments[""] if malformed else arguments
        shown = raw[:200] if isinstance(raw, str) else type(raw).__name__
        return failed(call, cut(f"The arguments of {tool.name!r} were no JSON object: {shown!r}", _MOST_WORDS))
    if much := excess(arguments):
        return failed(call, f"The arguments of {tool.name!r} {much}; call it with less.")
    try:
        return tool, tool.fit(arguments)
    except ArgumentsError as error:
        return failed(call, cut(f"The arguments of {tool.name!r} do not fit: {error}", _MOST_WORDS))


def failed(call: ToolCall, told: str) -> ToolResult:
    """The result that tells the model of a failure."""
    return ToolResult(call.id, told, call.name, is_error=True)


def _unknown(name: Any, tools: Mapping[str, Tool]) -> str:
    name = str(name)
    if len(name) > _LONGEST_NAME:
        return f"There is no tool {name[:_LONGEST_NAME] + '…'!r}."
    near = difflib.get_close_matches(name, tools, 1)
    if near:
        return f"There is no tool {name!r}. Did you mean {near[0]!r}?"
    return f"There is no tool {name!r}. " + (f"There are: {', '.join(tools)}." if tools else "There are none.")
