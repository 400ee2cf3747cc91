"""How two figures of the same runs go together; NaN where one of them does not vary."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def pearson(x: Any, y: Any) -> float:
    """Pearson's correlation coefficient."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if not len(x) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def log_pearson(x: Any, y: Any) -> float:
    """Pearson's coefficient of the logarithms, over the points where both are positive."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    positive = (x > 0) & (y > 0)
    return pearson(np.log(x[positive]), np.log(y[positive]))


def spearman(x: Any, y: Any) -> float:
    """Spearman's coefficient: Pearson's of the ranks, equal values sharing their mean rank."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(values: Any) -> np.ndarray:
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[where]
