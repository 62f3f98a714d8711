"""Fixtures for pytest: `virtual_loop` and `leak_check`. pytest finds them by itself where rxstage is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rxstage.testing.virtual import VirtualLoop

__all__ = ["leak_check", "virtual_loop"]


@pytest.fixture
def virtual_loop() -> Iterator[VirtualLoop]:
    """An event loop in virtual time; tasks that are left at the end of the test are an error."""
    from rxstage.testing.virtual import virtual_loop as opened  # not at the start of every session of pytest

    with opened() as loop:
        yield loop


@pytest.fixture
def leak_check() -> Iterator[None]:
    """The test leaves no task, thread or subscription behind, or it fails."""
    from rxstage.testing.leaks import assert_no_leaks

    with assert_no_leaks():
        yield
