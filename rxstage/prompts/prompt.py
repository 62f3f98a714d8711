"""What instructs a model: a system prompt and examples, as templates with variables."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from rxstage.content import Message, Text
from rxstage.prompts.errors import PromptError
from rxstage.prompts.meter import LIMITS, RenderLimits
from rxstage.prompts.template import PromptTemplate

__all__ = ["Example", "Prompt", "parse_reference"]

_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*"
_VERSION: Final = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
_LONGEST: Final = 200


def _version(value: Any) -> Any:
    if isinstance(value, float):  # 1.10 in YAML is 1.1
        raise ValueError(f"put the version in quotes: {value!r} is a number")
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Example(BaseModel):
    """A question and the answer that it should get; both are templates, as the system prompt is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str
    assistant: str


class Prompt(BaseModel):
    """A system prompt with examples.

    Args:
        system: template of the system message; none is made where it comes out empty.
        examples: shown to the model as earlier turns.
        fragments: texts that the templates include, by name.
        variables: what its variables are where nobody else says.
        id: name in a registry, such as `"support/refunds"`.
        version: tells it from others of the same name.
        description: for people.
        metadata: what the application keeps with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str = ""
    examples: tuple[Example, ...] = ()
    fragments: Mapping[str, str] = Field(default_factory=dict)
    variables: Mapping[str, Any] = Field(default_factory=dict)
    id: Annotated[str, StringConstraints(pattern=rf"^({_ID})?$", max_length=_LONGEST)] = ""
    version: Annotated[
        str, StringConstraints(pattern=rf"^({_VERSION})?$", max_length=_LONGEST), BeforeValidator(_version)
    ] = ""
    description: str = ""
    metadata: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def reference(self) -> str:
        """`id@version`, or the id alone."""
        return f"{self.id}@{self.version}" if self.version else self.id

    @property
    def names(self) -> frozenset[str]:
        """The variables that its templates read, whether or not they can do without.

        Raises:
            PromptError: one is no template.
        """
        return frozenset().union(*(template.names for _, _, template in self.templates))

    def render(self, variables: Mapping[str, Any] | None = None, limits: RenderLimits = LIMITS) -> tuple[Message, ...]:
        """The messages: the system message first, then the examples.

        Args:
            variables: go before the prompt's own.
            limits: how much each text may come to.

        Raises:
            MissingVariable: a template reads one that is not there.
            PromptError: a template is wrong, or does what it may not do.
        """
        given = {**self.variables, **(variables or {})}
        messages: list[Message] = []
        for part, role, template in self.templates:
            try:
                text = template.render(given, limits)
            except PromptError as error:
                raise error.at(prompt=self.reference, part=part) from error.__cause__
            if text.strip() or role != "system":
                messages.append(Message(role, (Text(text),)))
        return tuple(messages)

    @cached_property
    def templates(self) -> tuple[tuple[str, str, PromptTemplate], ...]:
        """Its templates, compiled: the part that each is, the role that speaks, and the template.

        Raises:
            PromptError: one is no template.
        """
        compiled = []
        for part, role, source in self.parts():
            try:
                compiled.append((part, role, PromptTemplate(source, self.fragments)))
            except PromptError as error:
                raise error.at(prompt=self.reference, part=part) from error.__cause__
        return tuple(compiled)

    def parts(self) -> Iterator[tuple[str, str, str]]:
        """Its templates as text: the part that each is, and the role that speaks."""
        yield "system", "system", self.system
        for number, example in enumerate(self.examples):
            yield f"examples.{number}.user", "user", example.user
            yield f"examples.{number}.assistant", "assistant", example.assistant


def parse_reference(reference: str, version: str | None = None) -> tuple[str, str | None]:
    """The id and the version of `"id"` or `"id@version"`.

    Raises:
        PromptError: it is neither, or names another version than `version`.
    """
    name, at, own = reference.partition("@")
    if max(len(name), len(own)) > _LONGEST or not re.fullmatch(_ID, name) or (at and not re.fullmatch(_VERSION, own)):
        raise PromptError(
            f"{reference[:_LONGEST]!r} is no id of a prompt; write 'name', 'folder/name' or 'name@version'"
        )
    if at and version is not None and own != version:
        raise PromptError(f"{reference!r} names another version than version={version!r}; give it once")
    return name, own if at else version
