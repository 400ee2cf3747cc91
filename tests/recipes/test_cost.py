"""What a command is said to cost."""

import importlib
from pathlib import Path

from experiment.plan.cost import estimate_cost

ROOT = Path(__file__).parents[2]


def rows(text):
    """The rows of a Markdown table, as tuples of what is in its columns."""
    lines = [line.strip("|") for line in text.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.split("|")) for line in lines[1:]]


def test_the_page_of_results_says_what_every_paper_preset_costs_today():
    section = (ROOT / "docs" / "results.md").read_text().partition("## What the paper's size costs")
    table = section[2].partition("\n## ")[0]
    written = [row for row in rows(table) if set(row[0]) != {"-"}]
    expected = []
    for path in (ROOT / "recipes").glob("*.py"):
        recipe = importlib.import_module(path.stem).RECIPE
        for *first, plain in rows(estimate_cost(recipe, recipe.presets["paper"])):
            network, data_set, runs, epochs, _ = first
            million = f"{int(plain.replace(',', '')) / 1e6:.2f}"
            expected.append((f"`{path.name}`", network, data_set, runs, epochs, million))
    assert sorted(written) == sorted(expected)
