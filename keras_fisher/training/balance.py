"""The norm of the penalty's gradient relative to that of the loss."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Tensor

_KEPT = 0.9  # share of a running mean that the next measurement keeps: about the last ten count
_SEVERAL = 10  # measurements


class PenaltyBalance:
    """Measures alpha ||d/dw P|| / ||d/dw l|| at the steps that compute the penalty P.

    Both norms are running means over about the last ten such steps. One measurement alone varies
    too much, above all if the penalty takes a share of the batch.

    Args:
        max_ratio: The largest ratio; alpha is reduced to keep it. `None` for no limit.

    Attributes:
        max_ratio: The largest ratio, or `None`.
    """

    def __init__(self, max_ratio: float | None) -> None:
        self.max_ratio = max_ratio
        self.count = _variable("count", 0, backend.COUNTER_DTYPE)
        self.loss_norm, self.penalty_norm = _variable("loss_norm"), _variable("penalty_norm")
        # The alpha at which the latest penalty reaches the largest ratio.
        self.alpha_limit = _variable("alpha_limit", np.inf)

    @property
    def variables(self) -> dict[str, keras.Variable]:
        """All variables, by name."""
        return {name: v for name, v in vars(self).items() if isinstance(v, keras.Variable)}

    def restart(self) -> None:
        """Discards all measurements."""
        for variable in (self.count, self.loss_norm, self.penalty_norm):
            variable.assign(0)
        self.alpha_limit.assign(np.inf)

    def measure(self, loss: Tensor, penalty: Tensor) -> None:
        """Adds a measurement: the norms of the gradients of loss and penalty, two scalars.

        Norms that are not finite are left out.
        """
        loss, penalty = ops.cast(loss, "float32"), ops.cast(penalty, "float32")
        is_finite = ops.logical_and(ops.isfinite(loss), ops.isfinite(penalty))
        for mean, norm in ((self.loss_norm, loss), (self.penalty_norm, penalty)):
            before = ops.convert_to_tensor(mean)
            mean.assign(ops.where(is_finite, _KEPT * before + (1.0 - _KEPT) * norm, before))
        self.count.assign_add(ops.cast(is_finite, self.count.dtype))
        if self.max_ratio is not None:
            limit = ops.where(penalty > 0.0, self.max_ratio * loss / penalty, np.inf)
            before = ops.convert_to_tensor(self.alpha_limit)
            self.alpha_limit.assign(ops.where(is_finite, limit, before))

    def limit(self, alpha: Tensor) -> Tensor:
        """Returns alpha, reduced if the latest penalty would exceed the largest ratio."""
        if self.max_ratio is None:
            return alpha
        return ops.minimum(alpha, ops.convert_to_tensor(self.alpha_limit))

    def ratio(self, alpha: Tensor) -> Tensor:
        """Returns the ratio at this alpha, a scalar; 0 before the first measurement."""
        norms = ops.convert_to_tensor(self.penalty_norm), ops.convert_to_tensor(self.loss_norm)
        ratio = alpha * ops.divide_no_nan(*norms)
        return ratio if self.max_ratio is None else ops.minimum(ratio, self.max_ratio)

    def is_reliable(self) -> Tensor:
        """Returns whether the means cover several measurements, a boolean scalar."""
        return ops.convert_to_tensor(self.count) >= _SEVERAL


def _variable(name: str, value: float = 0.0, dtype: str = "float32") -> keras.Variable:
    # All replicas have the same value.
    return keras.Variable(
        value, dtype=dtype, trainable=False, aggregation="only_first_replica", name=name
    )
