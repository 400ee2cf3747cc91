"""What the recipes share: settings from the command line, a run that resumes, and its record.

A *run* is one training: one network, method, seed. It lives in a folder of its own and leaves

    settings.json      what was run
    tensorboard/       curves
    progress.json      history so far and the checkpoint that belongs to it, while it is running
    results.json       history and final figures, once it is finished

Every file is replaced in one step, so that a run that is killed at any moment goes on from its
last checkpoint when the same command is started again, and ends with the same figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
from tqdm import tqdm

from keras_fisher.data import Splits, training_batches
from keras_fisher.traces import accuracy

SECONDS_BETWEEN_CHECKPOINTS = 10.0
T = TypeVar("T")


def setting(help: str, choices: Sequence[str] | None = None) -> Any:
    """A field of a recipe's settings, with its help on the command line."""
    return dataclasses.field(metadata={"help": help, "choices": choices})


def parse_settings(
    presets: Mapping[str, T], name: str, description: str, arguments: Sequence[str] | None
) -> tuple[T, Path]:
    """Returns the preset with what the command line overrides, and the folder of the runs."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--preset", choices=presets, default="demo")
    preset = first.parse_known_args(arguments)[0].preset
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"Defaults are those of --preset {preset}. A finished or interrupted command can be "
        "started again: it goes on where it was.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--preset", choices=presets, default="demo", help="where to start from")
    parser.add_argument(
        "--out", type=Path, default=Path("runs") / name / preset, help="folder of the runs"
    )
    for field in dataclasses.fields(presets[preset]):  # type: ignore[arg-type]
        default = getattr(presets[preset], field.name)
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, default=default, **_option(default), **field.metadata)
    given = vars(parser.parse_args(arguments))
    del given["preset"]
    out = given.pop("out")
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    return type(presets[preset])(**given), out


def _option(default: Any) -> dict[str, Any]:
    """How argparse reads a value like `default`."""
    if isinstance(default, bool):
        return {"action": argparse.BooleanOptionalAction}
    if isinstance(default, tuple):
        return {"nargs": "*", "type": type(default[0]) if default else int}
    return {"type": type(default)}


class SettingsError(ValueError):
    """What was asked for on the command line cannot be run."""


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Makes the folder of a run with these settings, or raises if it holds other ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        write_json(path, settings)
        return
    found = json.loads(path.read_text())
    changed = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
    if changed:
        differences = ", ".join(f"{k} is {found.get(k)} there" for k in changed)
        raise SettingsError(
            f"`--out`: {folder} holds a run of other settings ({differences}). "
            "Choose another folder with --out, or give the same settings."
        )


def write_json(path: Path, content: Any) -> None:
    """Replaces the file in one step."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, content: str) -> None:
    """Replaces the file in one step."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("keras-fisher", "keras", "tensorflow", "numpy")
    return {package: importlib.metadata.version(package) for package in packages}


class Record(keras.callbacks.Callback):
    """Keeps the history of a run on disk with the checkpoint that belongs to it.

    The test set is evaluated where the validation accuracy reaches a new best, and at the end.
    List it after the callbacks whose measurements it shall keep.
    """

    def __init__(self, folder: Path, data: Splits) -> None:
        super().__init__()
        self.folder, self.data = folder, data
        self.state: dict[str, Any] = {"history": {}, "best": {"validation_accuracy": -1.0}}
        self._saved_at = time.monotonic()

    @property
    def first_epoch(self) -> int:
        """How many epochs are behind the record."""
        return max((len(values) for values in self.state["history"].values()), default=0)

    def restore(self, model: keras.Model) -> None:
        """Takes up the last checkpoint, if there is one; `model` is compiled and built."""
        path = self.folder / "progress.json"
        if path.exists():
            progress = json.loads(path.read_text())
            model.load_weights(self.folder / progress.pop("checkpoint"))
            self.state = progress

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for key, value in (logs or {}).items():
            self.state["history"].setdefault(key, []).append(float(value))
        accuracy = self.state["history"]["val_accuracy"][-1]
        if accuracy > self.state["best"]["validation_accuracy"]:
            self.state["best"] = {
                "validation_accuracy": accuracy,
                "test_accuracy": self._test_accuracy(),
                "epoch": epoch,
            }
        if time.monotonic() - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS:
            self._save(epoch)

    def finish(self) -> dict[str, Any]:
        """Returns the figures of the finished run."""
        return {
            **self.state,
            "final": {
                "test_accuracy": self._test_accuracy(),
                **{key: values[-1] for key, values in self.state["history"].items()},
            },
        }

    def clear(self) -> None:
        """Removes the checkpoints of a finished run."""
        (self.folder / "progress.json").unlink(missing_ok=True)
        for path in self.folder.glob("*.weights.h5"):
            path.unlink()

    def _save(self, epoch: int) -> None:
        checkpoint = f"epoch-{epoch}.weights.h5"
        self.model.save_weights(self.folder / checkpoint)
        write_json(self.folder / "progress.json", {"checkpoint": checkpoint, **self.state})
        for path in self.folder.glob("*.weights.h5"):
            if path.name != checkpoint:
                path.unlink()
        self._saved_at = time.monotonic()

    def _test_accuracy(self) -> float:
        test = self.data.test
        return accuracy(self.model, test.x, test.y)


class EpochBar(keras.callbacks.Callback):
    """Moves the progress bar over all runs, and shows how the present one is doing."""

    def __init__(self, bar: tqdm) -> None:
        super().__init__()
        self.bar = bar

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        shown = {"accuracy": "train", "val_accuracy": "val", "penalty": "penalty"}
        self.bar.set_postfix(
            {label: f"{logs[key]:.3g}" for key, label in shown.items() if logs.get(key)}
        )
        self.bar.update()


def train(
    model: keras.Model,
    data: Splits,
    y_train: np.ndarray,
    folder: Path,
    bar: tqdm,
    callbacks: Sequence[keras.callbacks.Callback],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    augment: str | None = None,
    mixup_beta: float | None = None,
) -> dict[str, Any]:
    """Trains a compiled model from its last checkpoint to the end, and returns the figures."""
    record = Record(folder, data)
    record.restore(model)
    if record.first_epoch:
        bar.write(f"{folder.name}: goes on from its checkpoint after epoch {record.first_epoch}")
    bar.update(record.first_epoch)
    steps = -(-len(y_train) // batch_size)
    batches = training_batches(
        data.train.x,
        y_train,
        batch_size=batch_size,
        seed=seed,
        first_epoch=record.first_epoch,
        augment=augment,
        mixup_beta=mixup_beta,
        num_classes=data.num_classes,
    )
    validation = data.validation
    model.fit(
        batches,
        validation_data=(validation.x, _like_training(validation.y, data, mixup_beta)),
        validation_batch_size=batch_size,
        initial_epoch=record.first_epoch,
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=[
            *callbacks,
            record,
            keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False),
            EpochBar(bar),
        ],
    )
    figures = record.finish()
    write_json(folder / "results.json", figures)
    record.clear()
    return figures


def _like_training(y: np.ndarray, data: Splits, mixup_beta: float | None) -> np.ndarray:
    """Labels in the layout of the training batches: one-hot under mixup."""
    return y if mixup_beta is None else keras.utils.to_categorical(y, data.num_classes)
