"""The training, validation and test data of a run."""

from __future__ import annotations

import abc
import functools
import math
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from experiment.errors import SettingsError
from experiment.plan.setting import UNIFORM, Run, write_flag
from experiment.run.losses import takes_one_hot_labels
from experiment.run.sentences import load_sentences
from keras_fisher import data as kf_data
from keras_fisher.data.human_labels import FILES
from keras_fisher.data.partition import partition
from keras_fisher.traces import accuracy

HUMAN_LABELS = "CIFAR_N_DIR"  # the environment variable with their folder, as TFDS_DATA_DIR


class Data(abc.ABC):
    """The data set of a run.

    `training` holds the training examples without augmentation, for measurements; `validation` is
    passed to `fit`. If no examples are held out, the test examples serve as validation.
    """

    training: Any
    validation: Any
    num_classes: int
    input_shape: tuple[int, ...]

    def __init__(self, run: Run, num_train: float) -> None:
        for name in ("batch_size", "fisher_examples"):
            if (given := getattr(run, name)) > num_train:
                raise SettingsError(
                    f"`{write_flag(name)}` must be at most the number of training examples, "
                    f"{num_train:.0f}. Received: {given}"
                )
        self.full_epoch = math.ceil(num_train / run.batch_size)
        self.steps_per_epoch = run.steps_per_epoch or self.full_epoch

    def make_batches(self, first_epoch: int) -> Any:
        """Returns the training batches, starting at `first_epoch` (of `steps_per_epoch` steps)."""
        passes, steps = divmod(first_epoch * self.steps_per_epoch, self.full_epoch)
        return self._make_batches(passes).skip(steps)

    @abc.abstractmethod
    def _make_batches(self, passes: int) -> Any:
        """Returns the training batches, starting after `passes` passes over the examples."""

    @abc.abstractmethod
    def test_accuracy(self, model: keras.Model) -> float | None:
        """Returns the test accuracy, or `None` if the test examples serve as validation."""


class ArrayData(Data):
    """A data set that fits in memory, with optional label noise and mixup.

    `judged` holds the examples whose labels are judged, and `is_wrong` which of them are wrong: all
    training examples or, with `folds`, the part that is not trained on.
    `test` holds the test examples, also if they serve as validation. `noisy_validation` has
    validation labels that are as noisy as the training labels.
    """

    def __init__(self, run: Run) -> None:
        choice = (run.dataset, run.validation_size, run.num_train or None, run.data_seed)
        splits = _read(*choice)
        x, clean = splits.train
        self.run = run
        test_x, test_y = splits.test
        kept = run.test_size or len(test_y)
        self.test = kf_data.Examples(test_x[:kept], test_y[:kept])
        self.num_classes, self.input_shape = splits.num_classes, x.shape[1:]
        self._is_validated = bool(len(splits.validation.y))
        val_x, val_y = splits.validation if self._is_validated else self.test
        y, noisy_val_y = clean, val_y
        if run.noise_source != UNIFORM:
            y, held_out = _read_human_labels(run.noise_source, *choice)
            noisy_val_y = held_out if self._is_validated else val_y
        elif run.noise:
            y, noisy_val_y = (
                kf_data.uniform_label_noise(labels, run.noise, self.num_classes, seed)[0]
                for labels, seed in ((clean, run.data_seed), (val_y, run.data_seed + 1))
            )
        self.is_wrong = y != clean
        self.training = self.judged = (x, y)
        if run.folds:
            self._hold_out(run)
        super().__init__(run, len(self.training[1]))
        self.noisy_validation = (val_x, noisy_val_y)
        if takes_one_hot_labels(run):
            val_y = keras.utils.to_categorical(val_y, self.num_classes)
        self.validation = (val_x, val_y)

    def _hold_out(self, run: Run) -> None:
        """Keeps one part of the training examples out of training, for cross-validation."""
        x, y = self.training
        is_held_out = np.arange(len(y)) % run.folds == run.fold - 1
        self.training, self.judged = ((x[c], y[c]) for c in (~is_held_out, is_held_out))
        self.is_wrong = self.is_wrong[is_held_out]

    def _make_batches(self, passes: int) -> Any:
        run = self.run
        x, y = self.training
        if run.elr:
            y = np.stack([y, np.arange(len(y), dtype=y.dtype)], axis=1)
        elif run.label_smoothing:
            y = keras.utils.to_categorical(y, self.num_classes)
        return kf_data.training_batches(
            x,
            y,
            batch_size=run.batch_size,
            seed=run.seed,
            first_epoch=passes,
            augment=_augmentation(run),
            mixup_beta=run.mixup_beta or None,
            num_classes=self.num_classes,
        )

    def test_accuracy(self, model: keras.Model) -> float | None:
        return measure_accuracy(model, *self.test) if self._is_validated else None


