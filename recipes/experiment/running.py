"""Runs what a recipe plans, one run after another, each in its own folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiment import results
from experiment.errors import SettingsError
from experiment.files import write_json
from experiment.progress import Progress
from experiment.recipe import Recipe, Result, as_result
from experiment.setting import Run, Setting
from experiment.training import train
from experiment.versions import versions


def train_all(recipe: Recipe, settings: Mapping[str, Setting], out: Path) -> None:
    """Trains all runs that are not finished."""
    finished: dict[str, Result] = {}
    with Progress(recipe.all_runs(settings)) as progress:
        while run := _next(recipe.runs(settings, finished), finished):
            progress.begin(run, len(finished) + 1)
            finished[run.name] = as_result(run, train_one(run, out, progress))


def train_one(run: Run, out: Path, progress: Progress) -> float:
    """Trains a run that is not finished, and returns its best validation accuracy."""
    folder = out / run.name
    claim(folder, run)
    if (folder / "results.json").exists():
        progress.skip(run.epochs)
    else:
        train(run, out, progress)
    return results.validation_accuracy(results.read_one(folder))


def _next(runs: Sequence[Run], finished: Mapping[str, Result]) -> Run | None:
    return next((run for run in runs if run.name not in finished), None)


def claim(folder: Path, run: Run) -> None:
    """Makes the folder of a run, or raises if it holds one of other settings."""
    settings = json.loads(json.dumps(dataclasses.asdict(run)))
    path = folder / "settings.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"run": settings, "versions": versions()})
        return
    found = json.loads(path.read_text())["run"]
    changed = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
    if changed:
        differences = ", ".join(f"{key} is {found.get(key)} there" for key in changed)
        raise SettingsError(
            f"`--out`: {folder} holds a run of other settings ({differences}). "
            "Choose another folder with --out, or give the same settings."
        )
