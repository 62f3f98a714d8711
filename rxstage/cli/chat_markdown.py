"""Markdown that is still being written: what is complete is cut off for good, only the rest is looked at again."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any, ClassVar, Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from msgspec import Struct
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, HorizontalRule, ListElement, Markdown
from rich.rule import Rule
from rich.syntax import Syntax

__all__ = ["Block", "Blocks"]

_LONGEST: Final = 4000  # characters that a block may have before it is cut
_SHORT: Final = 40  # characters of what has to be said again at the head of its rest


class Block(Struct, frozen=True):
    """A block of Markdown.

    Attributes:
        source: its text.
        joined: whether it goes on with what stood before, as the next item of a list does; else there is a blank line
            between them.
        drawn: it, for rich to draw.
    """

    source: str
    joined: bool
    drawn: Markdown


class Blocks:
    """Takes Markdown piece by piece and gives it block by block: paragraphs, items of lists, tables, code.

    Holds the block that is still open, of 4,000 characters at most once `take` was called: a longer one is cut.
    """

    __slots__ = ("_joined", "_links", "_parser", "_pieces", "_rest")

    def __init__(self) -> None:
        # HTML is shown as it was written: nobody here could draw it.
        self._parser = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")
        self._links: dict[str, Any] = {}  # the definitions in what is complete
        self._pieces: list[str] = []
        self._rest = ""
        self._joined = False

    def feed(self, text: str) -> None:
        """Take the next piece."""
        self._pieces.append(text)

    def take(self) -> list[Block]:
        """The blocks that are complete: what may still come changes nothing in them."""
        if not self._pieces:
            return []
        self._rest += "".join(self._pieces)
        self._pieces.clear()
        return list(self._cut())

    def open(self) -> Block:
        """The block that is not complete yet, as it is now."""
        return Block(self._rest, self._joined, _markdown(self._parse(self._rest)))

    def finish(self) -> list[Block]:
        """The blocks that are left, at the end of the text."""
        blocks = self.take()
        if self._rest.strip():
            blocks.append(self.open())
        self._rest, self._joined = "", False
        return blocks

    def _parse(self, text: str) -> list[Token]:
        return self._parser.parse(text, {"references": dict(self._links)})

    def _complete(self, source: str) -> Block:
        env: dict[str, Any] = {"references": self._links}
        return Block(source, self._joined, _markdown(self._parser.parse(source, env)))

    def _cut(self) -> Iterator[Block]:
        tokens = self._parse(self._rest)
        lines = _lines(self._rest)
        begin = 0
        for line, joined in _borders(tokens):
            yield self._complete("".join(lines[begin:line]))
            begin, self._joined = line, joined
        self._rest = "".join(lines[begin:]).removesuffix("\n")
        last = next((token for token in reversed(tokens) if token.level == 0 and token.map), None)
        while len(self._rest.rstrip()) > _LONGEST:
            source, self._rest = _halves(self._rest, last)
            yield self._complete(source)
            self._joined = True


def _borders(tokens: list[Token]) -> list[tuple[int, bool]]:
    """The lines at which blocks begin, the first block's left out; with each, whether it is the next item of a list."""
    borders: list[tuple[int, bool]] = []
    for token in tokens:
        if token.map and token.nesting >= 0:
            if token.level == 0:
                borders.append((token.map[0], False))
            elif token.level == 1 and token.type == "list_item_open" and token.map[0] > borders[-1][0]:
                borders.append((token.map[0], True))
    return borders[1:]


def _halves(text: str, last: Token | None) -> tuple[str, str]:
    """Cut a block that is too long, at the end of a line if there is one, so that its rest is of the same kind."""
    at = text.rfind("\n", _LONGEST // 2, _LONGEST) + 1 or text.rfind(" ", _LONGEST // 2, _LONGEST) + 1 or _LONGEST
    first, rest = text[:at], text[at:]
    if last is not None and last.type == "fence":
        return f"{first.rstrip()}\n{last.markup}\n", f"{last.markup[:_SHORT]}{last.info[:_SHORT]}\n{rest}"
    if last is not None and last.type == "table_open":
        head = "".join(_lines(text)[:2])
        return first, head + rest if len(head) < _LONGEST // 4 else rest
    return first, rest


def _lines(text: str) -> list[str]:
    """Lines as the parser counts them: only a line feed ends one."""
    return [f"{line}\n" for line in text.split("\n")]


# ------------------------------------------------------------------------------------------ how it looks


class _Code(CodeBlock):
    """Code in the terminal's own colours, without a frame: it can be copied, and goes on where it was cut."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(
            code, self.lexer_name, theme="ansi_dark", background_color="default", word_wrap=True, padding=(0, 2)
        )


class _List(ListElement):
    """A list whose numbers stand below each other though each item is rendered by itself."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.list_type == "bullet_list_open":
            yield from super().__rich_console__(console, options)
            return
        first = 1 if self.list_start is None else self.list_start
        for number, item in enumerate(self.items, first):
            yield from item.render_number(console, options, number, max(first + len(self.items), 10))


class _Heading(Heading):
    LEVEL_ALIGN: ClassVar[Any] = {}  # all to the left


class _Rule(HorizontalRule):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Rule(style=console.get_style("markdown.hr", default="none"))


class _Markdown(Markdown):
    elements: ClassVar[Any] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
        "bullet_list_open": _List,
        "ordered_list_open": _List,
        "hr": _Rule,
    }


_TEMPLATE: Final = _Markdown("", hyperlinks=False)  # a link tells where it leads: what is behind it cannot be seen


def _markdown(tokens: list[Token]) -> Markdown:
    """Parsed text for rich to draw; made from a copy, since rich makes a parser of its own for each."""
    for token in tokens:
        for child in token.children or ():
            if child.type == "softbreak":  # models break lines where they mean it: verses, addresses
                child.type = "hardbreak"
            elif child.type == "image":
                shown = f"{child.content} ({child.attrs.get('src', '')})"
                child.type, child.tag, child.children, child.content = "text", "", None, shown
    drawn = copy(_TEMPLATE)
    drawn.parsed = tokens
    return drawn
