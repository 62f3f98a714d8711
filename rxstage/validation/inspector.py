"""Applies validators and their policies to texts, and tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from rxstage.content import Usage
from rxstage.stage import StageContext
from rxstage.validation.base import Match, Policy, StreamingValidator, Validator, Verdict
from rxstage.validation.errors import ValidationFailed, ValidatorError
from rxstage.validation.passage import Finding, Passage
from rxstage.validation.repair import repaired
from rxstage.validation.rules import Rules
from rxstage.validation.subject import Settled, Subject

__all__ = ["Inspector"]

_QUOTED: Final = 40  # characters of a text that an error shows
_PIECE: Final = 4096  # characters that are looked at in one go


class _Refusal(Exception):
    """A text does not go on."""

    def __init__(self, error: ValidationFailed) -> None:
        self.error = error


_Problems = list[tuple[str, Verdict]]


class Inspector:
    """Validates the texts of one execution.

    Args:
        rules: what the stage was told.
        context: of the stage.
    """

    def __init__(self, rules: Rules, context: StageContext) -> None:
        self._rules, self._context = rules, context
        self._streaming, self._whole = rules.streaming, rules.whole
        self._policies: dict[str, Policy] = {each.name: rules.policy_of(each) for each in rules.validators}
        self._secret = any(validator.secret for validator in rules.validators)

    def passage(self, begin: int = 0) -> Passage:
        """A text that begins to stream."""
        return Passage(self._streaming, begin)

    def found(
        self, passage: Passage, findings: Sequence[Finding], conversation: str, told: dict[str, int]
    ) -> tuple[ValidationFailed | None, int]:
        """Keep to the policies where something was found in a text that streams.

        Args:
            passage: the text; what is to be redacted will be replaced in it.
            findings: what was found.
            conversation: the text belongs to.
            told: how many matches of each validator have been told; brought up to date.

        Returns:
            The error that stops the text, or None; and the place up to which it may go on.

        Raises:
            ValidationFailed: the policy is to fail.
        """
        for number, matches in findings:
            validator = self._streaming[number]
            if self._policies[validator.name] == "redact":
                passage.replace(number, matches)
                told[validator.name] = told.get(validator.name, 0) + len(matches)
                self._tell(validator.name, _verdict(validator, matches), "redact", conversation)
        if (blocking := self._blocking(findings)) is None:
            return None, passage.safe
        return self._stop(blocking, conversation), min(passage.safe, blocking[1][0].start)

    def stopped(self, findings: Sequence[Finding], conversation: str, text: str = "") -> ValidationFailed | None:
        """The error that stops a text, where something was found for which it is to be stopped at once.

        Raises:
            ValidationFailed: the policy is to fail.
        """
        blocking = self._blocking(findings)
        return None if blocking is None else self._stop(blocking, conversation, text)

    def refused(
        self, name: str, verdict: Verdict, conversation: str, *, policy: Policy | None = None, text: str = ""
    ) -> ValidationFailed:
        """Tell that a text is refused; the error that stands in its place.

        Raises:
            ValidationFailed: the policy is to fail.
        """
        policy = policy or self._policies[name]
        self._tell(name, verdict, policy, conversation)
        error = self._error(name, verdict, text)
        if policy == "fail":
            raise error
        return error

    def too_much(self, reason: str, conversation: str) -> ValidationFailed:
        """The error for a text of which more would have to be held than is allowed.

        Raises:
            ValidationFailed: the policy is to fail.
        """
        return self.refused("held", Verdict.failed(reason), conversation, policy=self._rules.last)

    def passed(self, told: Mapping[str, int], conversation: str) -> None:
        """Tell of the validators that have found nothing in a text that has streamed."""
        for validator in self._streaming:
            if validator.name not in told:
                self._tell(validator.name, Verdict.passed(), self._policies[validator.name], conversation)

    async def settle(self, subject: Subject, conversation: str, told: Mapping[str, int]) -> Settled:
        """Validate a whole text, and have it repaired as far as that is allowed.

        Args:
            subject: the text.
            conversation: it belongs to.
            told: how many matches of each validator were told of already, because the text has streamed.

        Raises:
            ValidationFailed: the policy is to fail.
            ValidatorError: a validator raised.
        """
        rules, usage = self._rules, Usage()
        attempt = 0
        try:
            while True:
                passed: _Problems = []
                problems: _Problems = []
                subject = await self._scanned(subject, conversation, told, passed, problems)
                text = subject.text
                for validator in self._whole:
                    verdict = await _checked(validator, text)
                    if verdict.ok:
                        passed.append((validator.name, verdict))
                    elif (policy := self._policies[validator.name]) == "repair":
                        problems.append((validator.name, verdict))
                        self._tell(validator.name, verdict, policy, conversation, attempt)
                    else:
                        raise _Refusal(self.refused(validator.name, verdict, conversation, text=text))
                if not problems:
                    break
                if attempt == rules.attempts:
                    raise self._given_up(problems, text)
                subject, used = await self._repaired(subject, problems)
                usage += used
                attempt += 1
        except _Refusal as refusal:
            return Settled(subject, usage=usage, error=refusal.error)
        for name, verdict in passed:
            self._tell(name, verdict, self._policies[name], conversation, attempt)
        return Settled(subject, attempt > 0, usage)

    # ---------------------------------------------------------------- one after the other

    async def _scanned(
        self,
        subject: Subject,
        conversation: str,
        told: Mapping[str, int],
        passed: _Problems,
        problems: _Problems,
    ) -> Subject:
        """A text after the validators that can look at it as it streams."""
        texts = subject.parts if subject.apart else (subject.text,)
        passages = [self.passage() for _ in texts]
        count: dict[str, int] = {}
        for passage, text in zip(passages, texts, strict=True):
            findings = await self._fed(passage, text)
            if (error := self.stopped(findings, conversation, text)) is not None:
                raise _Refusal(error)
            for number, matches in findings:
                validator = self._streaming[number]
                name, policy = validator.name, self._policies[validator.name]
                before = count.get(name, 0)
                count[name] = before + len(matches)
                if policy == "redact":
                    passage.replace(number, matches)
                elif not before:
                    problems.append((name, _verdict(validator, matches)))
                if count[name] > told.get(name, 0):
                    self._tell(name, _verdict(validator, matches), policy, conversation)
        passed.extend(
            (each.name, Verdict.passed()) for each in self._streaming if each.name not in count and not each.whole
        )
        if not count:
            return subject
        if not subject.apart:
            ends = accumulate(map(len, subject.parts))
            return subject.replaced([passages[0].take(end) for end in ends])
        try:
            return subject.replaced([passage.take(passage.end) for passage in passages])
        except ValueError as error:
            verdict = Verdict.failed("its form does not allow what was found in it to be redacted")
            refused = self.refused(next(iter(count)), verdict, conversation, policy=self._rules.last)
            raise _Refusal(refused) from error

    async def _fed(self, passage: Passage, text: str) -> list[Finding]:
        """Have a whole text looked at, piece by piece so that the loop is not kept, as far as it is not stopped."""
        findings: list[Finding] = []
        for begin in range(0, len(text), _PIECE):
            found = passage.feed(text[begin : begin + _PIECE], final=begin + _PIECE >= len(text))
            findings += found
            if self._blocking(found) is not None:
                break
            if begin + _PIECE < len(text):
                await asyncio.sleep(0)
        return findings

    async def _repaired(self, subject: Subject, problems: _Problems) -> tuple[Subject, Usage]:
        rules = self._rules
        assert rules.repair is not None
        reasons = [verdict.reason for _, verdict in problems]
        try:
            text, usage = await repaired(rules.repair, subject.text, reasons, rules.repair_timeout)
            return subject.repaired(text), usage
        except Exception as cause:
            more = f"; and its repair failed: {type(cause).__name__}: {cause}"
            raise self._given_up(problems, subject.text, more, cause) from cause

    # ---------------------------------------------------------------- policies

    def _stop(
        self, blocking: tuple[StreamingValidator, Sequence[Match]], conversation: str, text: str = ""
    ) -> ValidationFailed:
        validator, matches = blocking
        return self.refused(validator.name, _verdict(validator, matches), conversation, text=text)

    def _given_up(
        self, problems: _Problems, text: str, more: str = "", cause: BaseException | None = None
    ) -> Exception:
        """What to raise where a text could not be repaired."""
        error = self._error(*problems[0], text, more)
        error.__cause__ = cause
        return error if self._rules.then == "fail" else _Refusal(error)

    def _blocking(self, findings: Sequence[Finding]) -> tuple[StreamingValidator, Sequence[Match]] | None:
        """The finding that comes first of those that stop a text."""
        stops = [
            (matches[0].start, number, matches)
            for number, matches in findings
            if self._policies[self._streaming[number].name] in ("fail", "emit")
        ]
        if not stops:
            return None
        _, number, matches = min(stops, key=lambda stop: stop[:2])
        return self._streaming[number], matches

    def _error(self, name: str, verdict: Verdict, text: str, more: str = "") -> ValidationFailed:
        quote = verdict.quote or ("" if self._secret else text[:_QUOTED])
        return ValidationFailed(name, verdict.reason + more, score=verdict.score, quote=quote)

    def _tell(self, name: str, verdict: Verdict, policy: str, conversation: str, attempt: int = 0) -> None:
        data: dict[str, Any] = {"validator": name, "score": verdict.score, "policy": policy}
        if not verdict.ok:
            data["reason"] = verdict.reason
        if verdict.matches:
            data["matches"] = len(verdict.matches)
        if attempt:
            data["attempt"] = attempt
        if conversation:
            data["conversation"] = conversation
        if verdict.usage is not None:
            data["usage"] = verdict.usage
        self._context.emit_event("validation.passed" if verdict.ok else "validation.failed", **data)


def _verdict(validator: StreamingValidator, matches: Sequence[Match]) -> Verdict:
    return Verdict(False, 0.0, validator.reason(matches), tuple(matches), validator.quote(matches[0]))


async def _checked(validator: Validator, text: str) -> Verdict:
    try:
        verdict: Any = validator.check(text)
        if hasattr(verdict, "__await__"):
            verdict = await verdict
        if not isinstance(verdict, Verdict):
            raise TypeError(f"check() gives a Verdict, got {verdict!r}")
    except Exception as error:
        raise ValidatorError(validator.name, f"{type(error).__name__}: {error}") from error
    return verdict
