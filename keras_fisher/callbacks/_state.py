"""Measurements as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_fisher.traces import Estimate


def to_json(step: int, estimate: Estimate) -> list[float | None]:
    """`[step, value, stderr, count]`, with `None` for NaN, which JSON does not have."""
    numbers = (step, estimate.value, estimate.stderr, estimate.count)
    return [None if math.isnan(number) else number for number in numbers]


def from_json(numbers: Sequence[float | None]) -> tuple[int, Estimate]:
    """The step and the estimate that `to_json` wrote."""
    step, value, stderr, count = (math.nan if number is None else number for number in numbers)
    return int(step), Estimate(value, stderr, int(count))
