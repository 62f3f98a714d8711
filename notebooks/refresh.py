"""Runs the notebooks and writes their outputs: `python notebooks/refresh.py`.

A notebook whose outputs say the same as before keeps them, so that times and ids do not change with every run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import nbformat
from nbclient import NotebookClient

__all__ = ["executed", "main", "said"]

HERE: Final = Path(__file__).resolve().parent
LIMIT: Final = 120  # seconds for one cell
_CHANGING: Final = (
    (re.compile(r"timestamp=[^…:]*…"), "timestamp=…"),  # of an element that is cut off in the middle of it
    (re.compile(r"\b[0-9a-f]{8}-\d+\b"), "ID"),  # of an execution
    (re.compile(r"\b0x[0-9a-f]+\b"), "ADDRESS"),
    (re.compile(r"\b\d+(\.\d+)? (ns|µs|ms|s)\b"), "DURATION"),
    (re.compile(r"\b\d+\.\d+(e-?\d+)?\b"), "NUMBER"),
)


def executed(path: Path) -> Any:
    """The notebook with the outputs of a fresh run.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = _read(path)
    client = NotebookClient(
        notebook, timeout=LIMIT, kernel_name="python3", record_timing=False, resources={"metadata": {"path": HERE}}
    )
    client.execute()
    notebook.metadata.clear()
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """One output for what was printed in a row: how it was cut into pieces is chance."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and last.output_type == output.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def said(notebook: Any) -> list[tuple[str, list[Any]]]:
    """What each cell holds and what it has put out, without what changes from run to run."""
    return [(cell.source, [_said(output) for output in cell.get("outputs", ())]) for cell in notebook.cells]


def _said(output: Any) -> Any:
    if output.output_type == "stream":
        return output.name, _steady(output.text)
    if output.output_type == "error":
        return output.ename, _steady(output.evalue)
    return sorted((kind, _steady(data)) for kind, data in output.data.items())


def _steady(data: Any) -> str:
    text = str(data)
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    return text


def _read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def main() -> None:
    """Refresh all notebooks."""
    for path in sorted(HERE.glob("*.ipynb")):
        new, old = executed(path), _read(path)
        if said(new) == said(old):
            print(f"{path.name}: as it was")
        else:
            nbformat.write(new, path)  # type: ignore[no-untyped-call]
            print(f"{path.name}: written")


if __name__ == "__main__":
    main()
