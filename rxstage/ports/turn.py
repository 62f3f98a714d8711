"""The port to detectors of the end of a turn: has somebody said all they want to say?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rxstage.content import Message

__all__ = ["TurnDetector"]


class TurnDetector(ABC):
    """Tells by what was said whether the user has finished. One object serves any number of calls at once."""

    @abstractmethod
    async def complete(self, text: str, history: Sequence[Message]) -> float:
        """How likely it is that nothing more comes, 0 to 1. Cancelling it gives the call up.

        Args:
            text: what the user has said in this turn so far.
            history: the conversation before it, oldest first.
        """
