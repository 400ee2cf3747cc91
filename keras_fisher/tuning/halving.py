"""Successive halving over alphas: which alphas to train, and for how many epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Trial = tuple[float, int]
"""An alpha, and the epoch until which it is trained."""

_KEPT = 2  # candidates after the first part
_STEP = 2  # half decades between alphas, until the best one lies inside
_LOWEST, _HIGHEST = -2, 6  # half decades around the proposed alpha
_DIGITS = 3  # significant digits of an alpha
_AVERAGED = 5  # scores are means over the last fifth of the epochs, as single epochs vary


def score(values: Any, epochs: int) -> float:
    """Returns the mean of a metric over the last fifth of the epochs so far, to compare alphas."""
    return float(np.mean(values[-math.ceil(epochs / _AVERAGED) :]))


class AlphaHalving(NamedTuple):
    """A search for alpha that trains most candidates for a quarter of the epochs only.

    It continues with the best two, and from two thirds of the epochs on with the best one. An
    earlier choice would favour small alphas, because penalised networks learn more slowly at first.

    Attributes:
        epochs: The number of epochs of a whole training.
        alphas: The alphas to compare, if they are given.
        value: The middle of `alpha_range`, to search around if no alphas are given. The search
            begins with it and ten times as much, continues in steps of ten until the best alpha
            lies inside, and then tries its neighbours, about three times as large and as small.
    """

    epochs: int
    alphas: tuple[float, ...] = ()
    value: float = 0.0

    @property
    def rungs(self) -> tuple[int, int, int]:
        """The epochs at which candidates are dropped, and the last one."""
        return round(self.epochs / 4), round(2 * self.epochs / 3), self.epochs

    def list_trials(self, scores: Mapping[Trial, float]) -> list[Trial]:
        """Returns the trials that are known so far, in the order of training.

        Args:
            scores: The scores of finished trials; larger is better.
        """
        first, second, last = self.rungs
        candidates = self._list_candidates({a: s for (a, e), s in scores.items() if e == first})
        trials = [(alpha, first) for alpha in candidates]
        for epochs, kept in ((second, _KEPT), (last, 1)):
            if any(trial not in scores for trial in trials):
                return trials
            before = trials[-1][1]
            candidates = sorted(candidates, key=lambda a: -scores[a, before])[:kept]
            trials += [(alpha, epochs) for alpha in candidates]
        return trials

    def _list_candidates(self, scores: Mapping[float, float]) -> list[float]:
        """Returns the alphas of the first part, given the scores of some of them."""
        if self.alphas:
            return list(self.alphas)
        tried = [0, _STEP]
        while all(self._alpha(k) in scores for k in tried):
            best = max(tried, key=lambda k: scores[self._alpha(k)])
            others = self._list_next(best, tried)
            if not others:
                break
            tried += others
        return [self._alpha(k) for k in tried]

    def _list_next(self, best: int, tried: Sequence[int]) -> list[int]:
        """Returns the half decades to try next; none once the best one has its neighbours."""
        if best == max(tried) and best + _STEP <= _HIGHEST:
            return [best + _STEP]
        if best == min(tried) and best - _STEP >= _LOWEST:
            return [best - _STEP]
        around = (k for k in (best + 1, best - 1) if _LOWEST <= k <= _HIGHEST)
        return [k for k in around if k not in tried]

    def _alpha(self, half_decades: int) -> float:
        return float(f"{self.value * 10 ** (half_decades / 2):.{_DIGITS}g}")


def count_epochs(trials: Sequence[Trial]) -> int:
    """Returns the number of epochs that trials take, each of which continues an earlier one."""
    longest: dict[float, int] = {}
    for alpha, epochs in trials:
        longest[alpha] = max(epochs, longest.get(alpha, 0))
    return sum(longest.values())
