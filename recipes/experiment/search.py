"""Searches with keras-tuner over the grid of a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner

from experiment.devices import Devices
from experiment.errors import SettingsError
from experiment.plan.recipe import Recipe, get_best_accuracy
from experiment.plan.setting import Run, Setting
from experiment.progress import Progress
from experiment.queue import train_one
from experiment.results.findings import FINDINGS, read_findings, write_findings
from experiment.results.finished_runs import make_frame, read
from keras_fisher.tuning import GridOracle
from keras_fisher.tuning.oracle import is_worker

OBJECTIVE = "validation_accuracy"
SEARCHED = ("seed", "learning_rate", "alpha", "penalty", "noise")  # these distinguish runs


def search(
    recipe: Recipe,
    settings: Mapping[str, Setting],
    out: Path,
    devices: Devices,
    archives: Sequence[Path] = (),
) -> None:
    """Trains all unfinished runs; as a chief, waits until the workers have trained them.

    All runs are planned from the start, so those of `archives` have been restored before.
    """
    if devices.workers > 1:
        raise SettingsError(
            "`--distribute` must be one or mirrored in a search, which spreads its runs over "
            "machines itself (KERASTUNER_TUNER_ID). Received: multiworker"
        )
    planned = recipe.plan_all_runs(settings)
    if (out / FINDINGS).exists():
        read_findings(out)  # raises before any training if they are damaged
        if not (os.access(out, os.W_OK) or list_missing(planned, out)):
            return
    with Progress(planned) as progress:
        for part, setting in settings.items():
            tuner = RunTuner(part, recipe.plan(part, setting, {}), out, progress, devices)
            try:
                tuner.search(verbose=0)
            except keras_tuner.errors.FatalError as error:
                raise error.__cause__ or error from None
    if is_worker():
        return  # Other workers may still be training.
    if missing := list_missing(planned, out):
        raise SettingsError(
            f"`--out`: {out} has finished trials without results of {', '.join(missing)}. Remove "
            "its folders search_*, and rerun the command: it trains the missing runs."
        )
    write_findings(settings, make_frame(read([out])), out)


def list_missing(planned: Sequence[Run], out: Path) -> list[str]:
    """Returns the names of the unfinished runs."""
    return sorted({run.name for run in planned} - {run["name"] for run in read([out])})


class RunTuner(keras_tuner.Tuner):
    """A grid search whose trials are runs of a recipe, in their own folders."""

    def __init__(
        self, part: str, runs: Sequence[Run], out: Path, progress: Progress, devices: Devices
    ) -> None:
        self.runs = {get_key(vars(run)): run for run in runs}
        self.out, self.progress, self.devices = out, progress, devices
        self.space = keras_tuner.HyperParameters()
        for name in SEARCHED:
            self.space.Choice(name, list(dict.fromkeys(getattr(run, name) for run in runs)))
        oracle = GridOracle(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            hyperparameters=self.space,
            allow_new_entries=False,
        )
        super().__init__(oracle, directory=str(out), project_name=f"search_{part}")

    def reload(self) -> None:
        """Reads the trials of earlier commands, which may have had another grid."""
        super().reload()
        self.oracle.hyperparameters = self.space

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        try:
            run = self.runs[get_key(trial.hyperparameters.values)]
            self.progress.finished = [*self.runs.values()].index(run)
            figures = train_one(run, self.out, self.progress, self.devices)
            return {OBJECTIVE: get_best_accuracy(figures)}
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"{type(error).__name__}: {error}") from error


def get_key(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns the values that distinguish the runs of a grid."""
    return tuple(values[name] for name in SEARCHED)
