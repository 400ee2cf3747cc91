"""What TensorBoard shows of a run: its curves, and its settings with its final figures.

A run writes into one folder, so it is one entry of TensorBoard's list. TensorBoard shows curves
unasked where its list has at most 40 entries.

TensorFlow is not used, so both Keras backends write the same points. With TensorFlow Keras's own
callback drops the scalars of each epoch whose last step is not one of those that it writes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary import Writer
from tensorboard.summary.writer.event_file_writer import EventFileWriter

import keras_fisher as kf

CURVES = (
    kf.callbacks.FisherTrace,
    kf.callbacks.GradientNorm,
    kf.callbacks.HessianTrace,
    kf.callbacks.MinibatchFisherTrace,
)


class Scalars(keras.callbacks.Callback):
    """Writes the logs of each epoch, those of every so many steps, and curves over steps.

    List it before the callback that writes checkpoints: a run that resumes then has every epoch.

    Args:
        folder: Where to write.
        every: How many steps from one point of the `batch_` curves to the next.
        curves: The callbacks that measure.
    """

    def __init__(self, folder: Path, every: int, curves: Sequence[Any]) -> None:
        super().__init__()
        self._writer, self._every = Writer(str(folder)), every
        # Those over epochs are in the logs.
        self._curves = [c for c in curves if isinstance(c, CURVES) and c.freq != "epoch"]
        self._written: dict[str, int] = {}
        self._step = self._epoch_began_at = 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._step = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        self._written = {curve.key: len(curve.history) for curve in self._curves}

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch_began_at = self._step

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        before, self._step = self._step, self._epoch_began_at + batch + 1
        if self._step // self._every > before // self._every:
            self._write("batch_", logs or {}, self._step)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._write_curves()
        self._write("epoch_", logs or {}, epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write_curves(self) -> None:
        for curve in self._curves:
            for step, estimate in curve.history[self._written[curve.key] :]:
                self._write("", {curve.key: estimate.value}, step)
            self._written[curve.key] = len(curve.history)

    def _write(self, prefix: str, values: Mapping[str, Any], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(prefix + name, float(value), step)


@contextlib.contextmanager
def scalars(folder: Path, every: int, curves: Sequence[Any]) -> Iterator[keras.callbacks.Callback]:
    """The callback that writes for TensorBoard, for one training."""
    with contextlib.closing(Scalars(folder, every, curves)) as board:
        yield board


def write_figures(
    folder: Path,
    name: str,
    settings: Mapping[str, Any],
    figures: Mapping[str, float],
    step: int,
    columns: Sequence[str],
) -> None:
    """Shows a finished run in TensorBoard's table: these columns of its settings, and its figures.

    Each run names the columns, since a folder above the runs would be an entry with no curves.
    """
    shown = hparams.hparams_config_pb(
        hparams=[hparams.HParam(column) for column in columns],
        metrics=[hparams.Metric(tag) for tag in figures],
    )
    with contextlib.closing(EventFileWriter(str(folder))) as events:
        for summary in (shown, hparams.hparams_pb(dict(settings), trial_id=name)):
            events.add_event(Event(wall_time=time.time(), summary=summary))
    with contextlib.closing(Writer(str(folder))) as writer:
        for tag, figure in figures.items():
            writer.add_scalar(tag, figure, step)
