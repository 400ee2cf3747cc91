"""Running a recipe on JAX: its devices, and TensorBoard without TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import keras
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary import Writer
from tensorboard.summary.writer.event_file_writer import EventFileWriter

import keras_fisher as kf
from experiment.devices import Devices
from experiment.errors import SettingsError

CURVES = (
    kf.callbacks.FisherTrace,
    kf.callbacks.GradientNorm,
    kf.callbacks.HessianTrace,
    kf.callbacks.MinibatchFisherTrace,
)
LOST_CONNECTION: tuple[type[BaseException], ...] = ()


@dataclasses.dataclass(frozen=True)
class Parallel(Devices):
    """All devices of this machine, which share each mini-batch."""

    @property
    def replicas(self) -> int:
        return len(jax.devices())

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return keras.distribution.DataParallel().scope()


def choose_devices(kind: str) -> Devices:
    """The devices of a kind."""
    if kind == "one":
        return Devices()
    if kind == "mirrored":
        return Parallel()
    raise SettingsError(
        "`--distribute` must be one or mirrored with the JAX backend. Received: multiworker"
    )


class Scalars(keras.callbacks.Callback):
    """Writes what is logged for TensorBoard, as Keras's own callback does with TensorFlow."""

    def __init__(self, folder: Path, steps: int, curves: Sequence[Any]) -> None:
        super().__init__()
        self._folder, self._every, self._step = folder, steps, 0
        # Those over epochs are in the logs.
        self._curves = [c for c in curves if isinstance(c, CURVES) and c.freq != "epoch"]
        self._written: dict[str, int] = {}
        self._writers: dict[str, Writer] = {}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._step = int(self.model.optimizer.iterations)
        self._written = {curve.key: len(curve.history) for curve in self._curves}
        self._writers = {}

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._step += 1
        if self._step % self._every == 0:
            self._write("train", "batch_", logs or {}, self._step)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._write_curves()
        logs = logs or {}
        held_out = {k.removeprefix("val_"): v for k, v in logs.items() if k.startswith("val_")}
        trained = {k: v for k, v in logs.items() if not k.startswith("val_")}
        for part, values in (("train", trained), ("validation", held_out)):
            self._write(part, "epoch_", values, epoch)
            if part in self._writers:
                self._writers[part].flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _write_curves(self) -> None:
        for curve in self._curves:
            for step, estimate in curve.history[self._written[curve.key] :]:
                self._write("train", "", {curve.key: estimate.value}, step)
            self._written[curve.key] = len(curve.history)

    def _write(self, part: str, prefix: str, values: Mapping[str, Any], step: int) -> None:
        for name, value in values.items():
            if part not in self._writers:
                self._writers[part] = Writer(str(self._folder / part))
            self._writers[part].add_scalar(prefix + name, float(value), step)


@contextlib.contextmanager
def scalars(
    folder: Path, steps: int, curves: Sequence[Any], /
) -> Iterator[keras.callbacks.Callback]:
    """Writes what is logged for TensorBoard: at the end of epochs, and every so many steps."""
    with contextlib.closing(Scalars(folder, steps, curves)) as board:
        yield board


def write_figures(
    folder: Path, name: str, settings: Mapping[str, Any], figures: Mapping[str, float], step: int
) -> None:
    """Shows a run in TensorBoard's table of settings and final figures."""
    _write_summary(folder, hparams.hparams_pb(dict(settings), trial_id=name))
    writer = Writer(str(folder))
    for tag, figure in figures.items():
        writer.add_scalar(tag, figure, step)
    writer.close()


def write_columns(folder: Path, settings: Sequence[str], figures: Sequence[str]) -> None:
    """Names what that table is to show."""
    columns = hparams.hparams_config_pb(
        hparams=[hparams.HParam(name) for name in settings],
        metrics=[hparams.Metric(tag) for tag in figures],
    )
    _write_summary(folder, columns)


def _write_summary(folder: Path, summary: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    writer = EventFileWriter(str(folder))
    writer.add_event(Event(wall_time=time.time(), summary=summary))
    writer.close()


def registered() -> Set[str]:
    """Nothing: JAX forgets what it has compiled with the functions that it compiled."""
    return frozenset()


def forget_graphs(known: Set[str]) -> None:
    """Lets go of the models that are done with."""
    gc.collect()
