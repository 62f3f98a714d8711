"""Text that comes from elsewhere, made fit for a terminal."""

from __future__ import annotations

from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from rxstage.content import ToolCall

__all__ = ["called", "clean", "one_line"]

# Escape sequences move the cursor, set the title, fill the clipboard; the marks of direction reorder what one reads.
_DIRECTION: Final = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_FORBIDDEN: Final = {
    **dict.fromkeys((*range(32), *range(127, 160), *_DIRECTION), "\ufffd"),
    ord("\n"): "\n",
    ord("\t"): "\t",
    ord("\r"): None,
}


def clean(text: str) -> str:
    """Text without control characters but tabs and line feeds, and without surrogates."""
    text = text.translate(_FORBIDDEN)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def one_line(value: Any, width: int) -> str:
    """A value in one line of at most `width` columns."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(clean(text[: 4 * width]).split())
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(width - 1, 0)).rstrip()}…"


def called(call: ToolCall) -> str:
    """A tool call as one writes it: `now(timezone='Europe/Berlin')`."""
    return f"{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"
