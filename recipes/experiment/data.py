"""The training, validation and test data of a run."""

from __future__ import annotations

import abc
import functools
import math
import os
from typing import Any

import keras
import numpy as np

from experiment.errors import SettingsError
from experiment.sentences import load_sentences
from experiment.setting import UNIFORM, Run, write_flag
from keras_fisher import data as kf_data
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
    """

    def __init__(self, run: Run) -> None:
        choice = (run.dataset, run.validation_size, run.num_train or None, run.data_seed)
        splits = _read(*choice)
        x, clean = splits.train
        self.run = run
        test_x, test_y = splits.test
        kept = run.test_size or len(test_y)
        self._test = kf_data.Examples(test_x[:kept], test_y[:kept])
        self.num_classes, self.input_shape = splits.num_classes, x.shape[1:]
        y = clean
        if run.noise_source != UNIFORM:
            y = _read_human_labels(run.noise_source, *choice)
        elif run.noise:
            y, _ = kf_data.uniform_label_noise(clean, run.noise, self.num_classes, run.data_seed)
        self.is_wrong = y != clean
        self.training = self.judged = (x, y)
        if run.folds:
            self._hold_out(run)
        super().__init__(run, len(self.training[1]))
        self._is_validated = bool(len(splits.validation.y))
        val_x, val_y = splits.validation if self._is_validated else self._test
        self.noisy_validation = (val_x, val_y)
        if run.noise:
            noisy = kf_data.uniform_label_noise(
                val_y, run.noise, self.num_classes, run.data_seed + 1
            )
            self.noisy_validation = (val_x, noisy[0])
        if run.mixup_beta:
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
        return kf_data.training_batches(
            *self.training,
            batch_size=run.batch_size,
            seed=run.seed,
            first_epoch=passes,
            augment=_augmentation(run),
            mixup_beta=run.mixup_beta or None,
            num_classes=self.num_classes,
        )

    def test_accuracy(self, model: keras.Model) -> float | None:
        return accuracy(model, *self._test) if self._is_validated else None


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


@functools.lru_cache(maxsize=1)
def _read_human_labels(
    source: str, name: str, validation_size: int, num_train: int | None, seed: int
) -> np.ndarray:
    """Returns the human labels of the training examples."""
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
    return splits.train.y


def _augmentation(run: Run) -> str | None:
    return None if run.augment == "none" else run.augment
