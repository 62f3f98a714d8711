"""A text with variables, rendered in a sandbox."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rxstage.errors import require
from rxstage.prompts.errors import MissingVariable, PromptError
from rxstage.prompts.meter import LIMITS, Meter, RenderLimits, metered

__all__ = ["PromptTemplate", "includes"]


class PromptTemplate:
    """A compiled template in the language of jinja2, as far as a prompt needs it.

    Whoever wrote it, and whatever the variables hold: it reads attributes that are not private, calls methods of plain
    values that only read, and ends within its limits. It cannot import, include what `fragments` does not give, reach
    Python's internals, or change what it is given. What is in a variable is text and never template.

    Args:
        source: the text.
        fragments: gives the text of what the template includes, by name, or None where there is none.

    Attributes:
        source: the text.
        names: the variables that it reads, whether or not it can do without.

    Raises:
        PromptError: it is no template; `line` says where.
        MissingExtra: jinja2 is not installed (extra `prompts`).
    """

    __slots__ = ("_compiled", "names", "source")

    def __init__(self, source: str, fragments: Mapping[str, str] | Callable[[str], str | None] | None = None) -> None:
        find = fragments if callable(fragments) else ({} if fragments is None else fragments).get
        self.source = source
        self._compiled, self.names = _language().compiled(source, find)

    def render(self, variables: Mapping[str, Any], limits: RenderLimits = LIMITS) -> str:
        """The text with the variables put in.

        Raises:
            MissingVariable: it reads one that is not there.
            PromptLimit: it comes to more text or work than the limits allow.
            PromptError: it does what it may not do, or something in it fails.
        """
        meter = Meter(limits)
        token = metered.set(meter)
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._compiled.root_render_func(self._compiled.new_context(dict(variables))):
                pieces.append(piece)
                length += len(piece)
                meter.fits(length)
        except PromptError as error:
            raise error.at(line=self._line(error.__traceback__)) from None
        except Exception as error:
            line = self._line(error.__traceback__)
            if (name := getattr(error, "variable", None)) is not None and not getattr(error, "attribute", True):
                raise MissingVariable.of(name, variables, line=line) from None
            kind = type(error)
            what = str(error) if kind.__module__.startswith(("jinja2", "rxstage")) else f"{kind.__name__}: {error}"
            raise PromptError(what, line=line) from error
        finally:
            metered.reset(token)
        return "".join(pieces)

    def _line(self, traceback: TracebackType | None) -> int:
        line = 0
        while traceback is not None:
            template = traceback.tb_frame.f_globals.get("__jinja_template__")
            if template is not None:
                line = template.get_corresponding_lineno(traceback.tb_lineno)
            traceback = traceback.tb_next
        return line


def includes(source: str) -> list[tuple[str, int]]:
    """The fragments that a text includes itself, each with its line.

    Raises:
        PromptError: it is no template.
    """
    found: list[tuple[str, int]] = _language().included(source)
    return found


def _language() -> Any:
    require("jinja2", "prompts")
    return importlib.import_module("rxstage.prompts.language")
