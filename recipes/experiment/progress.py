"""The progress bars of a recipe."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from tqdm import tqdm

from experiment.plan.setting import Run

# Names in the logs, and their labels.
SHOWN = {"accuracy": "train", "val_accuracy": "val", "penalty": "penalty", "fisher_trace": "Tr(F)"}


class Progress:
    """Two progress bars over epochs with the remaining time: all runs, and the current one."""

    def __init__(self, planned: Sequence[Run], is_shown: bool = True) -> None:
        self.finished, self._awaited = 0, ""
        bar = functools.partial(tqdm, unit="epoch", dynamic_ncols=True, disable=not is_shown)
        self._all = bar()
        self._own = bar(leave=False)
        self.plan(planned)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._own.close()
        self._all.close()

    def plan(self, planned: Sequence[Run]) -> None:
        """Sets how much there is to train, which changes as values are chosen."""
        self._planned = len(planned)
        self._all.total = sum(run.epochs for run in planned)

    def begin(self, run: Run) -> None:
        self._all.set_description(f"run {self.finished + 1} of {self._planned}")
        self._own.initial = 0
        self._own.reset(total=run.epochs)
        self._own.set_description(run.name)

    def update(self, epochs: int) -> None:
        self._own.update(epochs)
        self._all.update(epochs)

    def skip(self, epochs: int) -> None:
        """Skips the epochs of a run that was trained before or by another process."""
        _skip(self._all, epochs)

    def resume(self, run: str, epoch: int) -> None:
        for bar in (self._own, self._all):
            _skip(bar, epoch)
        self._all.write(f"{run}: resumes from its checkpoint after epoch {epoch}")

    def show(self, logs: Mapping[str, Any]) -> None:
        self._own.set_postfix(
            {label: f"{logs[key]:.3g}" for key, label in SHOWN.items() if logs.get(key)}
        )

    def show_wait(self, run: Run) -> None:
        if run.name != self._awaited:  # only once, to avoid a log line per second
            self._all.set_description(f"waits for {run.name}, which another process is training")
        self._awaited = run.name


def _skip(bar: tqdm, epochs: int) -> None:
    """Moves a bar without counting the epochs in its speed."""
    if not bar.disable:
        bar.initial += epochs
        bar.update(epochs)


class EpochBar(keras.callbacks.Callback):
    """Updates the progress bars, and shows the metrics of the run."""

    def __init__(self, progress: Progress, run: str) -> None:
        super().__init__()
        self._progress, self._run, self._is_first = progress, run, True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._is_first and epoch:
            self._progress.resume(self._run, epoch)
        self._is_first = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.show(logs or {})
        self._progress.update(1)
