"""One file with a prompt: YAML, or Markdown with front matter."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import ValidationError

from rxstage.errors import require
from rxstage.prompts.errors import PromptError
from rxstage.prompts.prompt import Prompt
from rxstage.prompts.template import includes

__all__ = ["SUFFIXES", "PromptFile"]

SUFFIXES: Final = (".md", ".yaml", ".yml")
_FENCE: Final = "---"
_BOOL: Final = "tag:yaml.org,2002:bool"
_DEPTH: Final = 20  # of nested lists and mappings


class PromptFile:
    """What a file says.

    Args:
        name: its path in the registry, with `/`, for errors; without suffix it is the id of the prompt that names
            none: `support.md` has the id `support`, and `support@2.md` is version 2 of it.
        text: what is in it.

    Attributes:
        name: as given.
        prompt: the prompt.

    Raises:
        PromptError: it cannot be read as a prompt; the message says file and line.
        MissingExtra: PyYAML is not installed (extra `prompts`).
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._lines: Callable[[Sequence[Any]], int] = lambda _: 0
        fields: Any = {}
        begin, body = 1, None
        if name.endswith(".md"):
            front, body, begin = _split(text)
            if front is not None:
                fields = self._yaml(front, 1)
        else:
            fields = self._yaml(text, 0)
        if not isinstance(fields, dict):
            raise self.error("a prompt is a mapping: system, examples, variables …", 1)
        if body is not None:
            if "system" in fields:
                raise self.error("the system prompt is what stands below the front matter", self._lines(("system",)))
            fields["system"] = body
        stem, _, version = str(PurePosixPath(name).with_suffix("")).partition("@")
        fields = {"id": stem, **({"version": version} if version else {}), **fields}
        try:
            self.prompt = Prompt.model_validate(fields)
        except ValidationError as invalid:
            first, *more = invalid.errors(include_url=False)
            what = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'prompt'}: {each['msg']}" for each in (first, *more))
            raise self.error(what, self._lines(first["loc"])) from invalid
        self._begin = begin if body is not None else 0
        for part, _, source in self.prompt.parts():
            self._checked(part, source)
        for fragment, source in self.prompt.fragments.items():
            self._checked(f"fragments.{fragment}", source)

    def error(self, problem: str, line: int = 0) -> PromptError:
        """An error that says file and line."""
        return PromptError(f"{self.name}{f':{line}' if line else ''}: {problem}")

    def located(self, error: PromptError) -> PromptError:
        """An error in one of its parts, as an error that says file and line."""
        part, line = error.part, error.line
        if part == "system" and self._begin:
            return self.error(error.problem, self._begin + max(line, 1) - 1)
        keys: list[Any] = [int(key) if key.isdigit() else key for key in part.split(".")] if part else []
        return self.error(f"{part}: {error.problem}" if part else error.problem, self._lines(keys) + max(line, 1) - 1)

    def _checked(self, part: str, source: str) -> None:
        try:
            includes(source)
        except PromptError as error:
            raise self.located(error.at(part=part)) from error

    def _yaml(self, text: str, above: int) -> Any:
        """The tree; where a key of it stands is found by `_lines` from then on."""
        yaml = require("yaml", "prompts")

        class Loader(yaml.SafeLoader):  # type: ignore[misc,name-defined]
            """YAML 1.2's booleans only; no aliases, which can be made to explode; no key twice; no endless nesting."""

            yaml_implicit_resolvers = {
                first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
                for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
            }
            depth = 0

            def compose_node(self, parent: Any, index: Any) -> Any:
                mark = self.peek_event().start_mark
                if self.check_event(yaml.AliasEvent):
                    raise yaml.MarkedYAMLError(problem="there are no aliases (*name); write it out", problem_mark=mark)
                self.depth += 1
                if self.depth > _DEPTH:
                    raise yaml.MarkedYAMLError(problem=f"nested more than {_DEPTH} deep", problem_mark=mark)
                node = super().compose_node(parent, index)
                self.depth -= 1
                return node

            def construct_mapping(self, node: Any, deep: bool = False) -> Any:
                seen = set()
                for key, _ in node.value:
                    if not isinstance(key, yaml.ScalarNode):
                        raise yaml.MarkedYAMLError(problem="a key is a name", problem_mark=key.start_mark)
                    if key.value in seen:
                        raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
                    seen.add(key.value)
                return super().construct_mapping(node, deep)

        Loader.add_implicit_resolver(_BOOL, re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))
        try:
            loader = Loader(text)
            try:
                root = loader.get_single_node()
                tree = {} if root is None else loader.construct_document(root)
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 + above if error.problem_mark is not None else 0
            raise self.error(str(error.problem or error.context or "no YAML"), line) from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise self.error(f"no YAML: {error}") from error
        self._lines = lambda keys: _line_of(root, keys) + above
        return tree


def _split(text: str) -> tuple[str | None, str, int]:
    """Front matter, body, and the line where the body begins."""
    lines = text.split("\n")
    front, begin = None, 0
    if lines[0].rstrip() == _FENCE:
        end = next((number for number, line in enumerate(lines[1:], start=1) if line.rstrip() == _FENCE), None)
        if end is not None:
            front, begin = "\n".join(lines[1:end]), end + 1
    while begin < len(lines) - 1 and not lines[begin].strip():
        begin += 1
    return front, "\n".join(lines[begin:]).rstrip(), begin + 1


def _line_of(node: Any, keys: Sequence[Any]) -> int:
    """The line on which the value at a path of keys begins, from 1; of what is there of the path."""
    line = 1
    for key in keys:
        found = None
        if node is not None and isinstance(node.value, list):
            if isinstance(key, int):
                found = node.value[key] if key < len(node.value) else None
            else:
                pair = next((each for each in node.value if isinstance(each, tuple) and each[0].value == key), None)
                if pair is not None:
                    line = pair[0].start_mark.line + 1
                    found = pair[1]
        if found is None:
            return line
        node = found
        line = node.start_mark.line + 1 + (getattr(node, "style", None) in ("|", ">"))
    return line
