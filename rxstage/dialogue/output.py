"""Structured answers: the form that is asked for, partial objects while they stream, the validated one at the end."""

from __future__ import annotations

from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from rxstage.dialogue.errors import InvalidOutput
from rxstage.ports.provider import OutputSpec

__all__ = ["Structured"]

_STEP: Final = 16  # characters of growth before a partial object is parsed again, a sixteenth of the text at least


class Structured:
    """The form of an answer.

    Args:
        form: a pydantic model, or another type that pydantic can validate and that JSON has as an object.
    """

    def __init__(self, form: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(form)
        self.name = getattr(form, "__name__", "answer")
        schema = self._adapter.json_schema()
        self.spec = OutputSpec(self.name, schema, schema.get("description", ""))
        if schema.get("type") != "object" and "$ref" not in schema and "anyOf" not in schema:
            raise ValueError(f"output={form!r} has the JSON schema of no object; wrap it in a pydantic model")

    def partial(self, text: str, last: int) -> tuple[Any, int]:
        """What a text that is not complete says so far.

        Args:
            text: all that has come.
            last: length of the text at the last look.

        Returns:
            The object as plain data, None where it is too early for a look or nothing can be read yet; and the length
            to pass as `last` next time.
        """
        if len(text) - last < max(_STEP, len(text) // 16):
            return None, last
        try:
            return from_json(text, allow_partial="trailing-strings"), len(text)
        except ValueError:
            return None, len(text)

    def validate(self, text: str) -> Any:
        """The object.

        Raises:
            InvalidOutput: the text has not the form; the message tells the model what is wrong.
        """
        try:
            return self._adapter.validate_json(_unfenced(text))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'the answer'}: {each['msg']}" for each in error.errors()[:5]
            )
            raise InvalidOutput(f"the answer does not fit {self.name}: {problems}") from error


def _unfenced(text: str) -> str:
    """Without the code fence that some models put round their JSON."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```"):
        return stripped.strip("`").removeprefix("json").strip()
    return stripped
