"""Runs what a recipe plans, one run after another, each in its own folder."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiment import results
from experiment.devices import Devices
from experiment.errors import SettingsError
from experiment.files import read_json, write_json
from experiment.lock import locked
from experiment.progress import Progress
from experiment.recipe import Recipe, Result, as_result
from experiment.record import clear
from experiment.setting import Run, Setting
from experiment.training import train
from experiment.versions import backend_of, versions


def train_all(recipe: Recipe, settings: Mapping[str, Setting], out: Path, devices: Devices) -> None:
    """Trains all runs that are not finished."""
    finished: dict[str, Result] = {}
    with Progress(recipe.all_runs(settings), devices.is_chief) as progress:
        while run := _next(recipe.runs(settings, finished), finished):
            progress.begin(run, len(finished) + 1)
            finished[run.name] = as_result(run, train_one(run, out, progress, devices))


def train_one(run: Run, out: Path, progress: Progress, devices: Devices) -> float:
    """Trains a run that is not finished, and returns its best validation accuracy."""
    folder = out / run.name
    claim(folder, run, devices)
    results_file = folder / "results.json"
    # What is finished needs no lock, so its folder may be read-only.
    is_locked = devices.is_chief and not results_file.exists()
    with locked(folder) if is_locked else contextlib.nullcontext():
        is_finished = results_file.exists()
        devices.check_alike(is_finished, f"{run.name} finished (1) or not (0)")
        if not is_finished:
            figures = train(run, out, progress, devices)
            gc.collect()  # the model, before the next one takes as much memory
            return results.validation_accuracy(figures)
        if devices.is_chief:
            clear(folder)
    progress.skip(run.epochs)
    return results.validation_accuracy(results.read_one(folder))


def check_folder(recipe: Recipe, settings: Mapping[str, Setting], out: Path) -> None:
    """Raises unless what can be planned may stand beside what is in the folder.

    Raises:
        SettingsError: if a run there is of another Keras backend or has other settings than one of
            its name that can be planned, or if one that is finished is not comparable with those.
    """
    for path in out.glob("*/settings.json"):
        backend = backend_of(read_json(path, **results.SETTINGS)["versions"])
        if backend != backend_of(versions()):
            raise SettingsError(
                f"`--out`: {out} holds runs of the Keras backend {backend}. Choose another folder "
                f"with --out, or set KERAS_BACKEND={backend}."
            )
    finished = {run["name"]: run for run in results.read([out])}
    planned = recipe.runs(settings, finished)
    for run in planned:
        check_settings(out / run.name, run)
    known = {run.name: {"name": run.name, **results.settings_of(run)} for run in planned}
    results.check_comparable((finished | known).values())


def _next(runs: Sequence[Run], finished: Mapping[str, Result]) -> Run | None:
    return next((run for run in runs if run.name not in finished), None)


def claim(folder: Path, run: Run, devices: Devices) -> None:
    """Makes the folder of a run, or raises if it holds one of other settings."""
    check_settings(folder, run)
    path = folder / "settings.json"
    if devices.is_chief and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        settings, replicas = results.settings_of(run), devices.replicas
        write_json(path, {"run": settings, "versions": versions(), "replicas": replicas})


def check_settings(folder: Path, run: Run) -> None:
    """Raises if a folder holds a run of other settings."""
    path = folder / "settings.json"
    if not path.exists():
        return
    settings, found = results.settings_of(run), read_json(path, **results.SETTINGS)["run"]
    changed = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
    if changed:
        differences = ", ".join(f"{key} is {found.get(key)} there" for key in changed)
        raise SettingsError(
            f"`--out`: {folder} holds a run of other settings ({differences}). "
            "Choose another folder with --out, or give the same settings."
        )
