"""Validator of the language that a text is in."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import Field

from rxstage.errors import require
from rxstage.validation.base import Validator, Verdict

__all__ = ["Language"]

_SAMPLE: Final = 2000  # characters that are looked at from the begin of a long text, and as many from its end


class Language(Validator):
    """Refuses a text that is not in one of some languages, as `py3langid` sees it.

    Args:
        languages: those that are allowed, by their codes of two or three letters: `"en"`, `"de"`.
        threshold: how probable it has to be that the text is in one of them, from 0 to 1; the score.
        shortest: characters below which a text is not judged, because its language cannot be told; it passes.

    Raises:
        rxstage.MissingExtra: `py3langid` is not installed (extra `language`).
        ValueError: no language is given, or one that is not known.
    """

    languages: tuple[str, ...]
    threshold: float = Field(default=0.5, gt=0, le=1)
    shortest: int = Field(default=20, ge=1)

    def __init__(self, *languages: str, **options: Any) -> None:
        super().__init__(languages=languages or options.pop("languages", ()), **options)
        unknown = set(self.languages) - set(_identifier().labels)  # the model takes half a second to load: do it now
        if unknown or not self.languages:
            known = ", ".join(sorted(_identifier().labels))
            raise ValueError(f"Language takes at least one of {known}; got {', '.join(sorted(unknown)) or 'none'}")

    def check(self, text: str) -> Verdict:
        text = text.strip()
        if len(text) < self.shortest:
            return Verdict.passed()
        ranks = _identifier().rank(text if len(text) <= 2 * _SAMPLE else f"{text[:_SAMPLE]} {text[-_SAMPLE:]}")
        score = min(sum(share for language, share in ranks if language in self.languages), 1.0)
        if score >= self.threshold:
            return Verdict.passed(score)
        return Verdict.failed(f"its language seems to be {ranks[0][0]}, not {' or '.join(self.languages)}", score)


@cache
def _identifier() -> Any:
    langid = require("py3langid.langid", "language")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
