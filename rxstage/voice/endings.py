"""When the turn of somebody who speaks is over: how long the silence has to last, by what was said."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, cast

from rxstage.content import Message
from rxstage.ports.turn import TurnDetector

__all__ = ["DetectorPolicy", "EndingPolicy", "PunctuationPolicy", "SilencePolicy", "WordsDetector", "policy_of"]

_WORDS: Final = re.compile(r"[\w'’-]+")
_ENDED: Final = re.compile(r"[.?!。？！][\"')\]»”]*$")
_SUSPENDED: Final = re.compile(r"(?:\.\.\.|…|[,;:–—-])[\"')\]»”]*$")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words behind which more comes, and that hardly ever end a sentence: "on" does ("turn it on"), "this" does.
_HESITATES: Final = _set("ah eh er erm hm hmm mm uh uhm um äh ähm")
_LEADS_ON: Final = _set(
    "a an the my your our their its every i i'm i'd i'll it's let's "
    "and or but nor because if while although though unless until whether than as "
    "und oder aber weil wenn dass der die das ein eine einen mein meine"
)
_POINTS_ON: Final = _set("of at for from with without by into between to von für")  # but: "where are you from"
_ASKS: Final = _set(
    "who whose what when where why which how is are was were am do does did can could will would should may "
    "wer wann wo warum wie welche welcher welches"
)
_REPLIES: Final = _set(
    "yes no yeah yep nope sure okay ok thanks right exactly correct stop hello hi bye goodbye ja nein danke"
)
_SHORTEST: Final = 3  # words of a question


class EndingPolicy(ABC):
    """Says how long a silence ends a turn.

    Attributes:
        longest: seconds that it says at most; also what is waited where it fails.
    """

    longest: float

    @abstractmethod
    async def silence(self, text: str, history: Sequence[Message]) -> float:
        """Seconds without speech after which the turn is over.

        Args:
            text: what the user has said in this turn so far.
            history: the conversation before it, oldest first.
        """


class SilencePolicy(EndingPolicy):
    """The same silence after everything.

    Args:
        seconds: how long it is.
    """

    def __init__(self, seconds: float = 0.7) -> None:
        self.longest = _positive(seconds=seconds)

    async def silence(self, text: str, history: Sequence[Message]) -> float:
        """Always the same."""
        return self.longest


class PunctuationPolicy(EndingPolicy):
    """A short silence after a sentence that has ended, a long one after anything else.

    It is for recognition that punctuates. An ending mark behind a word that leads on (*and*, *the*) or hesitates (*um*)
    ends nothing.

    Args:
        short: seconds after `.`, `?` and `!`.
        long: seconds otherwise.
    """

    def __init__(self, short: float = 0.4, long: float = 1.2) -> None:
        self._short, self.longest = _pair(short, long)

    async def silence(self, text: str, history: Sequence[Message]) -> float:
        """By the last mark and the last word."""
        text = text.rstrip()
        ended = _ENDED.search(text) and not _SUSPENDED.search(text)
        return self._short if ended and not _leads_on(_words(text)) else self.longest


class DetectorPolicy(EndingPolicy):
    """A short silence where a detector takes what was said for complete, else a long one.

    Args:
        detector: by default a `WordsDetector`.
        threshold: how likely it has to be that the user has finished.
        short: seconds after what is complete.
        long: seconds otherwise, and where the detector fails.
        timeout: seconds that the detector has.
    """

    def __init__(
        self,
        detector: TurnDetector | None = None,
        *,
        threshold: float = 0.5,
        short: float = 0.4,
        long: float = 1.2,
        timeout: float = 0.5,
    ) -> None:
        self._detector = WordsDetector() if detector is None else detector
        if not isinstance(self._detector, TurnDetector):
            raise TypeError(f"a detector must be a TurnDetector, got {detector!r}")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold!r}")
        self._threshold, self._timeout = threshold, _positive(timeout=timeout)
        self._short, self.longest = _pair(short, long)

    async def silence(self, text: str, history: Sequence[Message]) -> float:
        """By what the detector says.

        Raises:
            TimeoutError: it takes too long.
            Exception: what it raises.
        """
        async with asyncio.timeout(self._timeout):
            likely = await self._detector.complete(text, history)
        return self._short if likely >= self._threshold else self.longest


class WordsDetector(TurnDetector):
    """Looks at the last words: cheap, offline, and good for recognition with and without punctuation.

    It knows English, and a few words of German.
    """

    async def complete(self, text: str, history: Sequence[Message]) -> float:
        """Low behind a word that leads on or hesitates, high behind a question, a short reply and an ending mark."""
        text = text.rstrip()
        words = _words(text)
        if not words or _leads_on(words) or _SUSPENDED.search(text):
            return 0.1
        if _ENDED.search(text):
            return 0.95
        if len(words) <= 2 and words[0] in _REPLIES:
            return 0.9
        if len(words) >= _SHORTEST and words[0] in _ASKS:
            return 0.8
        return 0.6 if len(words) >= 2 * _SHORTEST else 0.4


_NAMED: Final = {"words": DetectorPolicy, "punctuation": PunctuationPolicy, "silence": SilencePolicy}


def policy_of(stage: str, policy: Any) -> EndingPolicy:
    """The policy that a stage was given, as such or by name.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(policy, str) and policy in _NAMED:
        return cast("EndingPolicy", _NAMED[policy]())
    if not isinstance(policy, EndingPolicy):
        known = ", ".join(map(repr, _NAMED))
        raise TypeError(f"stage {stage!r}: policy must be one of {known} or an EndingPolicy, got {policy!r}")
    return policy


def _words(text: str) -> list[str]:
    return [word.replace("’", "'") for word in _WORDS.findall(text.casefold())]


def _leads_on(words: Sequence[str]) -> bool:
    """Whether more has to come behind the last word."""
    if not words:
        return False
    last = words[-1]
    return last in _HESITATES or last in _LEADS_ON or (last in _POINTS_ON and words[0] not in _ASKS)


def _positive(**seconds: float) -> float:
    ((name, value),) = seconds.items()
    if not value > 0:
        raise ValueError(f"{name} must be above 0 s, got {value!r}")
    return value


def _pair(short: float, long: float) -> tuple[float, float]:
    if not 0 < short <= long:
        raise ValueError(f"short must be above 0 s and at most long, got short={short!r} and long={long!r}")
    return short, long
