"""The language of a text, by a model that comes with its package."""

from __future__ import annotations

import pytest

from rxstage.validation import Language, Verdict

pytestmark = pytest.mark.needs("module:py3langid")

TEXTS = {
    "en": "Thank you for your order, it will be delivered next Tuesday.",
    "de": "Vielen Dank für Ihre Bestellung, sie wird nächsten Dienstag geliefert.",
    "fr": "Merci pour votre commande, elle sera livrée mardi prochain.",
    "es": "Gracias por su pedido, se entregará el próximo martes.",
    "ja": "ご注文ありがとうございます。来週の火曜日にお届けします。",
}


@pytest.mark.parametrize("language", TEXTS)
def test_languages(language: str) -> None:
    """A text passes where its language is allowed, with its probability for a score, and is refused elsewhere."""
    text = TEXTS[language]
    passed = Language(language).check(text)
    assert passed.ok
    assert 0.8 < passed.score <= 1.0
    refused = Language("it").check(text)
    assert not refused.ok
    assert refused.score < 0.2
    assert refused.reason == f"its language seems to be {language}, not it"
    assert Language("it", language).check(text).ok


def test_what_is_too_short_passes() -> None:
    """Of a few characters nobody can say the language: they pass, unless they are to be judged as well."""
    assert Language("fr").check("Yes, of course.") == Verdict.passed()
    assert not Language("fr", shortest=5).check("Yes, of course.").ok


def test_a_long_text_is_sampled() -> None:
    """Of a long text the begin and the end count, each for a part."""
    assert Language("en").check(TEXTS["en"] * 10_000).ok
    assert not Language("en", threshold=0.9).check(TEXTS["en"] * 200 + TEXTS["ja"] * 200).ok


@pytest.mark.parametrize("languages", [(), ("english",)])
def test_refuses(languages: tuple[str, ...]) -> None:
    """No language, or one that the model does not know, is an error that names those it does."""
    with pytest.raises(ValueError, match=r"at least one of .*\ben\b"):
        Language(*languages)
