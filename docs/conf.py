"""How the documentation is built: Sphinx, furo, myst-nb. Nothing is fetched while it is built."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import rxstage

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))


def _bring_notebooks() -> None:
    """Copy the notebooks into the source tree: Sphinx reads nothing outside of it."""
    here = HERE / "notebooks"
    here.mkdir(exist_ok=True)
    wanted = {path.name: path for path in (HERE.parent / "notebooks").glob("*.ipynb")}
    for stale in here.glob("*.ipynb"):
        if stale.name not in wanted:
            stale.unlink()
    for name, path in wanted.items():
        copy = here / name
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)


_bring_notebooks()

project = "rxstage"
author = "the rxstage authors"
project_copyright = author
release = version = rxstage.__version__

extensions = [
    "sphinx.ext.autodoc",
    "docstrings",  # before napoleon: it makes of our docstrings what napoleon understands
    "sphinx.ext.napoleon",
    "myst_nb",
    "marbles",
    "commandline",
]
exclude_patterns = ["_build", "_ext", "jupyter_execute"]

# ---- pages
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are committed with their outputs; a test runs them
nb_merge_streams = True
suppress_warnings = ["mystnb.unknown_mime_type"]  # a pipeline shows itself as Mermaid, too, where that is understood

# ---- docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# ---- references: everything of ours must resolve; other projects are named, not linked
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(asyncio|collections|concurrent|contextlib|contextvars|numbers|os|pathlib|ssl|types|typing)\..*"),
    ("py:.*", r"(annotated_types|msgspec|numpy|np|PIL|pydantic|pydantic_core|reactivex|rich|loguru)\..*"),
    ("py:.*", r"(aiosqlite|anthropic|asyncpg|google|jinja2|mcp|openai|pydantic_ai|redis|websockets)\..*"),
    ("py:exc", "ArgumentsError"),  # a ValueError whose message is for the model
    ("py:class", r"tuple\[~.*"),  # pydantic writes the types of its fields in a form of its own
    ("py:class", r"(CoreSchema|Executor|NDArray|Observable|PilImage)"),  # imported for type checkers only
]

# ---- pictures and pages
html_theme = "furo"
html_title = f"rxstage {release}"
html_static_path = ["_static"]
html_css_files = ["rxstage.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
