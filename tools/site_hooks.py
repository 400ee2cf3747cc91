"""What mkdocs does beyond its plugins: start pages from the root, guides, and formulas as MathML.

Browsers show MathML by themselves, so the site needs no script for formulas.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import guides
from latex2mathml.converter import convert
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Pages of the site that are files of the root, which GitHub shows.
FROM_ROOT = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md"}
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</(?:span|div)>', flags=re.DOTALL
)

logger = get_plugin_logger("guides")


def on_files(files: Any, config: Any) -> Any:
    """Adds the page, the notebook and the pictures of each guide, which it executes."""
    paths = guides.list_guides()
    for number, path in enumerate(paths, start=1):
        logger.info("%d of %d: %s", number, len(paths), path.stem)
        page = guides.make_page(path)
        made: dict[str, Any] = {
            f"{path.stem}.md": page.text,
            f"{path.stem}.ipynb": page.notebook,
            **page.pictures,
        }
        for name, content in made.items():
            files.append(File.generated(config, f"guides/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Returns the text of a page, with links as they are from `docs/`, and to guides as pages."""
    name = FROM_ROOT.get(page.file.src_uri)
    if name is not None:
        markdown = (ROOT / name).read_text(encoding="utf-8")
        pages = {target: source for source, target in FROM_ROOT.items()}
        markdown = re.sub(r"\]\(docs/", "](", markdown)
        markdown = re.sub(r"\]\((\w+\.md)\)", lambda m: f"]({pages.get(m[1], m[1])})", markdown)
    if page.file.src_uri.startswith("guides/"):  # guides link to each other as scripts
        markdown = re.sub(r"(?<!\[Script)\]\((\w+)\.py", r"](\1.md", markdown)
    return re.sub(r"\]\((guides/\w+)\.py", r"](\1.md", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Returns the content of a page with its formulas as MathML."""
    return FORMULA.sub(write_formula, html)


def write_formula(found: re.Match[str]) -> str:
    kind, formula = found.groups()
    return convert(html.unescape(formula).strip(), display="block" if kind == "div" else "inline")
