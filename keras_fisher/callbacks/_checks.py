"""Checks of what several callbacks take."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from keras_fisher import _arguments
from keras_fisher.likelihoods import Likelihood

Frequency = int | Literal["epoch"]


def check_freq(freq: Any) -> Frequency:
    """`freq`, or an error unless it is "epoch" or a number of steps."""
    message = f"`freq` must be 'epoch' or an integer >= 1 (of steps). Received: freq={freq!r}"
    if isinstance(freq, bool) or not isinstance(freq, str | int | np.integer):
        raise TypeError(message)
    if freq == "epoch":
        return "epoch"
    if isinstance(freq, str) or freq < 1:
        raise ValueError(message)
    return int(freq)


def check_likelihood(likelihood: Any) -> Likelihood | None:
    """`likelihood`, or an error unless it is one or `None`."""
    if likelihood is None or isinstance(likelihood, Likelihood):
        return likelihood
    raise TypeError(
        "`likelihood` must be a keras_fisher.likelihoods.Likelihood or None. "
        f"Received: likelihood={likelihood!r} ({type(likelihood).__name__})"
    )


def check_seed(seed: Any) -> int | None:
    """`seed`, or an error unless it is an integer of at least 0 or `None`."""
    return None if seed is None else _arguments.check_integer("seed", seed, low=0)
