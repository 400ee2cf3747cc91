"""Checks of labels."""

import numpy as np


def check_labels(what: str, y: np.ndarray, num_classes: int) -> None:
    """Raises if an integer label is not a class; `what` names the labels in the message."""
    outside = np.flatnonzero((y < 0) | (y >= num_classes))
    if outside.size:
        raise ValueError(
            f"Labels in {what} must lie in [0, num_classes) = [0, {num_classes}). "
            f"Received: label {y[outside[0]]} at position {outside[0]}"
        )
