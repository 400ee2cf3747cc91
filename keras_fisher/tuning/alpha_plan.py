"""The trials of a search for alpha: which alphas to train, and for how many epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Trial = tuple[float, int]
"""An alpha, and the epoch until which it is trained."""

_KEPT = 2  # candidates that are trained to the end
_AVERAGED = 5  # scores are means over the last fifth of the epochs, as single epochs vary


def score(values: Sequence[float] | np.ndarray, epochs: int) -> float:
    """Returns the mean of a metric over the last fifth of the epochs so far, to compare alphas."""
    return float(np.mean(values[-math.ceil(epochs / _AVERAGED) :]))


class AlphaPlan(NamedTuple):
    """Trains every alpha for half of the epochs, and the best two to the end.

    An earlier choice would favour small alphas, because penalised networks learn more slowly. Where
    labels are memorised late, even a choice shortly before the end favours them.

    Attributes:
        epochs: The number of epochs of a whole training run.
        alphas: The alphas to compare.
    """

    epochs: int
    alphas: tuple[float, ...]

    @property
    def half(self) -> int:
        """The epoch after which only the best two alphas remain."""
        return math.ceil(self.epochs / 2)

    def list_trials(self, scores: Mapping[Trial, float]) -> list[Trial]:
        """Returns the trials that are known so far, in the order of training.

        Args:
            scores: The scores of finished trials; larger is better.
        """
        trials = [(alpha, self.half) for alpha in self.alphas]
        if any(trial not in scores for trial in trials):
            return trials
        best = sorted(self.alphas, key=lambda alpha: -scores[alpha, self.half])[:_KEPT]
        return trials + [(alpha, self.epochs) for alpha in best]

    def count_epochs(self) -> int:
        """Returns the number of epochs of the search; a trial continues from the earlier one."""
        kept = min(_KEPT, len(self.alphas))
        return len(self.alphas) * self.half + kept * (self.epochs - self.half)


def count_trained_epochs(trials: Sequence[Trial]) -> int:
    """Returns the number of epochs that trials take, each of which continues an earlier one."""
    longest: dict[float, int] = {}
    for alpha, epochs in trials:
        longest[alpha] = max(epochs, longest.get(alpha, 0))
    return sum(longest.values())
