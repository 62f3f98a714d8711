"""The `commandline` directive: what `rxstage COMMAND --help` says, for every command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["CommandLine", "setup"]

_WIDTH: Final = 92


class CommandLine(SphinxDirective):
    """A section per command."""

    def run(self) -> list[nodes.Node]:
        from typer.main import get_command

        from rxstage.cli.app import app

        group: Any = get_command(app)
        return [_section(self, name, command) for name, command in group.commands.items()]


def _section(directive: SphinxDirective, name: str, command: Any) -> nodes.section:
    path = f"rxstage {name}"
    context = command.context_class(command, info_name=path, terminal_width=_WIDTH, max_content_width=_WIDTH)
    section = nodes.section(ids=[nodes.make_id(path)], names=[path])
    section += nodes.title("", "", nodes.literal(path, path))
    text = command.get_help(context)
    section += nodes.literal_block(text, text, language="text")
    directive.state.document.note_implicit_target(section)
    return section


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("commandline", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
