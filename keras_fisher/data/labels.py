"""Checks of labels."""

from typing import Any

import numpy as np


def check_labels(what: str, y: np.ndarray, num_classes: int) -> None:
    """Raises if an integer label is not a class; `what` names the labels in the message."""
    outside = np.flatnonzero((y < 0) | (y >= num_classes))
    if outside.size:
        raise ValueError(
            f"Labels in {what} must lie in [0, num_classes) = [0, {num_classes}). "
            f"Received: label {y[outside[0]]} at position {outside[0]}"
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
