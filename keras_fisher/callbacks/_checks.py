"""Checks of what several callbacks take."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

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


def check_rereadable(data: Any) -> None:
    """Raises if `data` can be read only once, as a generator can."""
    if iter(data) is data:
        raise TypeError(
            "`data` must be `(x, y)` or a tf.data.Dataset, which can be read again and again. "
            f"Received: a {type(data).__name__}"
        )
