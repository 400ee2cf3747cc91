"""The progress bars: one over all runs, and one within the present run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from tqdm import tqdm

from experiment.setting import Run

SHOWN = {"accuracy": "train", "val_accuracy": "val", "penalty": "penalty", "fisher_trace": "Tr(F)"}


class Progress:
    """Two bars over epochs, with the time left."""

    def __init__(self, planned: Sequence[Run], is_shown: bool = True) -> None:
        self.planned = len(planned)
        epochs = sum(run.epochs for run in planned)
        bar = functools.partial(tqdm, unit="epoch", dynamic_ncols=True, disable=not is_shown)
        self._all = bar(total=epochs)
        self._own = bar(leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._own.close()
        self._all.close()

    def begin(self, run: Run, number: int) -> None:
        self._all.set_description(f"run {number} of {self.planned}")
        self._own.initial = 0
        self._own.reset(total=run.epochs)
        self._own.set_description(run.name)

    def begin_one_of(self, run: Run, number: int) -> None:
        """Shows the latest of several runs side by side."""
        self._all.set_description(f"run {number} of {self.planned}")
        self._all.set_postfix_str(run.name)

    def count(self, epochs: int, is_skipped: bool) -> None:
        """Counts epochs of any of several runs side by side."""
        if is_skipped:
            self._all.initial += epochs
        self._all.update(epochs)

    def update(self, epochs: int) -> None:
        self._own.update(epochs)
        self._all.update(epochs)

    def skip(self, epochs: int) -> None:
        """Counts epochs that were trained before, and take no time now."""
        for bar in (self._own, self._all):
            if not bar.disable:
                bar.initial += epochs
                bar.update(epochs)

    def show(self, numbers: Mapping[str, Any]) -> None:
        self._own.set_postfix(
            {label: f"{numbers[key]:.3g}" for key, label in SHOWN.items() if numbers.get(key)}
        )

    def write(self, message: str) -> None:
        self._all.write(message)


class EpochBar(keras.callbacks.Callback):
    """Moves the progress bars, and shows how the run is doing."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.progress.show(logs or {})
        self.progress.update(1)
