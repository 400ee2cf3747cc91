"""Writes the table and the figure of a recipe from the folders of its runs.

    python tools/report.py runs/suboptimal_lr/small
    python tools/report.py from_one_machine from_another --out together
    python tools/report.py runs/suboptimal_lr/small --archive docs/results/data

Parts, seeds and methods of one recipe may have been run on several machines, in separate folders.
The folders contain the settings of the runs.

--archive stores the runs in one small file of that folder, RECIPE.jsonl. Give it to this script in
place of a folder, or to a recipe as --finished.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from experiment import folders
from experiment.errors import SettingsError
from experiment.results import archive, finished_runs, report


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders that a recipe wrote to")
    parser.add_argument("--out", type=Path, help="where to write; default: the first folder")
    parser.add_argument("--archive", type=Path, help="folder to keep an archive of the runs in")
    given = parser.parse_args(arguments)
    out = given.out or given.folders[0]
    try:
        if not given.out and out.suffix == finished_runs.ARCHIVE:
            raise SettingsError(f"`--out` must be given with an archive. Received: only {out}")
        names = {folders.find_recipe(folder) for folder in given.folders}
        if len(names) > 1:
            raise SettingsError(
                f"`folders` must hold runs of one recipe. Received: {sorted(names)}"
            )
        out.mkdir(parents=True, exist_ok=True)
        name = names.pop()
        if given.archive:
            given.archive.mkdir(parents=True, exist_ok=True)
            archive.write_archive(
                finished_runs.read(given.folders), given.archive / f"{name}{finished_runs.ARCHIVE}"
            )
        print(report.write(importlib.import_module(name).RECIPE, given.folders, out))
    except (SettingsError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
