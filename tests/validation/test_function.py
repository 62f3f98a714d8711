"""Any function as a validator, and errors that go from process to process."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from rxstage.testing import run_virtual, virtual
from rxstage.validation import Function, ValidationFailed, ValidatorError, Verdict

KNOWN = Verdict.failed("too loud", 0.25)


async def polite(text: str) -> str | None:
    return None if "please" in text else "it is not polite"


class Short:
    """A callable object."""

    def __call__(self, text: str) -> bool:
        return len(text) < 5


def checked(function: Any, text: str = "some text") -> Verdict:
    async def main() -> Verdict:
        return await Function(function).check(text)

    return run_virtual(main)


def test_what_a_function_may_say() -> None:
    """True and None let a text pass, False and words refuse it, a verdict is taken as it is; plain or async."""
    assert checked(lambda text: True) == checked(lambda text: None) == checked(lambda text: "") == Verdict.passed()
    assert checked(lambda text: False) == Verdict.failed("it does not pass")
    assert checked(lambda text: "too loud") == Verdict.failed("too loud")
    assert checked(lambda text: KNOWN) is KNOWN
    assert checked(polite) == Verdict.failed("it is not polite")
    assert checked(polite, "please") == Verdict.passed()
    assert checked(lambda text: polite(text)) == Verdict.failed("it is not polite")
    assert checked(Short()) == Verdict.failed("it does not pass")


def test_what_it_may_not_say() -> None:
    """Anything else is an error, and so is what is no function."""
    with pytest.raises(TypeError, match="got 3"):
        checked(lambda text: 3)
    with pytest.raises(TypeError, match="Validator or a function of a text, got 'polite'"):
        Function("polite")  # type: ignore[arg-type]


@virtual
async def test_a_function_is_not_waited_for_for_ever() -> None:
    """An async function has so much time and no more."""

    async def lost(text: str) -> None:
        await asyncio.sleep(1000.0)

    begin = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await Function(lost, timeout=5.0).check("a")
    assert asyncio.get_running_loop().time() - begin == 5.0


def test_names() -> None:
    """It is called like the function."""
    assert [Function(each).name for each in (polite, Short(), lambda text: True)] == ["polite", "Short", "lambda"]
    assert Function(polite, name="manners").name == "manners"


def test_errors_are_pickled() -> None:
    """Errors keep what they say and know on their way to another process."""
    failed = pickle.loads(pickle.dumps(ValidationFailed("tone", "too loud", score=0.25, quote="HEY")))
    assert (failed.validator, failed.reason, failed.score, failed.quote) == ("tone", "too loud", 0.25, "HEY")
    assert "validator 'tone' refused the text: too loud ('HEY')" in str(failed)
    broken = pickle.loads(pickle.dumps(ValidatorError("tone", "LookupError: no table")))
    assert (broken.validator, str(broken)) == ("tone", str(ValidatorError("tone", "LookupError: no table")))
