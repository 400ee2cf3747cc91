"""Images with their labels, and what can be wrong with the files that hold them."""

from typing import NamedTuple

import numpy as np


class Examples(NamedTuple):
    """Images and their labels.

    `x` has shape `(n, height, width, channels)`, `y` is int32 of shape `(n,)`.
    """

    x: np.ndarray
    y: np.ndarray

    def take(self, rows: np.ndarray) -> "Examples":
        """The examples at these positions."""
        return Examples(self.x[rows], self.y[rows])


class DatasetNotFoundError(OSError):
    """The data set is not on this machine, and cannot be fetched."""


class DatasetDamagedError(OSError):
    """The data set is on this machine, but cannot be read."""
