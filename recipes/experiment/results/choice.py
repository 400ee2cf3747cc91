"""Ways to choose alpha, computed from whole training runs with each of ten alphas.

A search that continues from checkpoints gives the same curves as whole training runs. So each way
uses only the epochs that it pays for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiment.results import hyperband
from keras_fisher.tuning.alpha_plan import AlphaPlan, Trial, count_trained_epochs, score
from keras_fisher.tuning.alpha_search import ALPHAS

DEFAULT = 0.01  # alpha of FisherPenaltyModel
MOMENTUM = 0.9  # of SGD
MODERATE = 0.3  # an alpha that suits many settings if the ratio of gradients is limited

Rungs = Sequence[tuple[int, int]]
"""Epochs, and the number of alphas that continue from there."""


class Choice(NamedTuple):
    """The result of a way to choose alpha.

    Attributes:
        accuracy: The test accuracy at the end.
        cost: The epochs of the search and of the final model, in whole training runs.
    """

    accuracy: float
    cost: float


@dataclasses.dataclass(frozen=True)
class Case:
    """The training runs of one setting and seed.

    Attributes:
        plain: The training without a penalty.
        penalised: The runs by alpha.
        limited: Those with `max_penalty_ratio`, by alpha.
        key: The accuracy to choose by, a name in the logs.
    """

    plain: pd.Series
    penalised: dict[float, pd.Series]
    limited: dict[float, pd.Series]
    key: str

    @property
    def best(self) -> float:
        """The best test accuracy of all alphas."""
        return max(run["final_test_accuracy"] for run in self.penalised.values())

    @property
    def epochs(self) -> int:
        return int(self.plain["epochs"])

    @property
    def start(self) -> int:
        """The number of plain epochs before `alpha_range` is measured."""
        return min(int(np.isnan(get_curve(self.plain, "proposed_alpha")).sum()) + 1, self.epochs)

    def get_middle(self) -> float:
        """Returns the middle of `alpha_range`.

        If the plain loss never falls by a tenth, there is no range, and the default stands in.
        """
        proposed = get_curve(self.plain, "proposed_alpha")
        return DEFAULT if np.isnan(proposed).all() else float(proposed[-1])

    def find_nearest(self, value: float) -> float:
        """Returns the alpha that is nearest to a value and was trained with."""
        return min(self.penalised, key=lambda alpha: abs(math.log(alpha / value)))

    def choose(self, value: float, cost: float = 1.0) -> Choice:
        """Returns the choice of the alpha that is nearest to a value."""
        return Choice(self.penalised[self.find_nearest(value)]["final_test_accuracy"], cost)

    def halve(self, alphas: Sequence[float], rungs: Rungs) -> list[Trial]:
        """Returns the trials of successive halving; the last one is of the alpha that it finds."""
        candidates, trials = list(alphas), []
        for epochs, kept in rungs:
            trials += [(alpha, epochs) for alpha in candidates]
            candidates = sorted(candidates, key=lambda a: -self._score(a, epochs))[:kept]
        return [*trials, (candidates[0], self.epochs)]

    def search(self, plan: AlphaPlan) -> tuple[float, int]:
        """Returns the alpha that `find_alpha` finds, and its epochs."""
        scores: dict[Trial, float] = {}
        while new := [trial for trial in plan.list_trials(scores) if trial not in scores]:
            scores |= {trial: self._score(*trial) for trial in new}
        ends = {alpha: score for (alpha, epochs), score in scores.items() if epochs == plan.epochs}
        return max(ends, key=ends.__getitem__), count_trained_epochs([*scores])

    def _score(self, alpha: float, epochs: int) -> float:
        return score(get_curve(self.penalised[alpha], self.key)[:epochs], epochs)


def get_curve(run: pd.Series, key: str) -> np.ndarray:
    """Returns the logged values of a run at each epoch, NaN where there is none."""
    return np.array(run["history"].get(key, [math.nan] * int(run["epochs"])), float)


# ---- The ways ------------------------------------------------------------------------------------

Way = Callable[[Case], Choice]


def train_plainly(case: Case) -> Choice:
    return Choice(case.plain["final_test_accuracy"], 1.0)


def take_default(case: Case) -> Choice:
    return case.choose(DEFAULT)


def take_middle(case: Case) -> Choice:
    return case.choose(case.get_middle(), 1.0 + case.start / case.epochs)


def follow_implicit_rule(case: Case) -> Choice:
    """Takes rate / (1 - momentum) / 4, the weight of the implicit penalty of SGD.

    A step of SGD with rate h follows the loss plus h/4 times the squared norm of its gradient
    (Barrett & Dherin, 2021); momentum multiplies the rate by 1 / (1 - momentum).
    """
    if case.plain["optimizer"] != "sgd":
        return Choice(math.nan, 1.0)
    return case.choose(case.plain["learning_rate"] / (1 - MOMENTUM) / 4)


def limit(pick: Callable[[Sequence[float]], float]) -> Way:
    """Returns the way that takes one of the alphas that were trained with a limit."""
    return lambda case: Choice(case.limited[pick(sorted(case.limited))]["final_test_accuracy"], 1.0)


def find_moderate(alphas: Sequence[float]) -> float:
    """Returns the alpha nearest to 0.3."""
    return min(alphas, key=lambda alpha: abs(math.log(alpha / MODERATE)))


def plan_halving(alphas: Callable[[Case], Sequence[float]], rungs: Callable[[int], Rungs]) -> Way:
    """Returns the way that searches alphas by successive halving."""

    def choose(case: Case) -> Choice:
        tried = alphas(case)
        start = 0 if len(tried) == len(case.penalised) else case.start
        trials = case.halve(tried, rungs(case.epochs))
        return case.choose(trials[-1][0], (count_trained_epochs(trials) + start) / case.epochs)

    return choose


def find_alpha(case: Case) -> Choice:
    alphas = sorted({case.find_nearest(alpha) for alpha in ALPHAS})
    alpha, epochs = case.search(AlphaPlan(case.epochs, tuple(alphas)))
    return case.choose(alpha, epochs / case.epochs)


def run_hyperband(case: Case) -> Choice:
    def find_highest(alpha: float, epochs: int) -> float:
        return float(np.max(get_curve(case.penalised[case.find_nearest(alpha)], case.key)[:epochs]))

    alpha, epochs = hyperband.run_hyperband(
        min(case.penalised), max(case.penalised), case.epochs, find_highest
    )
    return case.choose(alpha, epochs / case.epochs)


def take_all(case: Case) -> list[float]:
    return sorted(case.penalised)


def take_three(case: Case) -> list[float]:
    """Returns three alphas of `alpha_range`, ten times apart."""
    middle = case.get_middle()
    return sorted({case.find_nearest(middle * 10**power) for power in (-1.0, 0.0, 1.0)})


def train_to_end(epochs: int) -> Rungs:
    return [(epochs, 1)]


def plan_budget(*parts: int) -> Callable[[int], Rungs]:
    """Returns the rungs that leave 5, 2 and 1 of ten alphas after these parts of a training."""
    return lambda epochs: [
        (max(1, round(epochs / part)), kept) for part, kept in zip(parts, (5, 2, 1), strict=True)
    ]


FIND_ALPHA = "`find_alpha`"
# Titles are completed with the number of alphas, the largest limited one, and the limit.
WAYS: dict[str, Way] = {
    "no penalty": train_plainly,
    "alpha 0.01, the default": take_default,
    "the middle of `alpha_range`": take_middle,
    "three alphas of `alpha_range`": plan_halving(take_three, train_to_end),
    FIND_ALPHA: find_alpha,
    "successive halving over {count}, two training runs": plan_halving(
        take_all, plan_budget(16, 8, 4)
    ),
    "successive halving over {count}, three training runs": plan_halving(
        take_all, plan_budget(10, 4, 2)
    ),
    "keras-tuner's `Hyperband`": run_hyperband,
    "all {count} (G.2)": plan_halving(take_all, train_to_end),
    "alpha = rate / (1 - momentum) / 4": follow_implicit_rule,
    "alpha 0.3, `max_penalty_ratio={limit:g}`": limit(find_moderate),
    "alpha {largest:g}, `max_penalty_ratio={limit:g}`": limit(max),
}
