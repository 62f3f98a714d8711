"""A small language model of the sentences that may be said."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

__all__ = ["trigrams"]

_SEEN: Final = 0.9999  # of the probability goes to what was seen; the rest is left for other orders of the words
_BACK: Final = math.log10(1 - _SEEN)


def trigrams(phrases: Iterable[str]) -> str:
    """A trigram model with absolute back-off, in the ARPA form. A phrase that stands there often is likelier."""
    ones: Counter[str] = Counter()
    twos: Counter[tuple[str, str]] = Counter()
    threes: Counter[tuple[str, str, str]] = Counter()
    for phrase in phrases:
        words = ["<s>", *phrase.split(), "</s>"]
        ones.update(words)
        twos.update(pairwise(words))
        threes.update(zip(words, words[1:], words[2:], strict=False))
    total = sum(ones.values())
    lines = ["\\data\\", f"ngram 1={len(ones)}", f"ngram 2={len(twos)}", f"ngram 3={len(threes)}", "", "\\1-grams:"]
    for word, count in ones.items():
        lines.append(f"{-99 if word == '<s>' else math.log10(count / total):.4f} {word} {_BACK:.4f}")
    lines += ["", "\\2-grams:"]
    for (first, second), count in twos.items():
        lines.append(f"{math.log10(_SEEN * count / ones[first]):.4f} {first} {second} {_BACK:.4f}")
    lines += ["", "\\3-grams:"]
    for (first, second, third), count in threes.items():
        lines.append(f"{math.log10(_SEEN * count / twos[first, second]):.4f} {first} {second} {third}")
    return "\n".join((*lines, "", "\\end\\", ""))
