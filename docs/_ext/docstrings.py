"""Makes of our docstrings what Sphinx reads.

Docstrings are written to be read in an editor: names in single backticks, fenced blocks, indented examples, and the
four words of a stage's contract (Emits, Holds, Completes, Fails) at the begin of a line.
"""

from __future__ import annotations

import re
from importlib import import_module
from itertools import groupby
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final

from sphinx.util import inspect as sphinx_inspect
from sphinx.util.nodes import make_refnode

import rxstage
import rxstage.conversation
import rxstage.graph.spec
import rxstage.ports
import rxstage.prompts
import rxstage.providers
import rxstage.testing
import rxstage.tools
import rxstage.validation
import rxstage.wire

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

__all__ = ["converted", "setup"]

_SECTION: Final = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note|Notes|Warning):\s*$")
_CONTRACT: Final = re.compile(r"(Emits|Holds|Completes|Fails): ")
_MARBLES: Final = re.compile(r"\s*([\w ]+\s)?\s*[-^][-\w'|#^(),!]*[-|#>)]\s*$|\s*\[.*\]\s*$")
_TICKS: Final = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_CLASS: Final = re.compile(r"<class '(?:[\w.]+\.)?(\w+)'>")  # a class as a default value
_MODULES: Final = (
    rxstage,
    rxstage.conversation,
    rxstage.graph.spec,
    rxstage.ports,
    rxstage.prompts,
    rxstage.providers,
    rxstage.testing,
    rxstage.tools,
    rxstage.validation,
    rxstage.wire,
)


def converted(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText (and Google style, for napoleon)."""
    result: list[str] = []
    section = False
    lines = [part for line in lines for part in _split_contract(line)]
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if line.lstrip().startswith("```"):
            indent = line[: len(line) - len(line.lstrip())]
            language = line.strip().strip("`") or "text"
            block: list[str] = []
            while position < len(lines) and not lines[position].lstrip().startswith("```"):
                block.append(lines[position][len(indent) :])
                position += 1
            position += 1
            result += [indent + each for each in _block(language, block)]
            continue
        if _SECTION.match(line):
            section = True
        elif line and not line.startswith(" "):
            section = False
        if line.startswith("    ") and not section and (not result or not result[-1].strip()):
            block = [line[4:]]
            while position < len(lines) and (not lines[position].strip() or lines[position].startswith("    ")):
                block.append(lines[position][4:])
                position += 1
            while block and not block[-1].strip():
                block.pop()
            drawn = all(_MARBLES.match(each) for each in block if each.strip())
            result += [*_block("marbles" if drawn else _language(block), block), ""]
            continue
        if _CONTRACT.match(line):
            line = f":{line}"
            if result and result[-1].strip() and not result[-1].startswith((":", " ")):
                result.append("")
        result.append(line if line.startswith("    >>>") else _TICKS.sub(_reference, line))
    return result


def _set_apart(lines: list[str]) -> list[str]:
    """Indent the paragraphs of a module's docstring that are no prose: a piece of YAML, for instance."""
    result: list[str] = []
    for _, group in groupby(lines, key=lambda line: bool(line.strip())):
        paragraph = list(group)
        inside = not paragraph[0].startswith(" ") and any(line.startswith("  ") for line in paragraph)
        result += [f"    {line}" for line in paragraph] if inside else paragraph
    return result


def _split_contract(line: str) -> list[str]:
    if not _CONTRACT.match(line):
        return [line]
    return re.split(r"(?<=\.) (?=(?:Emits|Holds|Completes|Fails): )", line)


def _block(language: str, lines: list[str]) -> list[str]:
    head = ".. marbles::" if language == "marbles" else f".. code-block:: {language}"
    return ["", head, "", *(f"    {line}" if line.strip() else "" for line in lines), ""]


def _language(lines: list[str]) -> str:
    try:
        compile(dedent("\n".join(lines)), "<docstring>", "exec")
    except SyntaxError:
        return "text"
    return "python"


def _reference(match: re.Match[str]) -> str:
    name = match[1]
    for module in _MODULES:
        if name[0].isupper() and name in module.__all__:
            return f":py:obj:`~{module.__name__}.{name}`"
    return f"``{name}``"


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = converted(_set_apart(lines) if what == "module" else lines)
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment: else napoleon takes what stands before a colon for a type


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str] | None:
    """A stage is made as its constructor says, not as the list of its fields says."""
    if what != "class" or not issubclass(obj, rxstage.Stage):
        return (_CLASS.sub(r"\1", signature), returns or "") if signature and _CLASS.search(signature) else None
    own = sphinx_inspect.signature(obj.__init__, bound_method=True)
    return sphinx_inspect.stringify_signature(own, show_return_annotation=False, unqualified_typehints=True), ""


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    return True if name in ("callback", "model_config") else None


def _resolve(app: Sphinx, env: BuildEnvironment, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """A name of ours by the module that defines it: find it where users import it from."""
    if node.get("refdomain") != "py":
        return None
    target = node.get("reftarget", "")
    short = target.rpartition(".")[2]
    if target != short and not target.startswith("rxstage."):
        return None
    objects = env.domains["py"].objects  # type: ignore[attr-defined]
    for module in _MODULES:
        found = objects.get(f"{module.__name__}.{short}")
        if found is not None:
            return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, contnode, short)
    if _is_inner(target) or target.lstrip("~").startswith("_") or "," in target or len(target) == 1:
        return contnode  # inner types, type variables, several names at once: named, not linked
    return None


def _is_inner(target: str) -> bool:
    """Whether it is something that is there, but not public."""
    module, _, name = target.rpartition(".")
    while module.startswith("rxstage"):
        try:
            found: Any = import_module(module)
        except ImportError:
            module, _, outer = module.rpartition(".")
            name = f"{outer}.{name}"
            continue
        for each in name.split("."):
            found = getattr(found, each, None)
        return found is not None
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
