"""What a template of a prompt may say, and how it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.visitor import NodeTransformer

from rxstage.prompts.errors import PromptError, PromptLimit, PromptNotFound
from rxstage.prompts.filters import CHARGE, CONCAT, MADE, TAKEN, WEIGHED, WRITTEN
from rxstage.prompts.sandbox import PromptEnvironment

__all__ = ["compiled", "environment", "included"]

_LENGTH: Final = 200_000  # characters of source
_NODES: Final = 20_000  # of a template with all that it includes
_REFUSED: Final[dict[type[nodes.Node], str]] = {
    nodes.Block: "block",
    nodes.Extends: "extends",
    nodes.FromImport: "from",
    nodes.Import: "import",
    nodes.ScopedEvalContextModifier: "autoescape",
}
_LITERALS: Final = (nodes.List, nodes.Tuple, nodes.Dict)


@cache
def environment() -> PromptEnvironment:
    """The environment of all prompts."""
    return PromptEnvironment()


def compiled(source: str, fragments: Callable[[str], str | None]) -> tuple[Template, frozenset[str]]:
    """A template that can be run, and the variables that it reads.

    Args:
        source: its text.
        fragments: gives the text of a fragment that it includes, or None where there is none of that name.

    Raises:
        PromptError: it is no template, or says what a prompt may not say.
    """
    try:
        tree = _parsed(source)
        tree = _Including(fragments).visit(tree)
        names = frozenset(find_undeclared_variables(tree)) - environment().globals.keys()
        tree = _Metering().visit(tree)
        return environment().from_string(tree), names
    except PromptError:
        raise
    except TemplateSyntaxError as error:
        raise PromptError(error.message or "no template", line=error.lineno) from error
    except (SyntaxError, RecursionError, MemoryError, ValueError, OverflowError) as error:
        raise PromptError(f"the template is too complicated: {type(error).__name__}: {error}") from error


def included(source: str) -> list[tuple[str, int]]:
    """The fragments that a text includes itself, each with the line where it does.

    Raises:
        PromptError: it is no template.
    """
    try:
        return [(_name(include), include.lineno) for include in _parsed(source).find_all(nodes.Include)]
    except TemplateSyntaxError as error:
        raise PromptError(error.message or "no template", line=error.lineno) from error
    except RecursionError as error:
        raise PromptError(f"the template is too complicated: {error}") from error


def _parsed(source: str) -> nodes.Template:
    if len(source) > _LENGTH:
        raise PromptLimit(f"a template has at most {_LENGTH} characters, this one has {len(source)}")
    tree = environment().parse(source)
    for node in tree.find_all(tuple(_REFUSED)):
        raise PromptError(
            f"{{% {_REFUSED[type(node)]} %}} is no part of the language of prompts; use {{% include 'fragment' %}}",
            line=node.lineno,
        )
    for access in tree.find_all(nodes.Getattr):
        if access.attr.startswith("_"):
            raise PromptError(f"the attribute {access.attr!r} is private", line=access.lineno)
    return tree


def _name(include: nodes.Include) -> str:
    name = include.template
    if not isinstance(name, nodes.Const) or not isinstance(name.value, str):
        raise PromptError("include names a fragment by its name in quotes", line=include.lineno)
    return name.value


class _Including(NodeTransformer):
    """Puts what is included in the place of the include: when the template runs, nothing is looked up any more."""

    def __init__(self, fragments: Callable[[str], str | None]) -> None:
        self._fragments = fragments
        self._inside: list[str] = []
        self._count = 0

    def visit_Include(self, node: nodes.Include) -> Any:
        """Put the fragment in."""
        name = _name(node)
        if name in self._inside:
            path = " → ".join((*self._inside, name))
            raise PromptError(f"the fragments include each other: {path}", line=node.lineno)
        text = self._fragments(name)
        if text is None:
            if node.ignore_missing:
                return None
            raise PromptNotFound(f"there is no fragment {name!r}", line=node.lineno)
        tree = _parsed(text)
        self._count += sum(1 for _ in tree.find_all(nodes.Node))
        if self._count > _NODES:
            raise PromptLimit(f"what is included comes to more than {_NODES} words of the language", line=node.lineno)
        self._inside.append(name)
        body = self.visit(tree).body
        self._inside.pop()
        return nodes.Scope(body, lineno=node.lineno)


class _Metering(NodeTransformer):
    """Has everything that makes or repeats something pay for it."""

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        """Each piece of text is counted."""
        node.nodes = [_filtered(WRITTEN, self.visit(piece)) for piece in node.nodes]
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Const:
        """What stands between the expressions is a constant like any other."""
        return nodes.Const(node.data, lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.For:
        """Each round is counted, those that its condition leaves out too."""
        if node.recursive:
            raise PromptError("a loop cannot be recursive; use a macro", line=node.lineno)
        charge = _charge(node)
        self.generic_visit(node)
        node.iter = _filtered(TAKEN, node.iter)
        node.body.insert(0, nodes.Output([charge], lineno=node.lineno))
        if node.test is not None:
            node.test = nodes.Or(charge, node.test, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        """Each call is counted with what is in it."""
        charge = _charge(node)
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([charge], lineno=node.lineno))
        return node

    visit_CallBlock = visit_Macro

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        """Joined by a function that looks at the length first."""
        self.generic_visit(node)
        return _filtered(CONCAT, nodes.List(node.nodes, lineno=node.lineno))

    def visit_List(self, node: Any) -> Any:
        """What is put into a list or mapping is weighed: shared parts can make it huge."""
        self.generic_visit(node)
        if getattr(node, "ctx", "load") == "store" or _constant(node):
            return node
        return _filtered(MADE, node)

    visit_Tuple = visit_Dict = visit_List

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        """Comparing looks through both."""
        self.generic_visit(node)
        node.expr = _weighed(node.expr)
        for operand in node.ops:
            operand.expr = _weighed(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Getitem:
        """A slice copies, and a key is looked through."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _weighed(node.node)
        else:
            node.arg = _weighed(node.arg)
        return node


def _filtered(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filtered(WEIGHED, node)


def _charge(node: nodes.Node) -> nodes.Filter:
    """Takes off as many units as there are words in a body."""
    return _filtered(CHARGE, nodes.Const(sum(1 for _ in node.find_all(nodes.Node)), lineno=node.lineno))


def _constant(node: nodes.Expr) -> bool:
    return all(isinstance(part, (nodes.Const, *_LITERALS)) for part in node.find_all(nodes.Expr))
