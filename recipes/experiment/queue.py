"""Training of a recipe's runs: a process trains the next unfinished run that no other one trains.

The processes of `--jobs` share the runs in this way, and so does the same command on several
machines with a common folder. Rerunning a killed command resumes its unfinished runs.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from experiment.devices import Devices, keep_compiled
from experiment.errors import LockedError, SettingsError
from experiment.files import lock_folder
from experiment.folders import claim_run
from experiment.plan.recipe import Finished, Recipe
from experiment.plan.setting import Run, Setting
from experiment.progress import EpochBar, Progress
from experiment.results.archive import restore
from experiment.results.finished_runs import read, read_run
from experiment.run.record import remove_checkpoints
from experiment.run.training import train

SECONDS_BETWEEN_LOOKS = 1.0  # while waiting for runs of other processes


def train_all(
    recipe: Recipe,
    settings: Mapping[str, Setting],
    out: Path,
    devices: Devices,
    archives: Sequence[Path] = (),
    is_shown: bool = True,
) -> None:
    """Trains runs until all are finished; waits for runs that other processes train.

    Runs that archives hold are restored as soon as they are planned.
    """
    archived = read(archives)
    finished: dict[str, Any] = {}
    with Progress(recipe.plan_all_runs(settings), is_shown and devices.is_chief) as progress:
        while runs := list_ready(recipe, settings, finished):
            progress.finished = len(finished)
            progress.plan(recipe.plan_all_runs(settings, finished))
            if devices.is_chief:
                restore(runs, archived, out)
            for run in runs:
                try:
                    finished[run.name] = recipe.score(train_one(run, out, progress, devices))
                    break
                except LockedError:
                    # Workers of tf.distribute train each run together, so none may skip one.
                    if devices.workers > 1:
                        raise
            else:
                progress.show_wait(runs[0])
                time.sleep(SECONDS_BETWEEN_LOOKS)


def list_ready(recipe: Recipe, settings: Mapping[str, Setting], finished: Finished) -> list[Run]:
    """Returns the unfinished runs whose initial weights are available."""
    unfinished = [r for r in recipe.plan_runs(settings, finished) if r.name not in finished]
    return [run for run in unfinished if not run.initial or run.initial in finished]


def train_one(run: Run, out: Path, progress: Progress, devices: Devices) -> dict[str, Any]:
    """Trains a run unless it is finished, and returns its figures.

    Raises:
        LockedError: if another process is training it.
    """
    folder = out / run.name
    claim_run(folder, run, devices)
    results = folder / "results.json"
    # Finished runs need no lock, so their folders may be read-only.
    is_locked = devices.is_chief and not results.exists()
    with lock_folder(folder) if is_locked else contextlib.nullcontext():
        is_finished = results.exists()
        devices.check_same(is_finished, f"{run.name} finished (1) or not (0)")
        if not is_finished:
            progress.begin(run)
            figures = train(run, out, devices, EpochBar(progress, run.name))
            gc.collect()  # frees the model before the next one needs memory
            return figures
        if devices.is_chief:
            remove_checkpoints(folder)
    progress.skip(run.epochs)
    return read_run(folder)


# ---- Several processes ---------------------------------------------------------------------------


@contextlib.contextmanager
def start_helpers(
    number: int,
    recipe: Recipe,
    settings: Mapping[str, Setting],
    out: Path,
    archives: Sequence[Path],
) -> Iterator[None]:
    """Starts more processes that train on the same device and end with this one."""
    context = multiprocessing.get_context("spawn")
    helpers = [
        context.Process(target=help_train, args=(recipe, settings, out, archives), daemon=True)
        for _ in range(number)
    ]
    for helper in helpers:
        helper.start()
    try:
        yield
        for helper in helpers:
            helper.join()
    finally:
        for helper in helpers:
            helper.terminate()
    if failed := sum(helper.exitcode != 0 for helper in helpers):
        print(
            f"{failed} of {number + 1} processes ended early, as happens where memory runs out; "
            f"the others trained their runs. Received: `--jobs` {number + 1}",
            file=sys.stderr,
        )


def help_train(
    recipe: Recipe, settings: Mapping[str, Setting], out: Path, archives: Sequence[Path]
) -> None:
    """Trains runs in a helper process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends helpers.
    threading.Thread(target=end_with_parent, daemon=True).start()
    keep_compiled(out)
    try:
        train_all(recipe, settings, out, Devices(), archives, is_shown=False)
    except (SettingsError, OSError) as error:
        sys.exit(f"error: {error}")


def end_with_parent() -> None:
    """Ends this process when its parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
