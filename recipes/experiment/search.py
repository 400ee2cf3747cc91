"""Runs the grid of a recipe as a search of keras-tuner, on one machine or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner

from experiment import results
from experiment.backend import write_columns
from experiment.devices import Devices
from experiment.errors import SettingsError
from experiment.progress import Progress
from experiment.recipe import Recipe
from experiment.running import train_one
from experiment.setting import Run, Setting
from experiment.training import FIGURES
from experiment.tuned import write_chosen
from keras_fisher.tuning import GridOracle

OBJECTIVE = "validation_accuracy"
SEARCHED = ("seed", "learning_rate", "alpha")


def search(recipe: Recipe, settings: Mapping[str, Setting], out: Path, devices: Devices) -> None:
    """Trains all runs that are not finished; as a chief, waits until the workers have."""
    if devices.workers > 1:
        raise SettingsError(
            "`--distribute` must be one or mirrored in a search, which spreads its runs over "
            "machines itself (KERASTUNER_TUNER_ID). Received: multiworker"
        )
    _choose_columns(out)
    with Progress(recipe.all_runs(settings)) as progress:
        for part, setting in settings.items():
            runs = recipe.plan(part, setting, {})
            RunTuner(part, runs, out, progress, devices).search(verbose=0)
    found = results.read([out])
    if {run.name for run in recipe.all_runs(settings)} <= {run["name"] for run in found}:
        write_chosen(found, out)


class RunTuner(keras_tuner.Tuner):
    """A grid search whose trials are runs of a recipe, in their own folders."""

    def __init__(
        self, part: str, runs: Sequence[Run], out: Path, progress: Progress, devices: Devices
    ) -> None:
        self.runs = {_key(vars(run)): run for run in runs}
        self.out, self.progress, self.devices = out, progress, devices
        space = keras_tuner.HyperParameters()
        for name in SEARCHED:
            space.Choice(name, list(dict.fromkeys(getattr(run, name) for run in runs)))
        oracle = GridOracle(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            hyperparameters=space,
            allow_new_entries=False,
        )
        super().__init__(oracle, directory=str(out), project_name=f"search_{part}")

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        try:
            run = self.runs[_key(trial.hyperparameters.values)]
            self.progress.begin(run, [*self.runs.values()].index(run) + 1)
            return {OBJECTIVE: train_one(run, self.out, self.progress, self.devices)}
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"{type(error).__name__}: {error}") from error


def _choose_columns(out: Path) -> None:
    """Names what TensorBoard's HParams tab is to show, of all that the runs write there."""
    if any(out.glob("events.*")):
        return
    write_columns(out, (*SEARCHED, "penalty", "noise"), FIGURES)


def _key(values: Mapping[str, Any]) -> tuple[float, ...]:
    """What tells the runs of a grid apart."""
    return tuple(values[name] for name in SEARCHED)
