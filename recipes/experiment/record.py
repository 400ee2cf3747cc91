"""What a run remembers on disk.

    settings.json       what is run, and with which versions
    .lock               locked by the process that trains it
    tensorboard/        curves over steps and epochs, and the settings with the final figures
    progress.json       the record so far, while it runs, with epoch-*.weights.h5, its checkpoint,
                        and best-*.weights.h5, the best weights until there
    best.weights.h5     the backbone at its epoch of best validation accuracy
    last.weights.h5     the backbone at the end
    time.json           seconds that the run took
    results.json        history and final figures, once it is finished

Every file is replaced in one step, so that a run that is killed at any moment goes on from its
last checkpoint when the same command is started again, and ends with the same figures.
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

from experiment.data import Data
from experiment.errors import SettingsError
from experiment.figures import BEST as BEST_FIGURES
from experiment.figures import HISTORY, epochs_of, progress_of
from experiment.files import inside, read_json, replace, write_json
from experiment.kinds import NUMBER
from experiment.setting import Run

SECONDS_BETWEEN_CHECKPOINTS = 10.0
BEST, LAST = "best.weights.h5", "last.weights.h5"
CHECKPOINT = ".weights.h5"
# What a file of progress has; `progress_of` says what is in it.
PROGRESS = {
    "checkpoint": object,
    "state": HISTORY | {"best": BEST_FIGURES, "start": dict},
    "seconds": NUMBER,
    "curves": dict,
}
# In single precision the weight, its momentum and the gradient of its penalty; and all else.
BYTES_OF_A_WEIGHT, SLACK = 12, 2**20


class Record(keras.callbacks.Callback):
    """Keeps the history of a run on disk with the checkpoint that belongs to it.

    The test set is evaluated where the validation accuracy reaches a new best, and at the end.
    `curves` are callbacks with a `key`, `get_state` and `set_state`. List it after them. With
    `is_kept` off it writes nothing, as on all workers but the chief.
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
        """How many epochs are behind the record."""
        return epochs_of(self.state["history"])

    def restore(self, model: keras.Model) -> None:
        """Takes up the last checkpoint, if there is one; `model` is compiled and built."""
        path = self.folder / "progress.json"
        if not path.exists():
            return
        history = read_json(path, **PROGRESS)["state"]["history"]
        progress = read_json(path, **PROGRESS | progress_of(self.run, epochs_of(history)))
        checkpoint = inside(self.folder, progress["checkpoint"], CHECKPOINT)
        try:
            model.load_weights(checkpoint)
            for key, state in progress["curves"].items():
                self.curves[key].set_state(state)
        except (FileNotFoundError, PermissionError):
            raise
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise SettingsError(
                f"{checkpoint} or {path} is damaged, or of another model ({error}). "
                f"Remove {self.folder} to begin this run anew."
            ) from error
        self.state, self.seconds = progress["state"], progress["seconds"]
        if not self._best_weights().exists():
            raise SettingsError(
                f"{self.folder} is damaged: it lacks {self._best_weights().name}. "
                "Remove it to begin this run anew."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for key, value in (logs or {}).items():
            self.state["history"].setdefault(key, []).append(_plain(value))
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
        """Returns the figures of the finished run, and keeps its last weights."""
        if self.is_kept:
            self._keep_weights()
        last = {key: values[-1] for key, values in self.state["history"].items()}
        return {
            **self.state,
            "curves": {key: curve.get_state() for key, curve in self.curves.items()},
            "final": {"test_accuracy": self._test_accuracy(), **last},
        }

    def _keep_weights(self) -> None:
        self._write(self.folder / LAST, self.model.backbone)
        replace(self.folder / BEST, functools.partial(shutil.copyfile, self._best_weights()))
        self._count_seconds()
        write_json(self.folder / "time.json", {"seconds": round(self.seconds, 1)})

    def _save(self, epoch: int) -> None:
        checkpoint = f"epoch-{epoch}{CHECKPOINT}"
        self._write(self.folder / checkpoint, self.model)
        self._count_seconds()
        progress = {
            "checkpoint": checkpoint,
            "seconds": self.seconds,
            "state": self.state,
            "curves": {key: curve.get_state() for key, curve in self.curves.items()},
        }
        write_json(self.folder / "progress.json", progress)
        _remove_all_but(self.folder, checkpoint, self._best_weights().name)
        self._saved_at = time.monotonic()

    def _write(self, path: Path, model: keras.Model) -> None:
        """Writes weights; a checkpoint has the optimizer's and the penalty's with them."""
        replace(path, model.save_weights, BYTES_OF_A_WEIGHT * model.count_params() + SLACK)

    def _best_weights(self) -> Path:
        """Named by its epoch: a killed run goes on with the best weights of its checkpoint."""
        return self.folder / f"best-{self.state['best']['epoch']}{CHECKPOINT}"

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds, self._counted_to = self.seconds + now - self._counted_to, now

    def _test_accuracy(self) -> float:
        accuracy = self.data.test_accuracy(self.model)
        return self.state["history"]["val_accuracy"][-1] if accuracy is None else accuracy


def clear(folder: Path) -> None:
    """Removes the checkpoint of a finished run."""
    path = folder / "progress.json"
    if path.exists():  # A read-only folder has none.
        path.unlink(missing_ok=True)
    _remove_all_but(folder)


def _remove_all_but(folder: Path, *names: str) -> None:
    """Removes checkpoints, and parts of files that were being written when a run was killed."""
    for path in [*folder.glob(f"*-*{CHECKPOINT}"), *folder.glob("part-*")]:
        if path.name not in names:
            path.unlink(missing_ok=True)


def _plain(value: Any) -> float | None:
    """A number that JSON has: `None` stands for NaN."""
    number = float(value)
    return number if math.isfinite(number) else None
