"""The norm of the mini-batch gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces.estimate import Estimate
from keras_fisher.traces.labels import LabelledBatch
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

    This is the norm of figures 1 and 5 and section 4.1: the norm, not squared, of the gradient of a
    mini-batch's mean loss with respect to the trainable weights, averaged over mini-batches. Larger
    mini-batches give smaller norms: compare only equal batch sizes.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> categorical = kf.likelihoods.Categorical()
        >>> kf.gradient_norm(model, (x, y), batch_size=16, likelihood=categorical).count
        4

    Args:
        model: A Keras model with one output; it may be uncompiled, or a `FisherPenaltyModel`.
        data: Arrays `(x, y)`, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`).
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The mini-batch size for arrays, which are read in order: shuffle them if they
            are sorted by class. A dataset keeps its own mini-batches. A smaller last mini-batch is
            dropped; fewer examples than that make one mini-batch.
        by_layer: Whether to fill in `layers`, which splits the norm in proportion to the squared
            norms of the layers.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.

    Returns:
        An `Estimate` over the mini-batches.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `data` is empty, holds fewer than `num_examples` or lacks labels, or the
            model has no known likelihood.
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

    def _measure(self, batches: Iterator[LabelledBatch], by_weight: bool) -> np.ndarray:
        squares = super()._measure(batches, by_weight)
        norms = np.sqrt(squares.sum(axis=1, keepdims=True))
        return np.divide(squares, norms, out=np.zeros_like(squares), where=norms != 0)
