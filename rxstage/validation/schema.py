"""Validators of structured texts: JSON of a schema, or of a pydantic model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from rxstage.errors import require
from rxstage.validation.base import Validator, Verdict

__all__ = ["JSONSchema", "Model", "misfit", "unfenced"]

_SHOWN: Final = 5  # problems that a reason names


class JSONSchema(Validator):
    """Refuses a text that is no JSON, or does not fit a JSON schema. References to other documents are not followed.

    Args:
        schema: the schema, draft 4 to 2020-12.
        fenced: whether there may be a code fence round the JSON, as some models put it.

    Raises:
        rxstage.MissingExtra: `jsonschema-rs` is not installed (extra `validation`).
        ValueError: `schema` is none.
    """

    schema_: Mapping[str, Any] | bool
    fenced: bool = False

    def __init__(self, schema: Mapping[str, Any] | bool | None = None, **options: Any) -> None:
        super().__init__(schema_=options.pop("schema_", schema), **options)
        assert self._validator is not None  # raises what is wrong with the schema

    @cached_property
    def _validator(self) -> Any:
        library = require("jsonschema_rs", "validation")
        schema = self.schema_ if isinstance(self.schema_, bool) else json.loads(json.dumps(dict(self.schema_)))
        try:
            return library.validator_for(schema, offline=True, mask="the value")
        except (library.ValidationError, library.ReferencingError) as error:
            raise ValueError(f"this is no JSON schema: {getattr(error, 'message', error)}") from error

    def check(self, text: str) -> Verdict:
        try:
            value = from_json(unfenced(text) if self.fenced else text)
        except ValueError as error:
            return Verdict.failed(f"it is no JSON: {error}")
        problems = [
            f"{'.'.join(map(str, error.instance_path)) or 'the whole'}: {error.message}"
            for error in self._validator.iter_errors(value)
        ]
        return Verdict.failed(_listed(problems, "the schema")) if problems else Verdict.passed()


class Model(Validator):
    """Refuses a text that is no JSON of a pydantic model, or of another type that pydantic can validate.

    Args:
        form: the model or type.
        strict: whether `"1"` is no number; by default as the model has it.
        fenced: whether there may be a code fence round the JSON, as some models put it.
    """

    form: Any
    strict: bool | None = None
    fenced: bool = False

    def __init__(self, form: Any, **options: Any) -> None:
        super().__init__(form=form, **options)
        assert self._adapter is not None  # raises what is wrong with the type

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.form)

    def check(self, text: str) -> Verdict:
        try:
            self._adapter.validate_json(unfenced(text) if self.fenced else text, strict=self.strict)
        except ValidationError as error:
            return Verdict.failed(misfit(error, self.form))
        return Verdict.passed()


def misfit(error: ValidationError, form: Any) -> str:
    """What does not fit a form, without the values."""
    problems = [
        f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}"
        for each in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    return _listed(problems, getattr(form, "__name__", "the type"))


def unfenced(text: str) -> str:
    """Without the code fence that some models put round their JSON."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped:
        return stripped.partition("\n")[2].removesuffix("```")
    return stripped


def _listed(problems: list[str], form: str) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"it does not fit {form}: {'; '.join(problems[:_SHOWN])}{more}"
