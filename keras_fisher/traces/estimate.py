"""A mean and its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class _Mean(NamedTuple):
    value: float
    stderr: float
    count: int  # type: ignore[assignment]  # it hides the method `tuple.count`


class Estimate(_Mean):
    """A mean and its standard error: a named tuple `(value, stderr, count)`.

    `float(estimate)` is the value, and `str(estimate)` rounds value and standard error for reading.

    The difference of two estimates is an `Estimate` with the standard error of independent
    estimates, sqrt(stderr_a^2 + stderr_b^2), the `count` of both together, and no `layers`.
    Measurements on different examples are independent, and so are measurements of `hessian_trace`
    on the same examples with different probes. Other measurements on the same examples usually are
    not: for these, the
    differences of squared `per_example_gradient_norms` have the right standard error.

    Examples:
        >>> from keras_fisher import Estimate
        >>> before, after = Estimate(12.345, 0.3, 500), Estimate(8.2, 0.4, 300)
        >>> float(before)
        12.345
        >>> print(before - after)
        4.15 ± 0.50 (count=800)
        >>> value, stderr, count = after

    Attributes:
        value: The mean of the measurements.
        stderr: Its standard error; NaN for fewer than two measurements.
        count: The number of measurements.
        layers: With `by_layer=True`, the contribution of each layer to `value`: a dictionary from
            the layer's path to a float. The contributions sum to `value`. Otherwise `None`.
    """

    layers: dict[str, float] | None = None

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        value, stderr, count = self
        if 1e-5 <= stderr < 1e6:
            decimals = max(0, 1 - math.floor(math.log10(stderr)))
            return f"{value:.{decimals}f} ± {stderr:.{decimals}f} (count={count})"
        return f"{value:.4g} ± {stderr:.2g} (count={count})"

    def __sub__(self, other: Estimate) -> Estimate:
        if not isinstance(other, Estimate):
            return NotImplemented
        stderr = math.hypot(self.stderr, other.stderr)
        return Estimate(self.value - other.value, stderr, self.count + other.count)


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
