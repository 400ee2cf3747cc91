"""The values that the paper searches, on logarithmic scales."""

from __future__ import annotations

import numpy as np

from keras_fisher.penalties import PENALTIES
from keras_fisher.utils import arguments

_DIGITS = 3  # significant digits: values are easy to type and to use in folder names


def alphas(value: float = 0.01, num: int = 10) -> tuple[float, ...]:
    """Returns alphas to search around `value`, v: `num` from v/10 to 10 v (section 4, G.2).

    Appendix G.2 finds v = 0.01 suitable for FP, GP and GP_r, and larger values for GP_x. Appendix C
    uses v = 0.1 for a penalty computed at every step, and v = 0.001 for the penalty on one example
    (eq. 6).

    Examples:
        >>> import keras_fisher as kf
        >>> kf.tuning.alphas(num=5)
        (0.001, 0.00316, 0.01, 0.0316, 0.1)

    Args:
        value: The middle of the range.
        num: The number of values; the paper uses 10, and 5 on Tiny ImageNet.

    Returns:
        Values in ascending order, rounded to three digits.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `value` is not positive, or `num` is below 2.
    """
    value = arguments.check_positive("value", value)
    return _space_evenly(value / 10, 10 * value, arguments.check_integer("num", num, low=2))


def learning_rates(low: float = 0.01, high: float = 1.0, num: int = 5) -> tuple[float, ...]:
    """Returns learning rates to search: `num` from `low` to `high` (appendix G.2).

    Examples:
        >>> import keras_fisher as kf
        >>> kf.tuning.learning_rates()
        (0.01, 0.0316, 0.1, 0.316, 1.0)

    Args:
        low: The smallest rate. The paper moves the range until the best rate lies inside it.
        high: The largest rate.
        num: The number of rates.

    Returns:
        Values in ascending order, rounded to three digits.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `low` is not positive, `high` is not above it, or `num` is below 2.
    """
    low, high = arguments.check_positive("low", low), arguments.check_positive("high", high)
    if low >= high:
        raise ValueError(f"`high` must be above `low`. Received: low={low}, high={high}")
    return _space_evenly(low, high, arguments.check_integer("num", num, low=2))


def noisy_label_alphas(penalty: str = "fp") -> tuple[float, ...]:
    """Returns the alphas that appendix G.3 lists for noisy labels.

    Examples:
        >>> import keras_fisher as kf
        >>> kf.tuning.noisy_label_alphas()
        (0.01, 0.1, 0.31, 10.0)

    Args:
        penalty: "fp", "gp" or "gp_r", which share a list, or "gp_x".

    Returns:
        Values in ascending order.

    Raises:
        ValueError: if `penalty` is unknown.
    """
    penalty = arguments.check_choice("penalty", penalty, tuple(PENALTIES))
    return (10.0, 30.0, 100.0, 300.0, 1000.0) if penalty == "gp_x" else (0.01, 0.1, 0.31, 10.0)


def mixup_betas() -> tuple[float, ...]:
    """Returns the betas of mixup that appendix G.3 lists for noisy labels.

    Examples:
        >>> import keras_fisher as kf
        >>> kf.tuning.mixup_betas()
        (0.4, 0.8, 1.6, 3.2, 6.4)

    Returns:
        Values in ascending order.
    """
    return (0.4, 0.8, 1.6, 3.2, 6.4)


def _space_evenly(low: float, high: float, num: int) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS}g}") for value in np.geomspace(low, high, num))
