"""What has tools once it is open, such as a server, and the names that tools of several origins go by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from rxstage.errors import RxStageError
from rxstage.tools.tool import Tool

__all__ = ["ToolSource", "ToolSourceError", "named"]


class ToolSourceError(RxStageError):
    """A source of tools cannot be opened, or offers what cannot be used."""


class ToolSource(ABC):
    """Something that has tools once it is open.

    It is opened on each event loop that its tools are to be called on, and may be opened several times on one: it
    stays open till it has been closed as often.

    Attributes:
        name: what it is called in errors; put before the name of a tool that another tool has already.
    """

    name: str = "source"

    @abstractmethod
    async def open(self) -> Sequence[Tool]:
        """Connect, and give the tools.

        Raises:
            ToolSourceError: it cannot be opened.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Disconnect on the running loop, if nobody else needs it there."""


def named(given: Iterable[Tool | ToolSource], offered: Mapping[ToolSource, Iterable[Tool]]) -> dict[str, Tool]:
    """Tools by name, in the order given, those of a source by name.

    A tool of a source never takes the place of one that the application gives, nor of one of an earlier source: it is
    called by the source's name and its own.

    Args:
        given: tools and sources.
        offered: what the sources offer.

    Raises:
        ValueError: two have one name; it names both.
    """
    given = tuple(given)
    taken = {each.name for each in given if isinstance(each, Tool)}
    found: dict[str, Tool] = {}
    origin: dict[str, str] = {}

    def add(tool: Tool, place: str) -> None:
        if tool.name in found:
            raise ValueError(
                f"two tools are called {tool.name!r}: one of {origin[tool.name]}, one of {place}; give one another name"
            )
        found[tool.name], origin[tool.name] = tool, place

    for each in given:
        if isinstance(each, Tool):
            add(each, "the application")
            continue
        for tool in sorted(offered.get(each, ()), key=lambda tool: tool.name):
            if tool.name in taken:
                tool = replace(tool, name=f"{each.name}_{tool.name}"[:64])
            add(tool, f"source {each.name!r}")
        taken |= found.keys()
    return found
