"""Turns the scripts of `docs/guides` into pages and notebooks, executed.

A guide is a Python file in the format of keras.io: first a docstring with a title, an author, dates
and a description; then text in docstrings, and code between them.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import nbclient
import nbconvert
import nbformat

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "guides"
CACHE = ROOT / ".cache" / "guides"
HEADER = ("Title", "Author", "Date created", "Last modified", "Description")
TIMEOUT = 900  # seconds that a cell may take


class Page(NamedTuple):
    """A guide as the site has it.

    Attributes:
        text: The page in Markdown.
        notebook: The executed notebook, as JSON.
        pictures: The pictures of the page, by their file names.
    """

    text: str
    notebook: str
    pictures: dict[str, bytes]


def list_guides() -> list[Path]:
    """Returns the scripts."""
    return sorted(FOLDER.glob("*.py"))


def read_guide(source: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Returns the header of a script and its cells, each of kind "markdown" or "code"."""
    lines = source.splitlines()
    cells, end = [], 0
    node: Any
    for node in ast.parse(source).body:
        text = node.value.value if _is_constant(node) else None
        if isinstance(text, str):
            cells.append(("code", lines[end : node.lineno - 1]))
            cells.append(("markdown", text.splitlines()))
            end = node.end_lineno
    cells.append(("code", lines[end:]))
    texts = [(kind, "\n".join(cell).strip()) for kind, cell in cells]
    header, *rest = [(kind, text) for kind, text in texts if text]
    fields = dict(re.findall(r"^([A-Z][\w ]*): (.+)$", header[1], re.MULTILINE))
    if missing := [name for name in HEADER if name not in fields]:
        raise ValueError(f"A guide must begin with a docstring that has {HEADER}; no {missing}")
    return fields, rest


def make_page(path: Path) -> Page:
    """Executes a guide, unless it and the package are as they were when it last was."""
    kept = CACHE / f"{path.stem}-{_digest(path)}.ipynb"
    fields, cells = read_guide(path.read_text(encoding="utf-8"))
    if kept.exists():
        notebook = nbformat.read(kept, as_version=4)
    else:
        notebook = execute(make_notebook(fields, cells))
        CACHE.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        nbformat.write(notebook, part)
        part.replace(kept)
    return convert(notebook, path.stem)


def make_notebook(fields: dict[str, str], cells: list[tuple[str, str]]) -> Any:
    """Returns the notebook of a guide, which has not been executed."""
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    start = make["markdown"](f"# {fields['Title']}\n\n{fields['Description']}")
    notebook = nbformat.v4.new_notebook(cells=[start, *(make[kind](text) for kind, text in cells)])
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"  # the same at every build
    return notebook


def execute(notebook: Any) -> Any:
    """Runs a notebook in a folder of its own; an error in a cell raises, with its traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(notebook, timeout=TIMEOUT, resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            # Without what libraries log.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def convert(notebook: Any, name: str) -> Page:
    """Returns an executed notebook as a page that links to it."""
    exporter = nbconvert.MarkdownExporter()
    text, resources = exporter.from_notebook_node(notebook, {"unique_key": name})
    links = f"[Notebook]({name}.ipynb) · [Script]({name}.py)"
    head, _, body = text.lstrip().partition("\n\n")
    pictures = resources.get("outputs", {})
    return Page(f"{head}\n\n{links}\n\n{body}", nbformat.writes(notebook), dict(pictures))


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _digest(path: Path) -> str:
    """A number of all that a guide's output depends on."""
    found = hashlib.sha256()
    for source in (path, *sorted((ROOT / "keras_fisher").rglob("*.py"))):
        found.update(source.read_bytes())
    return found.hexdigest()[:16]
