"""Tr(F^B), the squared norm of the mini-batch gradient under sampled labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces.estimate import Estimate
from keras_fisher.traces.labels import Given, LabelledBatch, Labels, Sampled, choose_labels
from keras_fisher.traces.meter import Meter

_LABELS = {"sampled": Sampled, "given": Given}


def minibatch_fisher_trace(
    model: keras.Model,
    data: Any,
    *,
    labels: str = "sampled",
    num_examples: int | None = None,
    batch_size: int = 128,
    by_layer: bool = False,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
) -> Estimate:
    """Measures the squared norm of the mini-batch gradient of eq. 3 and appendix C.

        Tr(F^B) = ||(1/B) sum_i g(x_i, y^_i)||^2 with y^_i ~ p(y | x_i),

    averaged over mini-batches. This is the quantity that the Fisher penalty penalises: gradients
    are averaged, then squared. Its mean is Tr(F)/B, and it tracks Tr(F) in training (figure 12).

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> categorical = kf.likelihoods.Categorical()
        >>> data = np.random.rand(64, 4), None
        >>> kf.minibatch_fisher_trace(model, data, batch_size=16, likelihood=categorical).count
        4

    Args:
        model: A Keras model with one output; it may be uncompiled, or a `FisherPenaltyModel`.
        data: Arrays `(x, y)`, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`). `(x, None)` and batches of x are enough
            unless labels are "given".
        labels: "sampled" draws them from the model's prediction; "given" uses the labels in `data`.
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The mini-batch size B for arrays, which are read in order: shuffle them if they
            are sorted by class. A dataset keeps its own mini-batches. A smaller last mini-batch is
            dropped; fewer examples than that make one mini-batch.
        by_layer: Whether to fill in `layers`, the value split by layer.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of drawn labels; `None` for a random one.

    Returns:
        An `Estimate` over mini-batches.

    Scaling: the negative log-likelihood is the mean over the mini-batch (and over the positions of
    an example, as in Keras's losses). Compare only equal batch sizes. Padding (masked by Keras, of
    weight 0 or with a label that the loss ignores) is excluded from the mean.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `data` is empty, holds fewer than `num_examples` or lacks required labels,
            the model has no known likelihood, or `labels` is unknown.
    """
    meter = MinibatchFisherTraceMeter(model, labels=labels, likelihood=likelihood, seed=seed)
    return meter(
        data, num_examples=num_examples, batch_size=batch_size, by_layer=by_layer, verbose=True
    )


class MinibatchFisherTraceMeter(Meter):
    """`minibatch_fisher_trace`, compiled once for many measurements of one model.

    Args:
        model: A Keras model with one output.
        labels: "sampled" or "given".
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of drawn labels; `None` for a random one.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        labels: str = "sampled",
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, likelihood)
        self._labels = choose_labels(labels, _LABELS, self._likelihood, seed)
        self.needs_labels = self._labels.needs_labels
        self._generator = self._labels.generator

    def _compile(self) -> None:
        self._squares = backend.compile_function(self._batch_squares)

    def _measure(self, batches: Iterator[LabelledBatch], by_weight: bool) -> np.ndarray:
        measured = [
            ops.convert_to_numpy(self._squares(x, labels))
            for x, labels in batches
            if self._has_data(x, labels)
        ]
        return np.stack(measured) if measured else np.empty((0, 1))

    def _batch_squares(self, x: Any, labels: Labels) -> Tensor:
        def value() -> Tensor:
            outputs = self._outputs(x)
            drawn = self._labels.draw(outputs, labels)
            return self._likelihood.mean_nll(drawn.y, outputs, drawn.present)

        return squares(backend.differentiate(value, self._model.trainable_weights))


def squares(gradients: Sequence[Tensor | None]) -> Tensor:
    """Returns the squared norm of each gradient, 0 for `None`."""
    return ops.stack([ops.zeros(()) if g is None else backend.squared_norm([g]) for g in gradients])
