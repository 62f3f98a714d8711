"""How long each stage of a turn took, from the events of an execution."""

from __future__ import annotations

from typing import Any, Final

from rxstage.events import Event

__all__ = ["STEPS", "Timeline"]

STEPS: Final = ("heard", "transcript", "token", "audio")
"""The steps of a turn: its end is noticed, its words are known, the first piece of the answer, its first sound."""


class Timeline:
    """Notes when each step of a turn was reached. There is one at a time: who begins another ends it.

    Args:
        silence: seconds between the end of speech and the moment at which it is noticed.
    """

    def __init__(self, silence: float) -> None:
        self._silence = silence
        self._count = 0
        self._typed = False
        self._begin: float | None = None  # of the turn, while its steps are noted
        self._steps: dict[str, float] = {}
        self._news: dict[int, dict[str, Any]] = {}

    def __bool__(self) -> bool:
        """Whether something was noted since `take`."""
        return bool(self._news)

    def take(self) -> list[dict[str, Any]]:
        """The turns of which something new is known: `turn`, `typed`, and in `steps` the seconds from the end of the
        speech (or from the arrival of what was written) to each step."""
        news, self._news = list(self._news.values()), {}
        return news

    def hear(self, event: Event) -> None:
        """Note what an event tells."""
        match event.type:
            case "turn.ended":
                self._count += 1
                self._typed, self._begin, self._steps = False, event.time - self._silence, {}
                self._reach("heard", event.time)
            case "stt.completed" if event.data["text"].strip():
                self._reach("transcript", event.time)
            case "stt.completed" | "stt.failed":  # a noise: nobody answers it
                self._begin = None
            case "provider.call.first_token":
                self._reach("token", event.time)

    def written(self, now: float) -> None:
        """A turn has come in writing."""
        self._count += 1
        self._typed, self._begin, self._steps = True, now, {}
        self._reach("transcript", now)

    def sounded(self, now: float) -> None:
        """A piece of sound goes out."""
        if "token" in self._steps:
            self._reach("audio", now)
            self._begin = None

    def _reach(self, step: str, at: float) -> None:
        if self._begin is not None and step not in self._steps:
            self._steps[step] = round(at - self._begin, 4)
            self._news[self._count] = {"turn": self._count, "typed": self._typed, "steps": dict(self._steps)}
