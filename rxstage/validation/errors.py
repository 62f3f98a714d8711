"""What goes wrong where texts are validated."""

from __future__ import annotations

from typing import Any

from rxstage.errors import RxStageError

__all__ = ["ValidationFailed", "ValidatorError"]


class ValidationFailed(RxStageError):
    """A text was refused by a validator.

    Attributes:
        validator: name of the validator.
        reason: what is wrong with the text, in words; nothing that a validator of secrets has found.
        score: how good the text is, from 0 to 1.
        quote: how the text begins, or what in it is wrong; "" where that must not be told.
    """

    def __init__(self, validator: str, reason: str, *, score: float = 0.0, quote: str = "") -> None:
        quoted = f" ({quote!r})" if quote else ""
        super().__init__(
            f"validator {validator!r} refused the text: {reason}{quoted}; with another policy the stream goes on: "
            f"'emit', or where they can be kept 'redact' and 'repair'"
        )
        self.validator = validator
        self.reason = reason
        self.score = score
        self.quote = quote

    def __reduce__(self) -> tuple[Any, ...]:
        return _failed, (self.validator, self.reason, self.score, self.quote), self.__dict__


class ValidatorError(RxStageError):
    """A validator could not do its work, so that nothing is known of the text; the exception is `__cause__`.

    Attributes:
        validator: name of the validator.
    """

    def __init__(self, validator: str, message: str) -> None:
        super().__init__(f"validator {validator!r} failed: {message}; a text that was not validated does not go on")
        self.validator = validator
        self._message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return ValidatorError, (self.validator, self._message), self.__dict__


def _failed(validator: str, reason: str, score: float, quote: str) -> ValidationFailed:
    return ValidationFailed(validator, reason, score=score, quote=quote)
