"""The table and the figure of a recipe, from the folders of its runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiment import results
from experiment.errors import SettingsError
from experiment.files import write_json, write_text
from experiment.recipe import Recipe


def write(recipe: Recipe, folders: Sequence[Path], out: Path) -> str:
    """Leaves results.json, table.md and figure.png of all runs in `out`, and returns the table."""
    runs = results.read(folders)
    if not runs:
        raise SettingsError(f"No run is finished in {', '.join(map(str, folders))}")
    figures = [{k: v for k, v in run.items() if k not in ("history", "curves")} for run in runs]
    write_json(out / "results.json", {"runs": figures})
    table = recipe.table(runs)
    write_text(out / "table.md", table)
    recipe.figure(runs, out / "figure.png")
    return f"\n{table}\nIn {out}: results.json, table.md, figure.png."
