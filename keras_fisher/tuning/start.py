"""Where to begin a search for alpha: the penalty's gradient beside that of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_fisher import _arguments, autodiff, penalties
from keras_fisher._step import HeldLabels, Inputs
from keras_fisher.likelihoods import Likelihood
from keras_fisher.penalties import Penalty
from keras_fisher.traces.data import Batch
from keras_fisher.traces.meter import Meter
from keras_fisher.tuning import grids

# The alpha to begin with, as a share of the one at which both gradients are of one size.
_SHARE = 1.0


class AlphaRange(NamedTuple):
    """A range of alphas to search.

    Attributes:
        alphas: The values, in ascending order.
        value: The middle of the range, v.
        balance: The alpha at which alpha times the gradient of the penalty has the norm of the
            gradient of the loss, the mean over mini-batches.
        stderr: The standard error of `balance`.
    """

    alphas: tuple[float, ...]
    value: float
    balance: float
    stderr: float


def alpha_range(
    model: keras.Model,
    data: Any,
    *,
    penalty: str | Penalty = "fp",
    num: int = 10,
    num_batches: int = 8,
    batch_size: int = 128,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
) -> AlphaRange:
    """Proposes alphas to search, from the size of the penalty's gradient in a few mini-batches."""
    _arguments.check_integer("num_batches", num_batches, low=1)
    _arguments.check_integer("batch_size", batch_size, low=1)
    meter = BalanceMeter(model, penalty=penalty, likelihood=likelihood, seed=seed)
    balance = meter(data, num_examples=num_batches * batch_size, batch_size=batch_size)
    value = _SHARE * balance.value
    return AlphaRange(grids.alphas(value, num), value, balance.value, balance.stderr)


class BalanceMeter(Meter):
    """Measures the alpha at which the penalty pulls as hard as the loss."""

    def __init__(
        self,
        model: keras.Model,
        *,
        penalty: str | Penalty = "fp",
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, likelihood)
        self._penalty = penalties.get(penalty)
        self._generator = keras.random.SeedGenerator(_arguments.check_seed(seed))

    def _compile(self) -> None:
        self._balance = autodiff.compiled(self._batch_balance)

    def _measure(self, batches: Iterator[Batch], by_weight: bool) -> np.ndarray:
        return np.stack([ops.convert_to_numpy(self._balance(x, y))[None] for x, y in batches])

    def _batch_balance(self, x: Any, y: Any) -> Any:
        inputs = Inputs(x)
        x = inputs.replaced([])
        nll = HeldLabels(self._likelihood, self._penalty, y, self._generator)

        def objective() -> tuple[Any, Any]:
            outputs = self._outputs(x)
            return self._likelihood.mean_nll(y, outputs), nll(outputs)

        weights = self._model.trainable_weights
        wrt = inputs.floating() if self._penalty.wrt == "inputs" else weights
        found = autodiff.penalty_gradients(objective, weights, wrt)
        return ops.sqrt(_squared_norm(found.loss) / _squared_norm(found.penalty))


def _squared_norm(gradients: Any) -> Any:
    return autodiff.squared_norm([g for g in gradients if g is not None])
