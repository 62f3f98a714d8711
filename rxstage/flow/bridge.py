"""From whatever users have to the entry of a graph."""

from __future__ import annotations

from typing import Any

from reactivex import abc

from rxstage.flow.entry import Entry
from rxstage.flow.inlet import Observed, OnThread, observing, pulling
from rxstage.flow.pulled import Awaited, Iterated
from rxstage.flow.scope import Scope
from rxstage.flow.source import Source, is_file, is_single, lines_of

__all__ = ["open_source"]


def open_source(source: Any, scope: Scope, entry: Entry, subscribe_on: str = "loop") -> Source:
    """What feeds `entry` from any kind of source, not started yet; the execution lives on a loop."""
    if isinstance(source, abc.ObservableBase):
        if subscribe_on == "thread":
            return OnThread(scope, entry, observing(source))
        return Observed(scope, entry, source)
    if is_single(source):
        return Iterated(scope, entry, (source,))
    if hasattr(source, "__aiter__"):
        return Awaited(scope, entry, source)
    if is_file(source):
        return OnThread(scope, entry, pulling(lines_of(source)))
    if subscribe_on == "thread":
        return OnThread(scope, entry, pulling(source))
    return Iterated(scope, entry, source)
