"""A mean and its standard error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class _Mean(NamedTuple):
    value: float
    stderr: float
    count: int  # type: ignore[assignment]  # it hides the method `tuple.count`


class Estimate(_Mean):
    """A mean and its standard error: a named tuple `(value, stderr, count)`.

    Attributes:
        value: The mean of the measurements.
        stderr: Its standard error; NaN for fewer than two measurements.
        count: The number of measurements.
        layers: With `by_layer=True`, the contribution of each layer to `value`: a dictionary from
            the layer's path to a float. The contributions sum to `value`. Otherwise `None`.
    """

    layers: dict[str, float] | None = None


def estimate(measured: np.ndarray, layers: Sequence[str] | None = None) -> Estimate:
    """Returns the mean of the measurements and its standard error.

    Args:
        measured: Shape `(measurements, parts)`; a measurement is the sum of its parts.
        layers: The layer of each part, to split the estimate by layer.
    """
    measured = np.asarray(measured, "float64")
    whole = measured.sum(axis=1)
    count = len(whole)
    stderr = float(whole.std(ddof=1)) / count**0.5 if count > 1 else float("nan")
    result = Estimate(float(whole.mean()), stderr, count)
    if layers is not None:
        result.layers = dict.fromkeys(layers, 0.0)
        for layer, part in zip(layers, measured.mean(axis=0), strict=True):
            result.layers[layer] += float(part)
    return result
