"""Archives: the finished runs of a recipe in one small file, `RECIPE.jsonl`, one run per line.

An archive contains the data of tables and figures, with fewer digits, and no weights. A recipe uses
its runs like its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiment.errors import SettingsError
from experiment.files import write_json, write_text
from experiment.folders import describe_changes
from experiment.plan.setting import Run, get_run, to_json
from experiment.results.finished_runs import Result

# Significant digits: enough for accuracies on 10,000 images, and for the numbers in tables.
DIGITS_OF_CURVES, DIGITS = 4, 6


def write_archive(runs: Iterable[Result], path: Path) -> None:
    """Writes finished runs to one file, with the curves that their histories lack."""
    shortened = [
        shorten(run, DIGITS)
        | shorten({"history": run["history"], "curves": list_curves(run)}, DIGITS_OF_CURVES)
        for run in runs
    ]
    lines = [json.dumps(run, separators=(",", ":")) for run in shortened]
    write_text(path, "".join(f"{line}\n" for line in lines))


def list_curves(run: Result) -> dict[str, Any]:
    """Returns the curves over steps; those over epochs are in the history."""
    steps = {key for key, options in run["measures"].items() if "freq" in options}
    return {k: v for k, v in run.get("curves", {}).items() if k in {*steps, "batch_accuracy"}}


def shorten(value: Any, digits: int) -> Any:
    """Returns the value with fewer digits."""
    if isinstance(value, dict):
        return {key: shorten(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shorten(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def restore(planned: Sequence[Run], archived: Sequence[Result], out: Path) -> list[str]:
    """Restores planned runs from archives to a recipe's folder, and returns their names.

    It skips runs whose weights are needed by other runs that are still to be trained.

    Raises:
        SettingsError: if an archive has a run of a planned name but with other settings.
    """
    results = {run["name"]: run for run in archived}
    needed = {run.initial for run in planned if run.name not in results}
    restored = []
    for run in planned:
        folder, result = out / run.name, results.get(run.name)
        if result is None or run.name in needed or (folder / "results.json").exists():
            continue
        settings = {"run": to_json(get_run(result)), "versions": result["versions"]}
        if changed := describe_changes(run, settings["run"]):
            raise SettingsError(
                f"`--finished`: {run.name} has other settings ({changed}). Choose other archives, "
                "or give the same settings."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "settings.json", settings)
        write_json(folder / "time.json", {"seconds": result["seconds"]})
        figures = {key: result[key] for key in ("history", "best", "start", "curves", "final")}
        write_json(folder / "results.json", figures)
        restored.append(run.name)
    return restored
