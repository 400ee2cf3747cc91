"""Normalisation of images with per-channel statistics."""

from typing import NamedTuple

import numpy as np


class Normalisation(NamedTuple):
    """The mean and the standard deviation of each channel, float32 of shape `(channels,)`.

    The standard deviation of a constant channel is 1, as its images differ from the mean by 0.
    """

    mean: np.ndarray
    std: np.ndarray

    def array(self, images: np.ndarray) -> np.ndarray:
        """Returns `(images - mean) / std` as a float32 array."""
        x = images.astype(np.float32)
        x -= self.mean
        x /= self.std
        return x


def measure(images: np.ndarray, rows: np.ndarray) -> Normalisation:
    """Computes the per-channel statistics of the given rows of uint8 images.

    It counts each value, which needs little memory and is exact for any order of rows.
    """
    channels = range(images.shape[-1])
    counts = np.zeros((len(channels), 256), np.int64)
    for some in np.array_split(rows, 1 + len(rows) // 1000):
        pixels = images[some]
        counts += [np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in channels]
    shares = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256)
    mean = shares @ values
    variance = [share @ (values - centre) ** 2 for share, centre in zip(shares, mean, strict=True)]
    std = np.where(np.equal(variance, 0), 1, np.sqrt(variance))
    return Normalisation(mean.astype(np.float32), std.astype(np.float32))
