"""Hyperband (Li et al., 2018) over alpha on finished runs, with keras-tuner's defaults."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

FACTOR = 3  # by which a round has fewer trials and more epochs than the one before
Round = tuple[int, int]
"""The number of trials, and the epoch until which they are trained."""


def list_brackets(epochs: int) -> list[list[Round]]:
    """Returns the rounds of each bracket of `keras_tuner.Hyperband(max_epochs=epochs)`.

    A bracket starts with new trials and continues the best ones in its further rounds.
    """
    number = next(n for n in itertools.count() if FACTOR**n > epochs)
    last_size = math.ceil(1 + math.log(epochs, FACTOR))
    return [
        [
            (
                math.ceil(last_size / (bracket + 1) * FACTOR**remaining),
                math.ceil(epochs / FACTOR**remaining),
            )
            for remaining in range(bracket, -1, -1)
        ]
        for bracket in range(number - 1, -1, -1)
    ]


def run_hyperband(
    lowest: float, highest: float, epochs: int, score: Callable[[float, int], float]
) -> tuple[float, int]:
    """Runs one iteration of Hyperband.

    Args:
        lowest: The smallest alpha.
        highest: The largest alpha.
        epochs: The number of epochs of a whole training.
        score: A function from an alpha and a number of epochs to the best accuracy so far.

    Returns:
        The alpha of the best trial, and the number of epochs that all trials take. A trial that
        continues another one takes the epochs that are new.
    """
    generator = np.random.default_rng(0)
    trials: list[tuple[float, float]] = []  # scores and alphas
    trained = 0
    for rounds in list_brackets(epochs):
        alphas = np.exp(generator.uniform(math.log(lowest), math.log(highest), rounds[0][0]))
        before = 0
        for size, until in rounds:
            scored = sorted(((score(a, until), a) for a in alphas[:size]), reverse=True)
            trained += len(scored) * (until - before)
            trials, alphas, before = trials + scored, np.array([a for _, a in scored]), until
    return max(trials)[1], trained
