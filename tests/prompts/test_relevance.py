"""Scores of texts for a question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from rxstage.prompts import EmbeddingScorer, LexicalScorer


def test_lexical() -> None:
    """A text scores by the words that it has in common with the question, the rarer ones more."""
    texts = ["the cat sat on the mat", "the dog barked", "invoice 4471 is open", ""]
    scores = asyncio.run(LexicalScorer()("What about the Invoice 4471?", texts))
    assert scores.index(max(scores)) == 2
    assert scores[3] == 0.0
    assert 0 < scores[0] < scores[2]


def test_lexical_without_spaces() -> None:
    """Signs of Chinese and Japanese are words of their own."""
    scores = asyncio.run(LexicalScorer()("订单在哪里", ["天气很好", "我的订单"]))
    assert scores[1] > scores[0] == 0.0


@pytest.mark.parametrize("texts", [[], [""], ["", "?"]])
def test_lexical_of_nothing(texts: list[str]) -> None:
    """Nothing to compare gives zeros."""
    assert asyncio.run(LexicalScorer()("a", texts)) == [0.0] * len(texts)


def test_lexical_reads_a_text_once() -> None:
    """The words of a text are counted once, and a bounded number of texts is remembered."""
    scorer = LexicalScorer()
    texts = [f"text number {number}" for number in range(5000)]
    first = asyncio.run(scorer("number 7", texts))
    assert len(scorer._known) == 4096
    assert asyncio.run(scorer("number 7", texts)) == first


def test_embedding() -> None:
    """Vectors are compared by their angle; each text is embedded once."""
    asked: list[str] = []

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        asked.extend(texts)
        return [[float("cat" in text), float("dog" in text)] for text in texts]

    scorer = EmbeddingScorer(embed)
    assert asyncio.run(scorer("a cat", ["cat", "dog", "cat dog", ""])) == pytest.approx(
        [1.0, 0.0, 0.7071, 0.0], abs=1e-3
    )
    assert asyncio.run(scorer("a dog", ["cat", "dog"])) == [0.0, 1.0]
    assert asked == ["a cat", "cat", "dog", "cat dog", "", "a dog"]
