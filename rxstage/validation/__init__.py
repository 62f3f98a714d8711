"""Validators: what looks at a text and refuses it, whole or while it streams."""

from rxstage.validation.base import Match, Policy, StreamingValidator, Validator, Verdict
from rxstage.validation.errors import ValidationFailed, ValidatorError
from rxstage.validation.function import Function
from rxstage.validation.judge import Judge
from rxstage.validation.language import Language
from rxstage.validation.pii import PII
from rxstage.validation.schema import JSONSchema, Model
from rxstage.validation.text import BannedWords, Length, Pattern

__all__ = [
    "PII",
    "BannedWords",
    "Function",
    "JSONSchema",
    "Judge",
    "Language",
    "Length",
    "Match",
    "Model",
    "Pattern",
    "Policy",
    "StreamingValidator",
    "ValidationFailed",
    "Validator",
    "ValidatorError",
    "Verdict",
]
