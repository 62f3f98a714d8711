"""The test kit: virtual time, the laws of a stage, marbles, probes, and the proof that nothing is left behind."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from rxstage.testing.leaks import assert_no_leaks
from rxstage.testing.virtual import Deadlock, LeftBehind, StillBusy, VirtualLoop, run_virtual, virtual, virtual_loop

if TYPE_CHECKING:
    from rxstage.testing.laws import LAWS, LawBroken, LawReport, check_stage
    from rxstage.testing.marbles import MarbleRecord, MarbleRun, elements_from, marbles_of, marbles_svg, run_marbles
    from rxstage.testing.probes import SinkProbe, SourceProbe, settle
    from rxstage.testing.voice import ScriptedStt, ScriptedTts

__all__ = [
    "LAWS",
    "Deadlock",
    "LawBroken",
    "LawReport",
    "LeftBehind",
    "MarbleRecord",
    "MarbleRun",
    "ScriptedStt",
    "ScriptedTts",
    "SinkProbe",
    "SourceProbe",
    "StillBusy",
    "VirtualLoop",
    "assert_no_leaks",
    "check_stage",
    "elements_from",
    "marbles_of",
    "marbles_svg",
    "run_marbles",
    "run_virtual",
    "settle",
    "virtual",
    "virtual_loop",
]

_MODULES: Final = {
    "laws": ("LAWS", "LawBroken", "LawReport", "check_stage"),
    "marbles": ("MarbleRecord", "MarbleRun", "elements_from", "marbles_of", "marbles_svg", "run_marbles"),
    "probes": ("SinkProbe", "SourceProbe", "settle"),
    "voice": ("ScriptedStt", "ScriptedTts"),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    # pytest imports this package at the start of every session, for the plugin in it: the rest waits till it is used.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
