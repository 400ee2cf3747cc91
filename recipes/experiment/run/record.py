"""The record of a run on disk.

    settings.json       the settings of the run, and the package versions
    .lock               locked by the process that trains the run
    tensorboard/        curves over steps and epochs, and the settings with the final figures
    progress.json       the record so far, during training, with epoch-*.weights.h5, its checkpoint,
                        and best-*.weights.h5, the best weights so far
    best.weights.h5     the backbone at its epoch of best validation accuracy
    last.weights.h5     the backbone at the end
    time.json           the duration of the run in seconds
    results.json        history and final figures, once the run is finished

All files except the lock and the logs are replaced in one step. If a run is killed at any moment,
rerunning the same command resumes it from its last checkpoint, and ends with the same figures.
`experiment.folders` writes settings.json.
"""

from __future__ import annotations

import functools
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from experiment.errors import SettingsError
from experiment.files import name_damage, read_json, replace_file, write_json
from experiment.plan.setting import Run
from experiment.run.data import Data

SECONDS_BETWEEN_CHECKPOINTS = 10.0
BEST, LAST = "best.weights.h5", "last.weights.h5"
CHECKPOINT = ".weights.h5"
# In single precision: the weight, two moments and the penalty's gradient; and everything else.
BYTES_PER_WEIGHT, SLACK = 16, 2**20


class Record(keras.callbacks.Callback):
    """Saves the history of a run to disk with its checkpoint.

    It evaluates the test set whenever the validation accuracy reaches a new best, and at the end.
    `curves` are callbacks with `get_state` and `set_state`; list this one after them.
    Without `is_kept` it writes nothing, as on all workers except the chief.
    """

    def __init__(
        self, folder: Path, run: Run, data: Data, curves: Mapping[str, Any], is_kept: bool = True
    ) -> None:
        super().__init__()
        self.folder, self.run, self.data = folder, run, data
        self.curves, self.is_kept = curves, is_kept
        self.state: dict[str, Any] = {
            "history": {},
            "best": {"validation_accuracy": -1.0},
            "start": {},
        }
        self.seconds = 0.0
        self._saved_at = self._counted_to = time.monotonic()

    @property
    def first_epoch(self) -> int:
        """The number of epochs in the record."""
        return len(self.state["history"].get("val_accuracy", ()))

    def restore(self, model: keras.Model) -> None:
        """Loads the last checkpoint, if any, into a compiled and built `model`."""
        path = self.folder / "progress.json"
        if not path.exists():
            return
        progress = read_json(path, "checkpoint", "state", "seconds", "curves")
        checkpoint = self._find_checkpoint(progress["checkpoint"])
        advice = f" Remove {self.folder} to restart this run."
        with name_damage(path, advice):
            self.state, self.seconds = progress["state"], float(progress["seconds"])
            lengths = {len(values) for values in self.state["history"].values()}
            if lengths != {self.first_epoch} or not 0 < self.first_epoch <= self.run.epochs:
                raise ValueError(f"it has figures of {sorted(lengths)} epochs")
            for key, curve in self.curves.items():
                curve.set_state(progress["curves"][key])
            best = self._best_weights()
        with name_damage(checkpoint, advice):
            model.load_weights(checkpoint)
        if not best.exists():
            raise SettingsError(f"{self.folder} is damaged: it lacks {best.name}.{advice}")

    def _find_checkpoint(self, name: Any) -> Path:
        """Returns a checkpoint's path; its name comes from a file and must not leave the folder."""
        if not (isinstance(name, str) and Path(name).name == name and name.endswith(CHECKPOINT)):
            raise SettingsError(
                f"{self.folder} is damaged: it names a checkpoint {name!r}, which is none in there"
            )
        return self.folder / name

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = dict(logs or {})
        if not math.isfinite(logs.get("val_loss", 0.0)):
            logs["val_accuracy"] = 0.0  # Keras takes NaN for the first class.
        for key, value in logs.items():
            self.state["history"].setdefault(key, []).append(replace_nan(value))
        accuracy = self.state["history"]["val_accuracy"][-1]
        if accuracy > self.state["best"]["validation_accuracy"]:
            self.state["best"] = {
                "validation_accuracy": accuracy,
                "test_accuracy": self._test_accuracy(),
                "epoch": epoch,
            }
            if self.is_kept:
                self._write(self._best_weights(), self.model.backbone)
        if self.is_kept and time.monotonic() - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS:
            self._save(epoch)

    def finish(self) -> dict[str, Any]:
        """Returns the figures of the finished run, and saves its last weights."""
        if self.is_kept:
            self._write(self.folder / LAST, self.model.backbone)
            copy_best = functools.partial(shutil.copyfile, self._best_weights())
            replace_file(self.folder / BEST, copy_best)
            self._count_seconds()
            write_json(self.folder / "time.json", {"seconds": round(self.seconds, 1)})
        last = {key: values[-1] for key, values in self.state["history"].items()}
        return {
            **self.state,
            "curves": self._curve_states(),
            "final": {"test_accuracy": self._test_accuracy(), **last},
        }

    def _save(self, epoch: int) -> None:
        checkpoint = f"epoch-{epoch}{CHECKPOINT}"
        self._write(self.folder / checkpoint, self.model)
        self._count_seconds()
        progress = {
            "checkpoint": checkpoint,
            "seconds": self.seconds,
            "state": self.state,
            "curves": self._curve_states(),
        }
        write_json(self.folder / "progress.json", progress)
        remove_weights(self.folder, checkpoint, self._best_weights().name)
        self._saved_at = time.monotonic()

    def _curve_states(self) -> dict[str, Any]:
        return {key: curve.get_state() for key, curve in self.curves.items()}

    def _write(self, path: Path, model: keras.Model) -> None:
        """Writes weights; a checkpoint includes the states of optimizer and penalty."""
        replace_file(path, model.save_weights, BYTES_PER_WEIGHT * model.count_params() + SLACK)

    def _best_weights(self) -> Path:
        """The path contains the epoch: a resumed run needs the best weights of its checkpoint."""
        return self.folder / f"best-{int(self.state['best']['epoch'])}{CHECKPOINT}"

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds, self._counted_to = self.seconds + now - self._counted_to, now

    def _test_accuracy(self) -> float:
        accuracy = self.data.test_accuracy(self.model)
        return self.state["history"]["val_accuracy"][-1] if accuracy is None else accuracy


def remove_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a finished run."""
    path = folder / "progress.json"
    if path.exists():  # Read-only folders have none.
        path.unlink(missing_ok=True)
    remove_weights(folder)


def remove_weights(folder: Path, *kept: str) -> None:
    """Removes weights of epochs, and partial files of a killed run."""
    for path in [*folder.glob(f"*-*{CHECKPOINT}"), *folder.glob("part-*")]:
        if path.name not in kept:
            path.unlink(missing_ok=True)


def replace_nan(value: Any) -> float | None:
    """Returns the number, with `None` in place of NaN, which JSON lacks."""
    number = float(value)
    return number if math.isfinite(number) else None
