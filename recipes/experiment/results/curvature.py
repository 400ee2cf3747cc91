"""Tr(H) at the measured epochs of a training, and at equal training loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

HESSIAN = "hessian_trace"


def get_measured(run: Mapping[str, Any], key: str) -> np.ndarray:
    """Returns the logged values of `key` at the epochs where Tr(H) was measured."""
    every = run["measures"][HESSIAN]["every_epochs"]
    return np.array(run["history"][key][every - 1 :: every], float)


def add_traces_at_loss(runs: pd.DataFrame) -> pd.DataFrame:
    """Adds `trace_at_loss`: Tr(H) at the smallest training loss that all runs reach.

    Tr(H) depends on the training loss: at the same epoch, it differs between runs that are
    merely faster or slower.
    """
    records = runs.to_dict("records")
    losses = [get_measured(run, "loss") for run in records]
    traces = [get_measured(run, HESSIAN) for run in records]
    return runs.assign(trace_at_loss=interpolate_at_common_loss(losses, traces))


def interpolate_at_common_loss(
    losses: Sequence[np.ndarray], values: Sequence[np.ndarray]
) -> list[float]:
    """Interpolates curves at the smallest loss that all of them reach.

    The interpolation is linear in the logarithm of the loss, between the last point above it and
    the next one. It gives NaN if the first point is already below.
    """
    common = max((float(np.nanmin(curve)) for curve in losses), default=np.nan)
    return [interpolate(*curves, common) for curves in zip(losses, values, strict=True)]


def interpolate(losses: np.ndarray, values: np.ndarray, loss: float) -> float:
    below = np.flatnonzero(losses <= loss)
    if not below.size or not below[0]:
        return np.nan
    after, before = below[0], below[0] - 1
    share = np.log(losses[before] / loss) / np.log(losses[before] / losses[after])
    return float(values[before] + share * (values[after] - values[before]))
