"""What can go wrong with prompts and with the context that they need."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from rxstage.errors import RxStageError

__all__ = ["MissingVariable", "PromptError", "PromptLimit", "PromptNotFound", "TokenBudgetExceeded", "nearest"]


class PromptError(RxStageError):
    """A prompt cannot be read, found or rendered.

    Attributes:
        problem: what is wrong, without the place.
        prompt: the prompt, as `id@version`, or "".
        part: the part of it: `"system"`, `"examples.0.user"`, `"fragments.tone"`; or "".
        line: line in that part, from 1; 0 where it is not known.
    """

    def __init__(self, problem: str, *, prompt: str = "", part: str = "", line: int = 0) -> None:
        self.problem, self.prompt, self.part, self.line = problem, prompt, part, line
        at = ", ".join(words for words in (part, f"line {line}" if line else "") if words)
        where = " ".join(words for words in (f"prompt {prompt!r}" if prompt else "", f"({at})" if at else "") if words)
        super().__init__(f"{where}: {problem}" if where else problem)

    def at(self, *, prompt: str = "", part: str = "", line: int = 0) -> PromptError:
        """The same error, with its place."""
        error = type(self)(self.problem, prompt=self.prompt or prompt, part=self.part or part, line=self.line or line)
        error.__cause__ = self.__cause__
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.problem, {**self.__dict__})


class MissingVariable(PromptError):
    """A template reads a variable that nobody sets.

    Attributes:
        variable: its name.
    """

    variable: str = ""

    @classmethod
    def of(cls, variable: str, known: Iterable[str], *, line: int = 0) -> MissingVariable:
        """The error for a variable, with the nearest of those that are there, and the remedy."""
        error = cls(
            f"the variable {variable!r} is not set{nearest(variable, known)}; give it in variables=, in the metadata "
            f"of the turn, by one of providers=, or as a default among the prompt's own variables",
            line=line,
        )
        error.variable = variable
        return error

    def at(self, *, prompt: str = "", part: str = "", line: int = 0) -> PromptError:
        """The same error, with its place."""
        error = super().at(prompt=prompt, part=part, line=line)
        error.__dict__["variable"] = self.variable
        return error


class PromptLimit(PromptError):
    """A template makes more text or work than it may."""


class PromptNotFound(PromptError):
    """A registry has no such prompt."""


class TokenBudgetExceeded(RxStageError):
    """What is to be sent does not fit into the token budget.

    Attributes:
        tokens: how many it is.
        budget: how many it may be.
    """

    def __init__(self, tokens: int, budget: int, what: str) -> None:
        self.tokens, self.budget, self.what = tokens, budget, what
        super().__init__(
            f"{what} comes to {tokens} tokens, and the budget has room for {budget}; raise max_tokens=, lower "
            f"reserve=, or choose a strategy that leaves something out ('oldest', 'relevance', 'summarize')"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenBudgetExceeded, (self.tokens, self.budget, self.what)


def nearest(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"`, or "" where nothing is near."""
    found = get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _again(kind: type[PromptError], problem: str, state: dict[str, Any]) -> PromptError:
    error = kind(problem, prompt=state["prompt"], part=state["part"], line=state["line"])
    error.__dict__.update(state)
    return error
