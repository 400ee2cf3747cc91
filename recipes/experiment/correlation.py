"""How two figures of the same runs go together; NaN where one of them does not vary."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats


def pearson(x: Any, y: Any) -> float:
    """Pearson's correlation coefficient."""
    return _coefficient(stats.pearsonr, x, y)


def log_pearson(x: Any, y: Any) -> float:
    """Pearson's coefficient of the logarithms, over the points where both are positive."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    positive = (x > 0) & (y > 0)
    return pearson(np.log(x[positive]), np.log(y[positive]))


def spearman(x: Any, y: Any) -> float:
    """Spearman's coefficient of the ranks."""
    return _coefficient(stats.spearmanr, x, y)


def _coefficient(kind: Any, x: Any, y: Any) -> float:
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(kind(x, y).statistic)
