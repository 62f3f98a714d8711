"""What a validator is: it looks at a whole text and gives a verdict, or looks at a text while it streams."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from msgspec import Struct
from pydantic import BaseModel, ConfigDict

from rxstage.content import Usage

__all__ = ["Match", "Policy", "StreamingValidator", "Validator", "Verdict"]

Policy: TypeAlias = Literal["fail", "emit", "redact", "repair"]
"""What is done with a text that is refused."""


class Match(Struct, frozen=True):
    """A place in a text where something is wrong: from `start` to before `end`, in characters."""

    start: int
    end: int
    kind: str = ""
    replacement: str = "[redacted]"


class Verdict(Struct, frozen=True):
    """What a validator thinks of a text.

    Attributes:
        ok: whether the text may go on.
        score: how good it is, from 0 to 1.
        reason: what is wrong, in words that may be logged: no secret that was found.
        matches: where, as far as that can be told.
        quote: what an error may show of the text; by default, how it begins.
        usage: what a model used to decide it.
    """

    ok: bool
    score: float
    reason: str = ""
    matches: tuple[Match, ...] = ()
    quote: str = ""
    usage: Usage | None = None

    @classmethod
    def passed(cls, score: float = 1.0) -> Verdict:
        """The text may go on."""
        return cls(True, score)

    @classmethod
    def failed(cls, reason: str, score: float = 0.0, *, quote: str = "") -> Verdict:
        """The text is refused."""
        return cls(False, score, reason, quote=quote)


class Validator(BaseModel):
    """Base of all validators. Subclass it and override `check`, or use a plain function instead.

    Args:
        name: what to call it in errors and events; by default its class in snake case.
        policy: what is done with a text that it refuses; by default what the stage says.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, extra="forbid", defer_build=True)

    redacts: ClassVar[bool] = False  # whether its matches can be replaced
    name: str = ""
    policy: Policy | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def model_post_init(self, context: Any, /) -> None:
        if not self.name:
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(self).__name__)
            self.__dict__["name"] = snake.lower()

    @property
    def secret(self) -> bool:
        """Whether what it looks for must not be told: then no error quotes a text that it has looked at."""
        return False

    @property
    def streams(self) -> bool:
        """Whether it can look at a text while it streams."""
        return False

    @property
    def whole(self) -> bool:
        """Whether it has to see the whole text before any of it may go on."""
        return True

    @abstractmethod
    def check(self, text: str) -> Verdict | Awaitable[Verdict]:
        """Look at a whole text; plain or async."""


class StreamingValidator(Validator):
    """Base of the validators that look at a text while it streams. Subclass it and override `scan` and `reason`.

    It keeps no state of a text: `scan` gets what is not settled yet, with what stands before it.
    """

    redacts: ClassVar[bool] = True

    replacement: str = "[redacted]"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    @property
    def streams(self) -> bool:
        return True

    @property
    def whole(self) -> bool:
        return False

    @abstractmethod
    def scan(self, text: str, start: int, offset: int, final: bool) -> tuple[Sequence[Match], int]:
        """Look at a part of a text.

        What it finds has to be the same however the text is cut: a place where more text could change the finding
        is not settled, and is looked at again.

        Args:
            text: the part, of which the characters before `start` are settled.
            start: where to begin.
            offset: characters of the whole text before this part.
            final: whether the text ends here.

        Returns:
            The matches, in order, as positions in `text`; and the position up to which it is settled, which is the
            length of `text` where it is `final`.
        """

    @abstractmethod
    def reason(self, matches: Sequence[Match]) -> str:
        """What is wrong, in words that may be logged."""

    def quote(self, match: Match) -> str:
        """What an error may show of a match."""
        return ""

    def check(self, text: str) -> Verdict | Awaitable[Verdict]:
        """Look at a whole text."""
        matches, _ = self.scan(text, 0, 0, True)
        if not matches:
            return Verdict.passed()
        return Verdict(False, 0.0, self.reason(matches), tuple(matches), self.quote(matches[0]))
