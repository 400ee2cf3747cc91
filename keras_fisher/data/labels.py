"""Whether labels are classes."""

import numpy as np


def check_labels(what: str, y: np.ndarray, num_classes: int) -> None:
    """Refuses integer labels of which one lies outside the classes; `what` says whose they are."""
    outside = np.flatnonzero((y < 0) | (y >= num_classes))
    if outside.size:
        raise ValueError(
            f"Labels in {what} must lie in [0, num_classes) = [0, {num_classes}). "
            f"Received: label {y[outside[0]]} at position {outside[0]}"
        )
