"""TensorBoard logs of a run: its curves, and its settings with its final figures.

A run writes into one folder, so it is one entry in TensorBoard's list. TensorBoard shows curves by
default if the list has at most 40 entries.

This module does not use TensorFlow, so all Keras backends write the same points. (With TensorFlow,
Keras's own callback loses the scalars of each epoch whose last step is not one that it writes.)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
from keras import ops
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary import Writer
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from experiment.plan.setting import Run

STEPS_BETWEEN_POINTS = 10  # in the `batch_` curves
# The HParams tab shows the settings that distinguish runs of a part, and their final figures; it
# hides more than five settings.
COLUMNS = ("seed", "learning_rate", "alpha", "method", "value")
FIGURES = ("best/validation_accuracy", "best/test_accuracy", "final/test_accuracy")


class ScalarWriter(keras.callbacks.Callback):
    """Writes the logs of each epoch, the logs of every tenth step, and curves over steps.

    List it before the callback that writes checkpoints, so that a resumed run has every epoch.

    Args:
        folder: The folder to write to.
        curves: The measuring callbacks, by the key of their logs.
    """

    def __init__(self, folder: Path, curves: Mapping[str, Any]) -> None:
        super().__init__()
        self._writer = Writer(str(folder))
        # Quantities that are measured once per epoch are in the logs.
        self._curves = {k: c for k, c in curves.items() if getattr(c, "freq", "epoch") != "epoch"}
        self._counts: dict[str, int] = {}
        self._step = self._first_step = 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._step = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        self._counts = {key: len(curve.history) for key, curve in self._curves.items()}

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._first_step = self._step

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        before, self._step = self._step, self._first_step + batch + 1
        if self._step // STEPS_BETWEEN_POINTS > before // STEPS_BETWEEN_POINTS:
            self._write("batch_", logs or {}, self._step)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        for key, curve in self._curves.items():
            for step, estimate in curve.history[self._counts[key] :]:
                self._write("", {key: estimate.value}, step)
            self._counts[key] = len(curve.history)
        self._write("epoch_", logs or {}, epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, prefix: str, values: Mapping[str, Any], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(prefix + name, float(value), step)


@contextlib.contextmanager
def write_scalars(folder: Path, curves: Mapping[str, Any]) -> Iterator[keras.callbacks.Callback]:
    """Yields the callback that writes TensorBoard logs during one training."""
    with contextlib.closing(ScalarWriter(folder, curves)) as writer:
        yield writer


def write_figures(folder: Path, run: Run, figures: Mapping[str, Any]) -> None:
    """Adds a finished run to TensorBoard's table of settings and final figures.

    Each run defines the columns, because a parent folder would be an entry without curves.
    """
    settings = {k: v for k, v in vars(run).items() if isinstance(v, bool | int | float | str)}
    columns = hparams.hparams_config_pb(
        hparams=[hparams.HParam(column) for column in COLUMNS],
        metrics=[hparams.Metric(tag) for tag in FIGURES],
    )
    with contextlib.closing(EventFileWriter(str(folder))) as events:
        for summary in (columns, hparams.hparams_pb(settings, trial_id=run.name)):
            events.add_event(Event(wall_time=time.time(), summary=summary))
    with contextlib.closing(Writer(str(folder))) as writer:
        for tag in FIGURES:
            moment, key = tag.split("/")
            writer.add_scalar(tag, figures[moment][key], run.epochs)
