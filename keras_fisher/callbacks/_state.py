"""Measurements as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_fisher.traces import Estimate


def number_to_json(number: float) -> float | str:
    """The number, or its name ("nan", "inf") where JSON has none such."""
    return number if math.isfinite(number) else str(number)


def to_json(step: int, estimate: Estimate) -> list[float | str]:
    """`[step, value, stderr, count]`."""
    return [number_to_json(number) for number in (step, *estimate)]


def from_json(numbers: Sequence[float | str]) -> tuple[int, Estimate]:
    """The step and the estimate that `to_json` wrote."""
    step, value, stderr, count = map(float, numbers)
    return int(step), Estimate(value, stderr, int(count))
