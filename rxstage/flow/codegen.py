"""The source of a fused run of callbacks, one step a callback.

    def push(e0):
        nonlocal n
        n += 1
        try:
            e1 = f0(e0)
            if e1.__class__ is not ELEMENT:     # a payload, a control, or None
                ...
            e2 = f1(e1)
            ...
        except CAUGHT as error:                 # the line of the traceback tells which step raised
            ...
        emit(e2)

`drain` is the same in a loop over a source, for runs that nothing stands in front of: it stamps what it pulls.
The source depends only on the shape of a run, so runs of one shape share one code object.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from msgspec.structs import replace as _replace

from rxstage.content import Text
from rxstage.element import StreamElement, stamped
from rxstage.flow.callback import CAUGHT
from rxstage.flow.meter import FIRST_TIMED, TIMED_EVERY
from rxstage.flow.scope import DROP

__all__ = ["MORE", "Lines", "Shape", "factory_of"]

Shape: TypeAlias = tuple[tuple[str, str], ...]
"""Of each step, what its result means and what it is called with."""

Lines: TypeAlias = dict[int, tuple[int, str]]
"""Which step a line of the source belongs to, and the variable that holds the step's element."""

MORE: Final = object()
"""What `drain` gives when it has stopped because something else wants attention."""

_TESTS: Final = {"one": "is", "some": "in", "text": "is", "value": "is", "content": "is"}
_ARGUMENTS: Final = {"text": "c.text", "value": "c.value", "content": "c"}


@functools.lru_cache(maxsize=512)
def factory_of(shape: Shape, emits: bool, metered: bool) -> tuple[Callable[..., Any], Lines]:
    """Compile the functions of a shape.

    Args:
        shape: the steps.
        emits: hand the element on with `emit`, or else return it (None where it has left the run).
        metered: give sampled elements to the function `sampled` instead.

    Returns:
        The factory, which binds a run's functions and gives `(push, drain, count)`, and its lines.
    """
    names = ", ".join(f"f{i}=f{i}" for i in range(len(shape)))  # defaults are locals, the cheapest names there are
    text = [
        "def factory(functions, names, kinds, lines, fix, leave, failed, emit, sampled):",
        *(f"    f{i}, s{i}, k{i} = functions[{i}], names[{i}], kinds[{i}]" for i in range(len(shape))),
        "    n = aside = 0",
        f"    def push(e0, ELEMENT=ELEMENT, emit=emit, {names}):",
        "        nonlocal n",
        "        n += 1",
    ]
    lines: Lines = {}
    if metered:
        text.append(f"        if n <= {FIRST_TIMED} or not n % {TIMED_EVERY}: return sampled(e0)")
    _body(text, lines, shape, "        ", lambda step, what: f"return leave({step}, {what})")
    text.append(f"        emit({_last(shape)})" if emits else f"        return {_last(shape)}")
    text += [
        f"    def drain(items, admit, clock, inbox, ELEMENT=ELEMENT, emit=emit, replace=replace, {names}):",
        "        nonlocal n, aside",
        "        for e0 in items:",
        "            n += 1",
        "            if e0.__class__ is ELEMENT: e0 = replace(e0, sequence=n, timestamp=clock())",
        "            else:",
        "                e0 = stamped(e0, n, clock())",
        "                if e0.__class__ is not ELEMENT:",
        "                    aside += 1",
        "                    admit(e0)",
        "                    if inbox: return MORE",
        "                    continue",
    ]
    if metered:
        text += [
            f"            if n <= {FIRST_TIMED} or not n % {TIMED_EVERY}:",
            "                sampled(e0)",
            "                if inbox: return MORE",
            "                continue",
        ]
    _body(text, lines, shape, " " * 12, lambda step, what: f"leave({step}, {what}); IF_INBOX")
    text += [
        f"            emit({_last(shape)})" if emits else "            pass",
        "            if inbox: return MORE",
        "    def count(): return n - aside",
        "    return push, drain, count",
    ]
    scope: dict[str, Any] = {
        "CAUGHT": CAUGHT,
        "DROP": DROP,
        "ELEMENT": StreamElement,
        "MORE": MORE,
        "Text": Text,
        "replace": _replace,
        "stamped": stamped,
    }
    exec(compile("\n".join(text), "<rxstage fused stages>", "exec"), scope)
    return scope["factory"], lines


def _last(shape: Shape) -> str:
    """The variable that holds the element after all steps."""
    return f"e{max((i + 1 for i, (kind, _) in enumerate(shape) if kind in ('map', 'call')), default=0)}"


def _body(text: list[str], lines: Lines, shape: Shape, indent: str, leave: Callable[[int, str], str]) -> None:
    """Append the steps, in a `try` that knows which of them raised."""
    now = "e0"  # the variable that holds the moving element

    def add(depth: int, line: str, step: int | None = None) -> None:
        pad = indent + "    " * (depth + 1)
        if line.endswith("; IF_INBOX"):
            text.append(pad + line.removesuffix("; IF_INBOX"))
            text.append(pad + "if inbox: return MORE")
            text.append(pad + "continue")
        else:
            text.append(pad + line)
        if step is not None:
            lines[len(text)] = (step, now)

    text.append(f"{indent}try:")
    for i, (kind, form) in enumerate(shape):
        if kind == "pass":
            continue
        argument = _ARGUMENTS.get(form, now)
        after = f"e{i + 1}"
        depth = 0
        if form != "any":
            add(0, f"c = {now}.content")
            add(0, f"if c.__class__ {_TESTS[form]} k{i}:")
            depth = 1
        if kind in ("map", "call"):
            add(depth, f"{after} = f{i}({argument})", i)
            if form == "text":
                add(depth, f"if {after}.__class__ is str:")
                add(depth, f"    {after} = replace({now}, content=Text({after}), source=s{i})", i)
                add(depth, f"elif {after}.__class__ is not ELEMENT:")
            else:
                add(depth, f"if {after}.__class__ is not ELEMENT:")
            if kind == "map":
                add(depth + 1, f"{after} = fix({i}, {now}, {after})", i)
                add(depth + 1, f"if {after}.__class__ is not ELEMENT:")
                add(depth + 2, leave(i, after))
            else:
                add(depth + 1, leave(i, after))
            if form != "any":
                add(0, "else:")
                add(1, f"{after} = {now}")
            now = after
        elif kind == "filter":
            add(depth, f"if not f{i}({argument}):", i)
            add(depth + 1, leave(i, "DROP"))
        else:
            add(depth, f"f{i}({argument})", i)
            add(0, leave(i, "DROP"))
            break  # nothing but controls goes on behind a sink
    text += [
        f"{indent}    pass",
        f"{indent}except CAUGHT as error:",
        f"{indent}    step = lines.get(error.__traceback__.tb_lineno)",
        f"{indent}    if step is None: raise",
        f"{indent}    failed(step[0], locals()[step[1]], error)",
    ]
