"""The result of loading a data set, and checks shared by the pipelines of all backends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_fisher.data.augmentation import AUGMENTATIONS
from keras_fisher.data.labels import check_labels
from keras_fisher.utils.arguments import (
    check_array,
    check_channels_last,
    check_choice,
    check_given_seed,
    check_integer,
    check_lengths,
    check_positive,
)

if TYPE_CHECKING:
    from keras_fisher.data.containers import Batches


class Pipelines(NamedTuple):
    """A data set in batches `(x, y)`, and its sizes for `fit` and for the model.

    `train` is endless, with `steps_per_epoch` batches in an epoch; `validation` and `test` are
    finite. `validation` is `None` if no images are held out. `input_shape` is the shape of one
    image. The first three are a `tf.data.Dataset` with the TensorFlow backend, and with others a
    `keras.utils.PyDataset` whose arrays stay on the device.
    """

    train: Batches
    validation: Batches | None
    test: Batches
    num_classes: int
    input_shape: tuple[int, int, int]
    steps_per_epoch: int


def check_training(
    batch_size: int, seed: int, first_epoch: int, augment: str | None, mixup_beta: float | None
) -> None:
    """Checks the arguments that can be checked before images are loaded."""
    check_integer("batch_size", batch_size, low=1)
    check_given_seed(seed)
    check_integer("first_epoch", first_epoch, low=0, high=sys.maxsize - 1)
    if augment is not None:
        check_choice("augment", augment, tuple(AUGMENTATIONS))
        check_channels_last()
    if mixup_beta is not None:
        check_positive("mixup_beta", mixup_beta)


def check_classes_to_mix(num_classes: int | None) -> int:
    """Returns `num_classes`; raises if it is missing, as mixup of integer labels needs it."""
    if num_classes is None:
        raise ValueError(
            "Mixup of integer labels needs `num_classes`. Received: num_classes=None. "
            "Pass the number of classes, or one-hot labels."
        )
    return check_integer("num_classes", num_classes, low=2)


def check_floating(x: np.ndarray) -> None:
    """Raises unless mixup can interpolate `x`."""
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        raise TypeError(
            "`x` must be floating-point for mixup, or `normalisation` given. "
            f"Received: x of dtype {x.dtype}"
        )


def check_examples(
    x: Any, y: Any, batch_size: int, augment: str | None, num_classes: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the examples as arrays; raises unless they are valid for training."""
    x, y = check_array("x", x), check_array("y", y)
    check_lengths("x", x, y)
    check_integer("batch_size", batch_size, 1, len(x))
    if augment is not None and x.ndim != 4:
        raise ValueError(
            "`x` must have shape (n, height, width, channels) to be augmented. "
            f"Received: shape {x.shape}"
        )
    if num_classes is not None:
        check_integer("num_classes", num_classes, low=1)
        if y.ndim == 1:
            check_labels("`y`", y, num_classes)
    return x, y
