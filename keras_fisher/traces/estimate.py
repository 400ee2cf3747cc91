"""A mean and how well it is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class _Mean(NamedTuple):
    value: float
    stderr: float
    count: int  # type: ignore[assignment]  # a tuple's own `count` is of no use here


class Estimate(_Mean):
    """A mean and how well it is known: a named tuple `(value, stderr, count)`.

    Attributes:
        value: The mean of what was measured.
        stderr: Its standard error; NaN where fewer than two measurements were made.
        count: How many measurements were made.
        layers: With `by_layer=True`, what each layer adds to `value`: a dictionary from the path of
            the layer to a float, which sums to `value`. Otherwise `None`.
    """

    layers: dict[str, float] | None = None


def estimate(measured: np.ndarray, layers: Sequence[str] | None = None) -> Estimate:
    """Returns the mean of some measurements and its standard error.

    Args:
        measured: Shape `(measurements, parts)`; a measurement is the sum of its parts.
        layers: The layer that each part belongs to, if the estimate is to be split by layer.
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
