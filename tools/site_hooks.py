"""What mkdocs does beyond its plugins: start pages from the root, and formulas as MathML.

Browsers show MathML by themselves, so the site needs no script for formulas.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
# Pages of the site that are files of the root, which GitHub shows.
FROM_ROOT = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md"}
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</(?:span|div)>', flags=re.DOTALL
)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Returns the text of a page, with links as they are from `docs/`."""
    name = FROM_ROOT.get(page.file.src_uri)
    if name is None:
        return markdown
    text = (ROOT / name).read_text(encoding="utf-8")
    pages = {target: source for source, target in FROM_ROOT.items()}
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\]\((\w+\.md)\)", lambda m: f"]({pages.get(m[1], m[1])})", text)


def on_page_content(html: str, **_: Any) -> str:
    """Returns the content of a page with its formulas as MathML."""
    return FORMULA.sub(write_formula, html)


def write_formula(found: re.Match[str]) -> str:
    kind, formula = found.groups()
    return convert(html.unescape(formula).strip(), display="block" if kind == "div" else "inline")