class StreamedData(Data):
    """ImageNet, which does not fit in memory, without label noise and mixup."""

    def __init__(self, run: Run) -> None:
        if run.noise or run.noise_source != UNIFORM or run.mixup_beta or run.validation_size:
            raise SettingsError(f"{run.dataset} has no wrong labels, mixup or validation images")
        self.run = run
        pipelines = self._load(0, augment=None)
        super().__init__(run, pipelines.steps_per_epoch * run.batch_size)
        self.num_classes, self.input_shape = pipelines.num_classes, pipelines.input_shape
        self.training, self.validation = pipelines.train, pipelines.test

    def _make_batches(self, passes: int) -> Any:
        return self._load(passes, augment=_augmentation(self.run)).train

    def _load(self, passes: int, augment: str | None) -> kf_data.Pipelines:
        return kf_data.load(
            self.run.dataset,
            batch_size=self.run.batch_size,
            augment=augment,
            num_train=self.run.num_train or None,
            seed=self.run.seed,
            first_epoch=passes,
        )

    def test_accuracy(self, model: keras.Model) -> float | None:
        return None


def measure_accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Returns the accuracy; 0 if an output is NaN or infinite, since it predicts no label."""
    measured = accuracy(model, x, y)
    return 0.0 if math.isnan(measured) else measured


def load_data(run: Run) -> Data:
    """Returns the data of a run; arrays stay in memory for the next run on the same ones."""
    try:
        return (StreamedData if run.dataset == "imagenet2012" else ArrayData)(run)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(str(error)) from error


@functools.lru_cache(maxsize=1)
def _read(name: str, validation_size: int, num_train: int | None, seed: int) -> kf_data.Splits:
    if name == "sentences":
        return load_sentences(validation_size, num_train, seed)
    return kf_data.load_arrays(
        name, validation_size=validation_size, num_train=num_train, seed=seed
    )


def has_human_labels(name: str) -> bool:
    """Whether the file with the human labels of a data set is in the folder that the user named."""
    folder = os.environ.get(HUMAN_LABELS, "")
    return bool(folder) and name in FILES and Path(folder, FILES[name]).exists()


@functools.lru_cache(maxsize=1)
def _read_human_labels(
    source: str, name: str, validation_size: int, num_train: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the human labels of the training examples, and of the held-out ones."""
    folder = os.environ.get(HUMAN_LABELS)
    if not folder:
        raise SettingsError(
            f"`--noise-source` {source} needs the files of CIFAR-10N and CIFAR-100N. Set the "
            f"environment variable {HUMAN_LABELS} to the folder that holds them "
            "(docs/data_and_networks.md says where to get them)"
        )
    labels = kf_data.human_labels(name, source, folder)
    splits = kf_data.load_arrays(
        name, validation_size=validation_size, num_train=num_train, seed=seed, labels=labels
    )
    # Which images are held out does not depend on labels.
    held_out = partition(labels, validation_size, num_train, seed).validation
    return splits.train.y, labels[held_out]


def _augmentation(run: Run) -> str | None:
    return None if run.augment == "none" else run.augment
