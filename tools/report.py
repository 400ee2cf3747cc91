"""Draws the table and the figure of a recipe from the folders of its runs alone.

    python tools/report.py runs/suboptimal_lr/small
    python tools/report.py from_one_machine from_another --out together

Parts, seeds and methods of one recipe may have been run on several machines, into folders of their
own. Settings that the runs were made with are in the folders, and are not needed here.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from experiment import report, results
from experiment.errors import SettingsError


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders that a recipe wrote to")
    parser.add_argument("--out", type=Path, help="where to write; default: the first folder")
    given = parser.parse_args(arguments)
    out = given.out or given.folders[0]
    try:
        names = {results.recipe_of(folder) for folder in given.folders}
        if len(names) > 1:
            raise SettingsError(f"Runs of one recipe alone go together. Received: {sorted(names)}")
        out.mkdir(parents=True, exist_ok=True)
        recipe = importlib.import_module(names.pop()).RECIPE
        print(report.write(recipe, given.folders, out))
    except (SettingsError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
