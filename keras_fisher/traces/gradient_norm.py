"""The norm of the mini-batch gradient."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces.estimate import Estimate
from keras_fisher.traces.minibatch import MinibatchFisherTraceMeter


def gradient_norm(
    model: keras.Model,
    data: Any,
    *,
    num_examples: int | None = None,
    batch_size: int = 128,
    by_layer: bool = False,
    likelihood: Likelihood | None = None,
) -> Estimate:
    """Measures the norm of the mini-batch gradient, ||(1/B) sum_i g(x_i, y_i)||, given labels.

    This is the norm of figures 1 and 5 and section 4.1: not squared, of the gradient of the mean
    loss of a mini-batch with respect to the trainable weights, averaged over mini-batches. The
    larger the mini-batch, the smaller the norm: compare equal batch sizes only.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> categorical = kf.likelihoods.Categorical()
        >>> kf.gradient_norm(model, (x, y), batch_size=16, likelihood=categorical).count
        4

    Args:
        model: A Keras model with one output, compiled or not, in a `FisherPenaltyModel` or not.
        data: `(x, y)`, arrays, or a `tf.data.Dataset` of such batches.
        num_examples: How many examples to use, the first ones; `None` for all.
        batch_size: The size of a mini-batch of arrays; a dataset keeps its own. A last mini-batch
            that is smaller than the first is left out.
        by_layer: Whether the estimate is to have `layers`. Norms do not add up over layers, squared
            norms do: each layer has the share of the norm that it has of the squared norm.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.

    Returns:
        An `Estimate` over the mini-batches.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if `data` is empty or holds fewer than `num_examples` or no labels, or the model
            has no known likelihood.
    """
    meter = GradientNormMeter(model, likelihood=likelihood)
    return meter(
        data, num_examples=num_examples, batch_size=batch_size, by_layer=by_layer, verbose=True
    )


class GradientNormMeter(MinibatchFisherTraceMeter):
    """`gradient_norm`, compiled once for many measurements of one model.

    Args:
        model: A Keras model with one output.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
    """

    def __init__(self, model: keras.Model, *, likelihood: Likelihood | None = None) -> None:
        super().__init__(model, labels="given", likelihood=likelihood)

    def _measure(self, batches: Any, by_weight: bool) -> np.ndarray:
        squares = super()._measure(batches, by_weight)
        norms = np.sqrt(squares.sum(axis=1, keepdims=True))
        return np.divide(squares, norms, out=np.zeros_like(squares), where=norms != 0)
