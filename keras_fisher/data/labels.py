"""Checks of labels."""

from typing import Any

import keras
import numpy as np


def check_labels(what: str, y: np.ndarray, num_classes: int) -> None:
    """Raises if an integer label is not a class; `what` names the labels in the message."""
    outside = np.flatnonzero((y < 0) | (y >= num_classes))
    if outside.size:
        raise ValueError(
            f"Labels in {what} must lie in [0, num_classes) = [0, {num_classes}). "
            f"Received: label {y[outside[0]]} at position {outside[0]}"
        )


def are_classes_to_mix(y: Any, where: str) -> bool:
    """Returns whether labels to mix are integer classes, as opposed to one-hot.

    Args:
        y: An array, a tensor or a `tf.TensorSpec` of labels.
        where: What is checked, such as "`y` must hold", for the message.

    Raises:
        ValueError: if they are neither, such as class numbers of shape `(n, 1)`.
    """
    dtype = keras.backend.standardize_dtype(y.dtype)
    if len(y.shape) == 1 and keras.backend.is_int_dtype(dtype):
        return True
    if len(y.shape) == 2 and y.shape[-1] != 1:
        return False
    raise ValueError(
        f"{where} integer labels of shape (batch,) or one-hot labels of shape "
        f"(batch, num_classes) for mixup. Received: y of shape {tuple(y.shape)} and dtype {dtype}"
    )


def check_label_array(name: str, y: Any, num_classes: int) -> None:
    """Raises unless the argument `name` is a NumPy array with a class for each example."""
    if not isinstance(y, np.ndarray) or not np.issubdtype(y.dtype, np.integer):
        raise TypeError(
            f"`{name}` must be a NumPy array of integers. "
            f"Received: {name} of type {type(y).__name__}, dtype {getattr(y, 'dtype', None)}"
        )
    if y.ndim != 1:
        raise ValueError(f"`{name}` must have shape (n,). Received: {name} of shape {y.shape}")
    check_labels(f"`{name}`", y, num_classes)
