"""The table and the figure of a recipe, created only from the folders of its runs."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from experiment.errors import SettingsError
from experiment.files import write_json, write_text
from experiment.plan.recipe import Recipe
from experiment.results.finished_runs import Result, make_frame, read


def write(recipe: Recipe, folders: Sequence[Path], out: Path) -> str:
    """Writes results.json, table.md and figure.png of all runs to `out`, and returns the table.

    If `out` is read-only, it returns only the table, with a note.
    """
    runs, names = read(folders), ", ".join(map(str, folders))
    if not runs:
        raise SettingsError(f"No run is finished in {names}")
    try:
        frame = make_frame(runs)
        table = recipe.table(frame)
        recipe.figure(frame, out / "figure.png")
        write_json(out / "results.json", {"runs": [drop_curves(run) for run in runs]})
        write_text(out / "table.md", table)
    except OSError as error:
        if not is_read_only(error.__cause__):
            raise
        return f"\n{table}\n{error}"
    except (LookupError, TypeError, ValueError) as error:
        # Only the recipe knows which methods and figures it shows.
        raise SettingsError(
            f"{names} must hold runs of {recipe.name}. Received: damaged runs, or runs of another "
            f"version ({type(error).__name__}: {error})"
        ) from error
    return f"\n{table}\nIn {out}: results.json, table.md, figure.png."


def drop_curves(run: Result) -> Result:
    return {key: value for key, value in run.items() if key not in ("history", "curves")}


def is_read_only(error: BaseException | None) -> bool:
    """Whether a file could not be written because its folder is read-only."""
    return isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
