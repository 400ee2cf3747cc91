"""Runs of a plan side by side, each in a process of its own on the same device."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from experiment.devices import Devices
from experiment.progress import Progress
from experiment.recipe import Recipe, Result, as_result
from experiment.running import train_one
from experiment.setting import Run, Setting

# So that the processes share the memory of a GPU.
SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def train_side_by_side(
    recipe: Recipe, settings: Mapping[str, Setting], out: Path, devices: Devices, jobs: int
) -> None:
    """Trains all runs that are not finished, several at a time; each as it would be by itself.

    Raises:
        ChildProcessError: if a process that trains was killed.
    """
    for name, value in SHARED_GPU.items():
        os.environ.setdefault(name, value)
    context = multiprocessing.get_context("spawn")
    epochs = context.Queue()
    finished: dict[str, Result] = {}
    running: dict[concurrent.futures.Future[float], Run] = {}
    with (
        Progress(recipe.all_runs(settings), devices.is_chief) as progress,
        concurrent.futures.ProcessPoolExecutor(jobs, context, _begin, (epochs,)) as pool,
        _ending_all_together(jobs),
    ):
        while True:
            for run in _ready(recipe.runs(settings, finished), finished, running.values()):
                if len(running) < jobs:
                    running[pool.submit(_train, run, out)] = run
                    progress.begin_one_of(run, len(finished) + len(running))
            if not running:
                return
            done, _ = concurrent.futures.wait(running, 1.0, "FIRST_COMPLETED")
            while not epochs.empty():
                progress.count(*epochs.get())
            for future in done:
                run = running.pop(future)
                finished[run.name] = as_result(run, future.result())


@contextlib.contextmanager
def _ending_all_together(jobs: int) -> Iterator[None]:
    """Ends the processes that train when one of them has failed, or was killed."""
    try:
        yield
    except BaseException as error:
        for child in multiprocessing.active_children():
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(
                "A process that trains was killed, as happens where memory runs out. The same "
                "command goes on from here; a smaller `--jobs` takes less memory. "
                f"Received: {jobs}"
            ) from None
        raise


def _ready(runs: Any, finished: Mapping[str, Result], running: Any) -> list[Run]:
    """The runs that can begin: not those that start from the weights of one that is not done."""
    taken = {*finished, *(run.name for run in running)}
    ready: dict[str, Run] = {}
    for run in runs:
        if run.name not in taken and (not run.initial or run.initial in finished):
            ready.setdefault(run.name, run)
    return list(ready.values())


class _Reporting(Progress):
    """Tells the process that shows the progress of all."""

    def __init__(self, run: Run, epochs: Any) -> None:
        super().__init__([run], is_shown=False)
        self._epochs = epochs

    def update(self, epochs: int) -> None:
        self._epochs.put((epochs, False))

    def skip(self, epochs: int) -> None:
        self._epochs.put((epochs, True))


_epochs: Any = None  # of this process, if it is one that trains


def _begin(epochs: Any) -> None:
    """Prepares a process to train, and to end with the one that has started it."""
    global _epochs
    _epochs = epochs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends this one.
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _train(run: Run, out: Path) -> float:
    with _Reporting(run, _epochs) as progress:
        return train_one(run, out, progress, Devices())
