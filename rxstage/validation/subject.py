"""What is validated: a text in pieces, the texts of a message, or the strings of a structured answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any, ClassVar

from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_jsonable_python

from rxstage.content import Message, Parts, Text, Usage
from rxstage.validation.errors import ValidationFailed
from rxstage.validation.schema import misfit, unfenced

__all__ = ["Settled", "Structure", "Subject", "texts_of", "with_texts"]


class Subject:
    """A text in pieces, which belong together: what is found may reach from one into the next.

    Attributes:
        parts: the pieces.
    """

    __slots__ = ("parts",)

    apart: ClassVar[bool] = False  # whether each piece is a text of its own

    def __init__(self, parts: Sequence[str]) -> None:
        self.parts = parts

    @property
    def text(self) -> str:
        """The whole, as text."""
        return "".join(self.parts)

    def replaced(self, parts: Sequence[str]) -> Subject:
        """The same with other pieces, as many.

        Raises:
            ValueError: they are of the wrong form.
        """
        return Subject(parts)

    def repaired(self, text: str) -> Subject:
        """What `text` says in its place, in one piece.

        Raises:
            ValueError: it is of the wrong form.
        """
        return Subject((text,))


class Structure(Subject):
    """A structured answer: its pieces are the strings in it, keys too.

    Args:
        value: a pydantic model, a dataclass, a dict or a list; or plain data of one of them.
        kind: what it is to be; by default what `value` is.

    Attributes:
        value: the object.
        plain: the same as JSON has it.

    Raises:
        ValueError: `value` does not fit `kind`.
    """

    __slots__ = ("_kind", "plain", "value")

    apart: ClassVar[bool] = True

    def __init__(self, value: Any, kind: type | None = None) -> None:
        self._kind = kind or type(value)
        self.value = value if kind in (None, dict, list) else _adapted(kind, value)
        self.plain: Any = to_jsonable_python(value, fallback=str)
        super().__init__(tuple(_strings(self.plain)))

    @staticmethod
    def fits(value: Any) -> bool:
        """Whether a value is a structured answer."""
        return isinstance(value, (BaseModel, dict, list)) or (is_dataclass(value) and not isinstance(value, type))

    @property
    def text(self) -> str:
        return json.dumps(self.plain, ensure_ascii=False)

    def says(self, text: str) -> bool:
        """Whether a text is this answer as JSON."""
        try:
            value = from_json(unfenced(text))
            return bool((value if self._kind in (dict, list) else _adapted(self._kind, value)) == self.value)
        except ValueError:
            return False

    def replaced(self, parts: Sequence[str]) -> Structure:
        return Structure(_replaced(self.plain, iter(parts)), self._kind)

    def repaired(self, text: str) -> Structure:
        return Structure(from_json(unfenced(text)), self._kind)


class Settled(Struct, frozen=True):
    """What became of a text: what goes on in its place, or the error that does.

    Attributes:
        subject: the text that goes on.
        repaired: whether it is another one, in one piece.
        usage: what the repair has used.
        error: why nothing goes on.
    """

    subject: Subject
    repaired: bool = False
    usage: Usage = Usage()
    error: ValidationFailed | None = None


def _adapted(kind: Any, value: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(misfit(error, kind)) from None  # which would show the values


def texts_of(content: Message | Parts) -> list[str]:
    """The texts in a message."""
    return [part.text for part in content.parts if part.__class__ is Text]


def with_texts(content: Any, texts: Sequence[str]) -> Any:
    """A message with other texts: as many, or one in the place of all."""
    rest: Iterator[str] = iter(texts)
    parts = [part if part.__class__ is not Text else Text(next(rest, "")) for part in content.parts]
    return replace(content, parts=tuple(part for part in parts if part.__class__ is not Text or part.text))


def _strings(plain: Any) -> Iterator[str]:
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict):
        for key, value in plain.items():
            yield key
            yield from _strings(value)
    elif isinstance(plain, list):
        for value in plain:
            yield from _strings(value)


def _replaced(plain: Any, strings: Iterator[str]) -> Any:
    if isinstance(plain, str):
        return next(strings)
    if isinstance(plain, dict):
        return {next(strings): _replaced(value, strings) for value in plain.values()}
    if isinstance(plain, list):
        return [_replaced(value, strings) for value in plain]
    return plain
