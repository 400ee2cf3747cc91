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
    runs, given = results.read(folders), ", ".join(map(str, folders))
    if not runs:
        raise SettingsError(f"No run is finished in {given}")
    try:
        table = recipe.table(runs)
        recipe.figure(runs, out / "figure.png")
    except (LookupError, ValueError) as error:
        # The recipe alone knows which methods and figures it shows.
        raise SettingsError(
            f"{given} must hold runs of {recipe.name}. Received: damaged ones, or those of another "
            f"version ({type(error).__name__}: {error})"
        ) from error
    figures = [{k: v for k, v in run.items() if k not in ("history", "curves")} for run in runs]
    write_json(out / "results.json", {"runs": figures})
    write_text(out / "table.md", table)
    return f"\n{table}\nIn {out}: results.json, table.md, figure.png."
