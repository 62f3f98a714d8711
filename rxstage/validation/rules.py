"""What a stage was told about the validators that it applies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from rxstage.validation.base import Policy, StreamingValidator, Validator
from rxstage.validation.function import Function
from rxstage.validation.repair import Repair

__all__ = ["Rules"]


class Rules(Struct, frozen=True, kw_only=True):
    """What a stage was told.

    Attributes:
        validators: all of them, each with a name of its own.
        policy: of those that have none of their own.
        repair: makes a better text of one that was refused.
        attempts: how often, for one text.
        then: what is done where that has not helped.
        repair_timeout: seconds for one attempt.
    """

    validators: tuple[Validator, ...]
    policy: Policy = "fail"
    repair: Repair | None = None
    attempts: int = 2
    then: Literal["fail", "emit"] = "fail"
    repair_timeout: float = 60.0

    @staticmethod
    def named(validators: Iterable[Any]) -> tuple[Validator, ...]:
        """Validators of what a user gave: functions among them become some, and names that are taken get a number."""
        named: dict[str, Validator] = {}
        for each in validators:
            validator = each if isinstance(each, Validator) else Function(each)
            name, number = validator.name, 1
            while name in named:
                number += 1
                name = f"{validator.name}_{number}"
            named[name] = validator if number == 1 else validator.model_copy(update={"name": name})
        return tuple(named.values())

    @property
    def streaming(self) -> tuple[StreamingValidator, ...]:
        """Those that look at a text while it streams."""
        return tuple(each for each in self.validators if isinstance(each, StreamingValidator) and each.streams)

    @property
    def whole(self) -> tuple[Validator, ...]:
        """Those that have to see it all."""
        return tuple(each for each in self.validators if each.whole or not isinstance(each, StreamingValidator))

    @property
    def holds(self) -> bool:
        """Whether a text has to be held till all of it is there."""
        return bool(self.whole) or any(self.policy_of(validator) == "repair" for validator in self.validators)

    @property
    def last(self) -> Literal["fail", "emit"]:
        """What is done where no other policy can be kept."""
        return self.policy if self.policy in ("fail", "emit") else self.then

    def policy_of(self, validator: Validator) -> Policy:
        """What is done where a validator refuses a text."""
        return validator.policy or self.policy

    def problems(self) -> list[str]:
        """What cannot be done as it was told."""
        found = [
            f"validator {each.name!r} cannot redact, because it does not say where in a text something is wrong; give "
            f"it policy='fail', 'emit' or 'repair'"
            for each in self.validators
            if self.policy_of(each) == "redact" and (each.whole or not each.redacts)
        ]
        repairs = [each.name for each in self.validators if self.policy_of(each) == "repair"]
        if not self.validators:
            found.append("it has no validators")
        if repairs and self.repair is None:
            found.append(f"policy='repair' of {', '.join(map(repr, repairs))} needs repair=, a Provider or a function")
        if self.repair is not None and not repairs:
            found.append("repair= is never used; give a validator, or the stage, policy='repair'")
        return found
