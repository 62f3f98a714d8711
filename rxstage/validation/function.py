"""Any function as a validator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from pydantic import Field

from rxstage.validation.base import Validator, Verdict

__all__ = ["Check", "Function"]

Check: TypeAlias = Callable[[str], "bool | str | Verdict | Awaitable[bool | str | Verdict | None] | None"]
"""What a function may be: it says whether a text is fine, or what is wrong with it."""


class Function(Validator):
    """A function of the whole text as a validator. A stage makes one of each bare function it is given.

    Args:
        fn: plain or async. It gives a `Verdict`; or True or None where the text is fine, False or a `str` that says
            what is wrong where it is not. What it raises ends the execution.
        timeout: seconds for one answer of an async function.
    """

    fn: Any
    timeout: float = Field(default=60.0, gt=0)

    def __init__(self, fn: Check, **options: Any) -> None:
        if not callable(fn):
            raise TypeError(f"a validator is a Validator or a function of a text, got {fn!r}")
        options.setdefault("name", getattr(fn, "__name__", type(fn).__name__).strip("<>"))
        super().__init__(fn=fn, **options)

    async def check(self, text: str) -> Verdict:
        said: Any = self.fn(text)
        if hasattr(said, "__await__"):
            async with asyncio.timeout(self.timeout):
                said = await said
        if isinstance(said, Verdict):
            return said
        if said is None or said is True:
            return Verdict.passed()
        if said is False:
            return Verdict.failed("it does not pass")
        if isinstance(said, str):
            return Verdict.failed(said) if said else Verdict.passed()
        raise TypeError(f"a validator gives a Verdict, True, False, None or what is wrong as a str, got {said!r}")
