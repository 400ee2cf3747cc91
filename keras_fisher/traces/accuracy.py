"""The accuracy of a model on arrays."""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_fisher.backend.types import Tensor
from keras_fisher.utils import arguments


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray, batch_size: int = 512) -> float:
    """Measures the fraction of examples whose label has the largest output, in inference mode.

    Unlike `model.evaluate`, it needs no compiled metric, and it is cheap enough for a few hundred
    examples after every epoch.

    Args:
        model: A Keras model with one output.
        x: Inputs, an array of shape `(n, ...)`.
        y: Integer labels, an array of shape `(n,)`.
        batch_size: The number of examples evaluated at a time.

    Returns:
        A float in `[0, 1]`; NaN if an output is NaN or infinite.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `x` and `y` differ in length, `y` is not a vector, there are no examples, the
            model does not have one output per class, or a label is none of them.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: model={model!r}")
    x, y = arguments.check_array("x", x), arguments.check_array("y", y)
    arguments.check_integer_labels(y)
    arguments.check_lengths("x", x, y)
    batch_size = arguments.check_integer("batch_size", batch_size, low=1)
    outputs = model.predict(x, batch_size=batch_size, verbose=0)
    check_outputs(model, outputs)
    check_range(y, outputs.shape[1], model.name)
    if not np.isfinite(outputs).all():
        return math.nan
    return float(np.mean(np.argmax(outputs, axis=-1) == y))


def check_range(y: np.ndarray, num_classes: int, name: str) -> None:
    """Raises unless labels are classes of the outputs."""
    if not 0 <= y.min() <= y.max() < num_classes:
        raise ValueError(
            f"`y` must hold labels from 0 to {num_classes - 1}, one for each of the {num_classes} "
            f"outputs of {name!r}. Received: labels from {y.min()} to {y.max()}"
        )


def check_outputs(model: keras.Model, outputs: Tensor) -> None:
    """Raises unless a model's outputs, actual or symbolic, are one per class."""
    if len(outputs.shape) != 2 or outputs.shape[1] < 2:
        raise ValueError(
            "`model` must have one output per class, for at least 2 classes. "
            f"Received: {model.name!r}, with outputs of shape {tuple(outputs.shape)}"
        )
