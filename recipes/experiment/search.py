"""Runs the grid of a recipe as a search of keras-tuner, on one machine or many."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner

from experiment import results
from experiment.devices import Devices
from experiment.errors import SettingsError
from experiment.progress import Progress
from experiment.recipe import Recipe
from experiment.running import train_one
from experiment.setting import Run, Setting
from experiment.tuned import CHOSEN, read_chosen, write_chosen
from keras_fisher.tuning import GridOracle

OBJECTIVE = "validation_accuracy"
SEARCHED = ("seed", "learning_rate", "alpha", "penalty", "noise")  # what tells runs apart


def search(recipe: Recipe, settings: Mapping[str, Setting], out: Path, devices: Devices) -> None:
    """Trains all runs that are not finished; as a chief, waits until the workers have."""
    if devices.workers > 1:
        raise SettingsError(
            "`--distribute` must be one or mirrored in a search, which spreads its runs over "
            "machines itself (KERASTUNER_TUNER_ID). Received: multiworker"
        )
    planned = recipe.all_runs(settings)
    if (out / CHOSEN).exists():
        read_chosen(out)  # or an error, before any training
        if not (os.access(out, os.W_OK) or _missing(planned, out)):
            return
    with Progress(planned) as progress:
        for part, setting in settings.items():
            _train(RunTuner(part, recipe.plan(part, setting, {}), out, progress, devices))
    if _is_worker():
        return  # Others may still train what this one did not.
    if missing := _missing(planned, out):
        raise SettingsError(
            f"`--out`: {out} has finished trials without results of {', '.join(missing)}. Remove "
            "its folders search_*, and start the same command again: it trains what is missing."
        )
    write_chosen(settings, results.read([out]), out)


def _missing(planned: Sequence[Run], out: Path) -> list[str]:
    """The names of the runs that are not finished."""
    finished = {run["name"] for run in results.read([out])}
    return sorted({run.name for run in planned} - finished)


def _train(tuner: RunTuner) -> None:
    """Searches, and raises what stopped a run as it was raised there."""
    try:
        tuner.search(verbose=0)
    except keras_tuner.errors.FatalError as stopped:
        raise stopped.__cause__ or stopped from None


def _is_worker() -> bool:
    """Whether a chief hands out the runs that this process trains."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" not in os.environ["KERASTUNER_TUNER_ID"]


class RunTuner(keras_tuner.Tuner):
    """A grid search whose trials are runs of a recipe, in their own folders."""

    def __init__(
        self, part: str, runs: Sequence[Run], out: Path, progress: Progress, devices: Devices
    ) -> None:
        self.runs = {_key(vars(run)): run for run in runs}
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
        """Reads the trials of earlier commands, whose grid may have been another one."""
        super().reload()
        self.oracle.hyperparameters = self.space

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        try:
            run = self.runs[_key(trial.hyperparameters.values)]
            self.progress.begin(run, [*self.runs.values()].index(run) + 1)
            return {OBJECTIVE: train_one(run, self.out, self.progress, self.devices)}
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"{type(error).__name__}: {error}") from error


def _key(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells the runs of a grid apart."""
    return tuple(values[name] for name in SEARCHED)
