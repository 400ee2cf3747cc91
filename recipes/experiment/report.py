"""The table and the figure of a recipe, from the folders of its runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiment import results
from experiment.errors import SettingsError
from experiment.files import is_read_only, write_json, write_text
from experiment.recipe import Recipe, Result


def write(recipe: Recipe, folders: Sequence[Path], out: Path) -> str:
    """Leaves results.json, table.md and figure.png of all runs in `out`, and returns the table.

    Where `out` is read-only the table alone is returned, with a note.
    """
    runs, given = results.read(folders), ", ".join(map(str, folders))
    if not runs:
        raise SettingsError(f"No run is finished in {given}")
    try:
        table = recipe.table(runs)
        _write(recipe, runs, table, out)
    except OSError as error:
        if not is_read_only(error.__cause__):
            raise
        return f"\n{table}\n{error}"
    except (LookupError, ValueError) as error:
        # The recipe alone knows which methods and figures it shows.
        raise SettingsError(
            f"{given} must hold runs of {recipe.name}. Received: damaged ones, or those of another "
            f"version ({type(error).__name__}: {error})"
        ) from error
    return f"\n{table}\nIn {out}: results.json, table.md, figure.png."


def _write(recipe: Recipe, runs: Sequence[Result], table: str, out: Path) -> None:
    recipe.figure(runs, out / "figure.png")
    figures = [{k: v for k, v in run.items() if k not in ("history", "curves")} for run in runs]
    write_json(out / "results.json", {"runs": figures})
    write_text(out / "table.md", table)
