"""The `marbles` directive: marble text as an inline picture.

    ```{marbles}
    --a--b--|
    [ upper ]
    --A--B--|
    ```

The picture is made by `rxstage.testing.marbles.marbles_svg`, so that docs, test kit and notebooks draw alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from rxstage.testing.marbles import marbles_svg

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["Marbles", "setup"]


class Marbles(SphinxDirective):
    """Lines of marble text, or of text in square brackets for an operator."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        try:
            svg = marbles_svg(text)
        except ValueError as error:
            raise self.error(f"marbles: {error}") from error
        return [nodes.raw("", svg, format="html"), _Text(text, text)]


class _Text(nodes.literal_block):
    """The same for builders that show no pictures."""


def _skip(self: Any, node: nodes.Node) -> None:
    raise nodes.SkipNode


def _visit(self: Any, node: nodes.Node) -> None:
    self.visit_literal_block(node)


def _depart(self: Any, node: nodes.Node) -> None:
    self.depart_literal_block(node)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("marbles", Marbles)
    app.add_node(_Text, html=(_skip, None), latex=(_visit, _depart), text=(_visit, _depart), man=(_visit, _depart))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
