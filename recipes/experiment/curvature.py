"""Tr(H) of trainings at the epochs where it was measured, and at equal training loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

HESSIAN = "hessian_trace"


def get_measured(run: Mapping[str, Any], key: str) -> np.ndarray:
    """What a run logged at the epochs at whose end Tr(H) was measured."""
    every = run["measures"][HESSIAN]["every_epochs"]
    return np.array(run["history"][key][every - 1 :: every], float)


def add_traces_at_loss(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with Tr(H) at the least training loss that all of them reach, `trace_at_loss`.

    Tr(H) grows and shrinks with the training loss: at the same epoch, a faster training has
    another one for that reason alone.
    """
    records = runs.to_dict("records")
    losses = [get_measured(run, "loss") for run in records]
    traces = [get_measured(run, HESSIAN) for run in records]
    return runs.assign(trace_at_loss=interpolate_at_common_loss(losses, traces))


def interpolate_at_common_loss(
    losses: Sequence[np.ndarray], values: Sequence[np.ndarray]
) -> list[float]:
    """What curves are where their losses are the least one that all of them reach.

    Linear in the logarithm of the loss, between the last point above it and the next one; NaN where
    the first point is below.
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
