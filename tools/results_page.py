"""Rewrites the tables and pictures of docs/results.md from the archives in docs/results/data.

    python tools/results_page.py

A section of the page has its table between two comments with the name of its recipe:

    <!-- begin suboptimal_lr -->
    <!-- end suboptimal_lr -->

The section `costs` has the cost of the paper presets.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from experiment.files import write_text
from experiment.folders import NAMES
from experiment.plan.cost import COLUMNS, sum_costs, write_cells
from experiment.plan.recipe import Recipe
from experiment.results.finished_runs import ARCHIVE, Result, make_frame, read
from experiment.results.tables import write_markdown

FOLDER = Path(__file__).parents[1] / "docs" / "results"
PAGE = FOLDER.with_suffix(".md")
COSTS = "costs"


def main() -> None:
    """Writes the page and its pictures."""
    page = PAGE.read_text(encoding="utf-8")
    for path in list_archives():
        recipe, runs = load_recipe(path.stem), read([path])
        recipe.figure(make_frame(runs), FOLDER / f"{recipe.name}.png")
        page = replace_section(page, recipe.name, write_section(recipe, runs))
    page = replace_section(page, COSTS, write_costs())
    write_text(PAGE, page)


def list_archives() -> list[Path]:
    """The archives that the page is made from."""
    return sorted((FOLDER / "data").glob(f"*{ARCHIVE}"))


def load_recipe(name: str) -> Recipe:
    """The recipe of a script, and of the archive of the same name."""
    return importlib.import_module(name).RECIPE


def write_section(recipe: Recipe, runs: Sequence[Result]) -> str:
    """What the page has of a recipe: how much was run, the table and the picture."""
    minutes = sum(run["seconds"] for run in runs) / 60
    versions = ", ".join(f"{name} {version}" for name, version in runs[0]["versions"].items())
    title = recipe.description.partition("\n")[0]
    return (
        f"{len(runs)} runs, {minutes:.0f} minutes in all, with {versions}.\n\n"
        f"{recipe.table(make_frame(runs))}\n![{title}](results/{recipe.name}.png)"
    )


def write_costs() -> str:
    """The cost of the paper preset of every script."""
    rows = []
    for name in NAMES:
        recipe = load_recipe(name)
        for cost in sum_costs(recipe.plan_all_runs(recipe.presets["paper"])):
            *cells, _, _ = write_cells(cost)
            rows.append([f"`{name}.py`", *cells, f"{cost.plain_steps / 1e6:.2f}"])
    return write_markdown(["script", *COLUMNS[:-2], "million plain steps"], rows)


def find_section(page: str, name: str) -> str:
    """What the page has between the comments of a recipe."""
    return split_page(page, name)[1].strip()


def replace_section(page: str, name: str, text: str) -> str:
    """The page with another section."""
    before, _, after = split_page(page, name)
    return f"{before}\n{text}\n{after}"


def split_page(page: str, name: str) -> tuple[str, str, str]:
    """The page until the section of a recipe, the section, and what follows it.

    Raises:
        ValueError: if the page does not have it once.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    found = re.fullmatch(f"(.*{begin})\n(.*?)({end}.*)", page, flags=re.DOTALL)
    if found is None:
        raise ValueError(f"{PAGE} must have a section between {begin} and {end}")
    before, section, after = found.groups()
    return before, section, after


if __name__ == "__main__":
    main()
