"""House rules of the documentation: what is public is documented, and what is shown runs.

A fence ```` ```python ```` in a page is run, one after the other in one namespace per page, unless it is marked
```` ```python no-run ````. A fence ```` ```output ```` right behind it says what it prints; `…` stands for anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import types
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
LIMIT: Final = 120.0  # seconds for one page
MODULES: Final = (
    "rxstage",
    "rxstage.conversation",
    "rxstage.graph.spec",
    "rxstage.ports",
    "rxstage.prompts",
    "rxstage.providers",
    "rxstage.testing",
    "rxstage.tools",
    "rxstage.validation",
    "rxstage.wire",
)
CONTRACT: Final = ("emits", "holds", "completes", "fails")


class Block(NamedTuple):
    """One fence of a page: its info string, its lines, and the number of its first line."""

    info: str
    text: str
    line: int

    @property
    def runs(self) -> bool:
        """Whether it is Python that has to run."""
        words = self.info.split()
        return words[:1] == ["python"] and "no-run" not in words


def pages() -> list[Path]:
    """The pages of the documentation that people wrote, and the README."""
    found = [path for path in DOCS.rglob("*.md") if not {"_build", "notebooks"} & set(path.parts)]
    return [ROOT / "README.md", *sorted(found)]


def blocks_of(page: Path) -> list[Block]:
    """The fences of a page."""
    blocks: list[Block] = []
    fence, info, begin, lines = "", "", 0, [""]
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        opening = re.match(r"(`{3,}|:{3,})(.*)$", line)
        if not fence and opening is not None and opening[1].startswith("`"):
            fence, info, begin, lines = opening[1], opening[2].strip(), number + 1, []
        elif fence and line.rstrip() == fence:
            blocks.append(Block(info, "\n".join(lines), begin))
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, f"{page.name}: the fence before line {begin} is not closed"
    return blocks


def matches(expected: str, printed: str) -> bool:
    """Whether a block printed what its page says."""
    wanted, got = ("\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (expected, printed))
    return re.fullmatch(".*?".join(map(re.escape, wanted.split("…"))), got, re.DOTALL) is not None


def run_page(page: Path) -> list[str]:
    """Run the blocks of a page; gives what each that runs has printed.

    Raises:
        AssertionError: one printed something else than the page says.
    """
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    blocks = blocks_of(page)
    outputs: list[str] = []
    for block, following in zip(blocks, [*blocks[1:], Block("", "", 0)], strict=True):
        if not block.runs:
            continue
        source = "\n" * (block.line - 1) + block.text  # so that a traceback names the line of the page
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(source, str(page), "exec"), module.__dict__)
        outputs.append(printed.getvalue())
        if following.info == "output":
            assert matches(following.text, outputs[-1]), (
                f"{page.name}, line {following.line}: the page says\n{following.text}\nbut it printed\n{outputs[-1]}"
            )
    return outputs


RUNNABLE: Final = [page for page in pages() if page.exists() and any(block.runs for block in blocks_of(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_python_of_a_page_runs(page: Path) -> None:
    """Every Python block of a page runs, without a warning, and prints what the page says."""
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(page)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def test_there_are_pages_with_code() -> None:
    """The tutorial, each guide and each stage page shows code that runs."""
    runnable = set(RUNNABLE)
    silent = [
        page.name
        for folder in ("guides", "stages")
        for page in (DOCS / folder).glob("*.md")
        if page.name != "index.md" and page not in runnable
    ]
    assert silent == []
    assert DOCS / "tutorial.md" in runnable


def test_every_stage_has_a_page() -> None:
    """Every stage class that is exported has a heading of its own on a page under `docs/stages`."""
    import rxstage

    stages = [
        name
        for name in rxstage.__all__
        if isinstance(getattr(rxstage, name), type) and issubclass(getattr(rxstage, name), rxstage.Stage)
    ]
    headings = "\n".join(
        line
        for page in (DOCS / "stages").glob("*.md")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    )
    missing = [name for name in stages if not re.search(rf"`{name}`", headings)]
    assert "MapStage" in stages
    assert missing == []


@pytest.mark.parametrize(
    "page",
    [page for page in sorted((DOCS / "stages").glob("*.md")) if page.name != "index.md"],
    ids=lambda page: page.stem,
)
def test_a_stage_page_states_the_contract(page: Path) -> None:
    """Each stage page shows a signature and a marble diagram and says when it emits, holds, completes and fails."""
    text = page.read_text(encoding="utf-8")
    said = [word for word in CONTRACT if f"**{word}**" in text]
    infos = [block.info for block in blocks_of(page)]
    assert said == list(CONTRACT)
    assert "{marbles}" in infos
    assert "python no-run" in infos


def test_every_stage_page_is_listed() -> None:
    """Each page under `docs/stages` stands in the table of the index."""
    index = (DOCS / "stages" / "index.md").read_text(encoding="utf-8")
    pages_there = {page.stem for page in (DOCS / "stages").glob("*.md")} - {"index"}
    assert {name for name in pages_there if f"({name}.md)" not in index} == set()


def documented_as(module: str) -> list[str]:
    """The public names of a module, each as the reference has it: what `rxstage` exports too stands there once."""
    import rxstage

    names = import_module(module).__all__
    return [f"rxstage.{name}" if name in rxstage.__all__ else f"{module}.{name}" for name in names]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """Each name in `__all__` is documented: by a directive of its own, or with its whole module."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    whole = set(re.findall(r"^\.\. automodule:: ([\w.]+)$", text, re.MULTILINE))
    single = set(re.findall(r"^\.\. auto(?:class|exception|function|data):: ([\w.]+)$", text, re.MULTILINE))
    names = documented_as(module)
    missing = [name for name in names if name not in single and name.rpartition(".")[0] not in whole]
    assert len(names) > 3
    assert missing == []


def test_the_reference_names_nothing_that_is_gone() -> None:
    """Each directive of the reference names something that is public."""
    import rxstage

    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    names = re.findall(r"^\.\. auto(?:class|exception|function|data):: rxstage\.(\w+)$", text, re.MULTILINE)
    assert len(names) == len(set(names)) > 50
    assert [name for name in names if name not in rxstage.__all__] == []


def test_the_design_pages_name_what_is_there() -> None:
    """Files that the design pages name exist."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "design").glob("*.md"))
    files = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(files) > 10
    assert {name for name in files if not (ROOT / "rxstage" / name).is_file()} == set()


def test_the_pages_build(tmp_path: Path) -> None:
    """Sphinx builds all pages without a warning, every reference in them resolves, and nothing is fetched."""
    missing = [name for name in ("sphinx", "furo", "myst_nb", "typer") if find_spec(name) is None]
    if missing:
        why = f"building the docs needs {', '.join(missing)}: pip install -e '.[dev]'"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * LIMIT, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "notebooks" / "01_first_pipeline.html").is_file()
    reference = "".join(page.read_text(encoding="utf-8") for page in (tmp_path / "html" / "reference").glob("*.html"))
    names = {name for module in MODULES for name in documented_as(module)}
    assert [name for name in sorted(names) if reference.count(f'id="{name}"') != 1] == []
    drawn = (tmp_path / "html" / "stages" / "map.html").read_text(encoding="utf-8")
    assert '<svg xmlns="http://www.w3.org/2000/svg" class="marbles"' in drawn


def test_a_wrong_output_is_noticed() -> None:
    """The comparison of outputs is strict but for trailing blanks and what `…` stands for."""
    assert matches("a  \nb", "a\nb\n")
    assert matches("took … ms", "took 1.5 ms")
    assert not matches("a", "a\nb")
    assert not matches("a.c", "abc")


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
