"""The test kit: virtual time and the proof that nothing is left behind."""

from rxstage.testing.leaks import assert_no_leaks
from rxstage.testing.virtual import Deadlock, LeftBehind, StillBusy, VirtualLoop, run_virtual, virtual, virtual_loop

__all__ = [
    "Deadlock",
    "LeftBehind",
    "StillBusy",
    "VirtualLoop",
    "assert_no_leaks",
    "run_virtual",
    "virtual",
    "virtual_loop",
]
