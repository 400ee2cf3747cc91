"""Images with their labels, and the errors of loading them."""

from typing import NamedTuple

import numpy as np


class Examples(NamedTuple):
    """Images and their labels.

    `x` has shape `(n, height, width, channels)`, `y` is int32 of shape `(n,)`.
    """

    x: np.ndarray
    y: np.ndarray

    def take(self, rows: np.ndarray) -> "Examples":
        """Returns the examples at the given positions."""
        return Examples(self.x[rows], self.y[rows])


class DatasetNotFoundError(OSError):
    """Raised when a data set is not on this machine and cannot be downloaded."""


class DatasetDamagedError(OSError):
    """Raised when a data set is on this machine, but cannot be read."""
