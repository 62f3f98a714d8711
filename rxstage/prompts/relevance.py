"""How much a text has to do with a question."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

__all__ = ["EmbeddingScorer", "LexicalScorer", "Scorer"]

Scorer: TypeAlias = Callable[[str, Sequence[str]], Awaitable[Sequence[float]]]
"""`async score(question, texts)` gives a number for each text: the higher, the more it has to do with the question."""

_WORDS: Final = re.compile("[぀-ヿ一-鿿]|[^\\W぀-ヿ一-鿿]+")  # a sign of Chinese or Japanese is a word of its own
_K1: Final = 1.5  # how soon a word that comes again counts no more
_B: Final = 0.75  # how much a long text has to make up for
_REMEMBERED: Final = 4096  # texts


class LexicalScorer:
    """Scores by the words that both have in common, the rare ones counting more (BM25). Each text is read once."""

    def __init__(self) -> None:
        self._known: dict[str, Counter[str]] = {}

    async def __call__(self, question: str, texts: Sequence[str]) -> list[float]:
        """A score for each text, 0 where they have no word in common."""
        words = set(_words(question))
        counts = [self._counted(text) for text in texts]
        lengths = [count.total() for count in counts]
        usual = sum(lengths) / len(lengths) if lengths and any(lengths) else 1.0
        scores = [0.0] * len(texts)
        for word in words:
            having = [index for index, count in enumerate(counts) if word in count]
            weight = math.log(1 + (len(texts) - len(having) + 0.5) / (len(having) + 0.5))
            for index in having:
                often = counts[index][word]
                scores[index] += weight * often * (_K1 + 1) / (often + _K1 * (1 - _B + _B * lengths[index] / usual))
        return scores

    def _counted(self, text: str) -> Counter[str]:
        count = self._known.get(text)
        if count is None:
            if len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            count = self._known[text] = Counter(_words(text))
        return count


class EmbeddingScorer:
    """Scores by the angle between vectors. Each text is embedded once.

    Args:
        embed: `async embed(texts)` gives a vector for each text.
    """

    def __init__(self, embed: Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]) -> None:
        self._embed = embed
        self._known: dict[str, tuple[Sequence[float], float]] = {}

    async def __call__(self, question: str, texts: Sequence[str]) -> list[float]:
        """The cosine of the angle for each text."""
        new = [text for text in dict.fromkeys((question, *texts)) if text not in self._known]
        vectors: dict[str, tuple[Sequence[float], float]] = {}
        if new:
            for text, vector in zip(new, await self._embed(new), strict=True):
                vectors[text] = vector, math.hypot(*vector)
        vectors.update({text: self._known[text] for text in (question, *texts) if text in self._known})
        asked, length = vectors[question]
        self._known = {text: vectors[text] for text in texts[-_REMEMBERED:]}
        return [
            sum(a * b for a, b in zip(asked, vectors[text][0], strict=True)) / (length * vectors[text][1] or 1.0)
            for text in texts
        ]


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())
