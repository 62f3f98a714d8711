"""What `rxstage demo` does with text: the parts of a document, its links and its words."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import tomllib
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from rxstage.builder import PipelineBuilder
from rxstage.cli.command import plural
from rxstage.config import PipelineConfig
from rxstage.content import Text
from rxstage.element import StreamElement
from rxstage.pipeline import Pipeline
from rxstage.stage import StageType
from rxstage.stages.basic import FlatMapStage, MapStage, PassthroughStage, StageFunc

__all__ = ["Code", "Heading", "Prose", "Table", "text_pipeline"]

_LONGEST: Final = 500  # lines that a block holds at most; what goes on is the next one
_VOCABULARY: Final = 20_000  # different words that are counted; past it, those seen once are forgotten
_FENCE: Final = re.compile(r"\s*(```+|~~~+)\s*(\w*)")
_HEADING: Final = re.compile(r"(#{1,6})\s+(.*?)\s*#*$")
_LINK: Final = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)[^)]*\)|(https?://[^\s)>\]\"'`]*[^\s)>\]\"'`.,;:!?])")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SENTENCE: Final = re.compile(r"[.!?…](?=[\s\"')\]]|$)")
_READ_ALOUD: Final = 200  # words that people read in a minute


class Heading(Struct, frozen=True):
    """A heading of a level from 1 to 6."""

    level: int
    title: str


class Code(Struct, frozen=True):
    """A fenced block of code, without its fences."""

    language: str
    lines: tuple[str, ...]


class Table(Struct, frozen=True):
    """Rows between pipes, the header and the rule below it among them."""

    lines: tuple[str, ...]


class Prose(Struct, frozen=True):
    """A paragraph, or a list: lines up to an empty one."""

    lines: tuple[str, ...]


def text_pipeline(config: PipelineConfig, base: Path | None = None) -> Pipeline:
    """Lines of text in, one line about each thing that is found out; its `sequence` is the number of the line.

        lines ─┬─> blocks ──route──> heading | code | table | prose ─┐
               ├─> links ──> look_up ────────────────────────────────┼─> findings
               └─> words ──> vocabulary ─────────────────────────────┘

    Args:
        config: configuration of the pipeline.
        base: directory that relative links refer to; without one they are not looked up.
    """
    return (
        PipelineBuilder(config, name="text")
        .add(PassthroughStage("lines"), PassthroughStage("findings"))
        .branch(
            "lines",
            StageFunc("blocks", StageType.ACCUMULATE, _blocks, accepts=Text),
            FlatMapStage("links", _links, on=Text),
            FlatMapStage("words", _WORD.findall, on=Text),
        )
        .route(
            "blocks",
            (Heading, MapStage("heading", _heading, on=Heading)),
            (Code, MapStage("code", _code, on=Code)),
            (Table, MapStage("table", _table, on=Table)),
            otherwise=MapStage("prose", _prose, on=Prose),
        )
        .chain("links", MapStage("look_up", _look_up(base), on=Text, concurrency=4))
        .chain("words", StageFunc("vocabulary", StageType.ACCUMULATE, _vocabulary, accepts=Text))
        .merge("heading", "code", "table", "prose", "look_up", "vocabulary", into="findings")
        .build()
    )


# ------------------------------------------------------------------------------------------ blocks


async def _blocks(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    """Gather lines to headings, code, tables and paragraphs; each carries the number of its first line."""
    first: StreamElement | None = None
    lines: list[str] = []
    fence = language = ""

    def block() -> StreamElement:
        assert first is not None
        rows = tuple(lines)
        if fence:
            return first.replace(content=Code(language, rows))
        return first.replace(content=Table(rows) if all("|" in row for row in rows) and len(rows) > 1 else Prose(rows))

    async for element in elements:
        line = element.text
        if line is None:
            continue
        mark = _FENCE.match(line)
        title = None if fence else _HEADING.match(line)
        ends = mark is not None and mark[1].startswith(fence) and not mark[2] if fence else not line.strip()
        if lines and (ends or len(lines) == _LONGEST or (not fence and (mark or title))):
            yield block()
            first, lines = None, []
        if ends:
            first, fence = None, ""
        elif title:
            yield element.replace(content=Heading(len(title[1]), title[2]))
        elif mark is not None and not fence:
            first, fence, language = element, mark[1], mark[2].lower()
        else:
            first = first or element
            lines.append(line)
    if first is not None and lines:
        yield block()


def _heading(heading: Heading) -> str:
    return f"{'  ' * (heading.level - 1)}{heading.title}"


def _table(table: Table) -> str:
    rows = [row.strip().strip("|").split("|") for row in table.lines]
    header = ", ".join(cell.strip() for cell in rows[0])
    body = [row for row in rows[1:] if set("".join(row)) - set(" -:")]
    return f"{plural(len(body), 'row')} of {len(rows[0])}: {header}"


def _prose(prose: Prose) -> str:
    text = _LINK.sub(_spoken, " ".join(line.strip() for line in prose.lines))
    words = _WORD.findall(text)
    if not words:
        return f"{plural(len(text), 'character')} without a word"
    sentences = len(_SENTENCE.findall(text)) or 1
    longest = max(words, key=len)
    aloud = len(words) / _READ_ALOUD * 60
    return (
        f"{plural(len(words), 'word')} in {plural(sentences, 'sentence')}, {aloud:.0f} s to read, "
        f"longest word {longest!r}"
    )


def _spoken(link: re.Match[str]) -> str:
    """What one reads of a link: its text, not where it leads."""
    return link[0][1 : link[0].index("]")] if link[1] else ""


# ------------------------------------------------------------------------------------------ code


def _python(text: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    names = sum(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) for node in ast.walk(tree))
    imports = sum(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(tree))
    return f"{plural(len(tree.body), 'statement')}, {plural(imports, 'import')}, {plural(names, 'definition')}"


def _json(text: str) -> str:
    return f"one {type(json.loads(text)).__name__}"


def _toml(text: str) -> str:
    return plural(len(tomllib.loads(text)), "key")


_READERS: Final[dict[str, Callable[[str], str]]] = {
    "python": _python, "py": _python, "json": _json, "toml": _toml,
}  # fmt: skip


def _read(language: str, text: str) -> str:
    reader = _READERS.get(language)
    if reader is None:
        return plural(len(text), "character")
    try:
        return f"it parses: {reader(text)}"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"it does not parse: {error}"


async def _code(code: Code) -> str:
    """Parse the code on a thread: a long block must not hold up the rest."""
    told = await asyncio.to_thread(_read, code.language, "\n".join(code.lines))
    return f"{plural(len(code.lines), 'line')} of {code.language or 'something'}, {told}"


# ------------------------------------------------------------------------------------------ links, words


def _links(line: str) -> Iterator[str]:
    for match in _LINK.finditer(line):
        yield match[1] or match[2]


def _look_up(base: Path | None) -> Callable[[str], Any]:
    async def look_up(target: str) -> str:
        if re.match(r"[a-z][a-z0-9+.-]*:", target, re.IGNORECASE):
            return f"{target}: elsewhere"
        if target.startswith("#"):
            return f"{target}: in this document"
        if base is None:
            return f"{target}: not looked up"
        path = base / target.partition("#")[0]
        return f"{target}: {'found' if await asyncio.to_thread(_exists, path) else 'MISSING'}"

    return look_up


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no name that a file could have
        return False


async def _vocabulary(elements: AsyncIterator[StreamElement]) -> AsyncIterator[StreamElement]:
    """Count words to the end; bounded, whatever comes."""
    counts: Counter[str] = Counter()
    last: StreamElement | None = None
    total = 0
    async for element in elements:
        if element.text is not None:
            last = element
            total += 1
            counts[element.text.lower()] += 1
            if len(counts) > _VOCABULARY:
                counts = Counter({word: count for word, count in counts.items() if count > 1})
    if last is not None:
        often = [f"{word} {count}" for word, count in counts.most_common() if len(word) > 3][:5]
        told = f"{plural(total, 'word')}, {len(counts):,} different; most often: {', '.join(often) or 'none'}"
        yield last.replace(content=told, source="vocabulary")
