"""Ports, scopes and callbacks for tests of single nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rxstage import PipelineConfig, StreamElement
from rxstage.flow.callback import Callback, Kind
from rxstage.flow.port import Port
from rxstage.flow.scope import Scope
from rxstage.flow.valve import Valve
from rxstage.stage import StageType

__all__ = ["Out", "callback", "make_scope", "names"]


def names(elements: list[StreamElement]) -> list[Any]:
    """The payload of content; of a control its kind, and its sequence where it has one."""
    return [
        f"{type(each.content).__name__}{each.sequence or ''}" if each.is_control else each.payload for each in elements
    ]


class Out:
    """The end of a wiring: notes what comes."""

    def __init__(self) -> None:
        self.elements: list[StreamElement] = []
        self.dones = 0
        self.valve = Valve()

    def port(self) -> Port:
        return Port(self.elements.append, self.elements.append, self._done, self.valve)

    def _done(self) -> None:
        self.dones += 1

    @property
    def names(self) -> list[Any]:
        return names(self.elements)


def make_scope(
    on_fail: Callable[[BaseException], object] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    **config: Any,
) -> Scope:
    """The scope of an execution that never begins."""

    def unexpected(error: BaseException) -> None:
        raise AssertionError(f"it failed with {error!r}")

    scope = Scope(
        config=PipelineConfig(**config), clock=lambda: 12.5, loop=loop, on_fail=on_fail or unexpected, name="p"
    )
    scope.names = [f"s{n}" for n in range(300)]
    return scope


def callback(name: str, function: Callable[..., Any], kind: Kind = Kind.MAP, **options: Any) -> Callback:
    """A callback as a stage would make it."""
    return Callback(name=name, stage_type=StageType.TRANSFORM, kind=kind, function=function, **options)
