"""The norm of each example's gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces.fisher import LABELS, FisherTraceMeter
from keras_fisher.traces.labels import Given, LabelledBatch, Uniform

_LABELS: Mapping[str, type[Given]] = {**LABELS, "uniform": Uniform}


def per_example_gradient_norms(
    model: keras.Model,
    data: Any,
    *,
    labels: str = "given",
    num_examples: int | None = None,
    batch_size: int = 128,
    by_layer: bool = False,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
) -> np.ndarray | dict[str, np.ndarray]:
    """Measures the norm of each example's gradient.

        ||g(x_i, y_i)|| = ||d/dw l(x_i, y_i)|| for each example i,

    where l is the negative log-likelihood and w are the trainable weights. Large norms with the
    given labels mark examples that the model does not fit, such as those with noisy labels (section
    4.1). The mean of the squares is what `fisher_trace` measures with the same labels: with sampled
    labels, Tr(F) of eq. 2.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, name="logits")]
        >>> model = keras.Sequential(layers, name="net")
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x, y = np.random.rand(200, 4), np.random.randint(0, 3, 200)
        >>> norms = kf.per_example_gradient_norms(model, (x, y))
        >>> norms.shape
        (200,)
        >>> trace = kf.fisher_trace(model, (x, y), labels="given")
        >>> bool(np.isclose(np.mean(norms**2), trace.value))
        True
        >>> list(kf.per_example_gradient_norms(model, (x, y), by_layer=True))
        ['net/logits']

    Args:
        model: A Keras model with one output; it may be uncompiled, or a `FisherPenaltyModel`.
        data: Arrays `(x, y)`, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`). `(x, None)` and batches of x are enough
            unless labels are "given". In `(x, y, sample_weight)`, a sample weight of 0 marks
            padding; other sample weights have no effect.
        labels: "given" uses the labels in `data`; "sampled" draws one label for each example from
            the model's prediction; "uniform" draws one from the label set; "expected" gives the
            square root of the expected squared norm, summed exactly over all labels.
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The number of examples of arrays measured at a time. It affects speed and memory
            (and which labels a seed draws).
        by_layer: Whether to return the norm of each layer's part of the gradient. The squares sum
            over layers to the square of the whole norm.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of drawn labels; `None` for a random one.

    Returns:
        A float64 array of shape `(examples,)`, in the order of `data`. With `by_layer=True`, a
        dictionary from each layer's path to such an array. An example with only padding has NaN;
        scaling and padding are otherwise those of `fisher_trace`.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `data` is empty, holds only padding, holds fewer than `num_examples` or lacks
            required labels, the model has no known likelihood, or `labels` is unknown, is "uniform"
            for a likelihood without a finite label set, or is "expected" for one that does not
            enumerate its outcomes; or if an example's outputs depend on the rest of the batch.
    """
    meter = PerExampleGradientNormsMeter(model, labels=labels, likelihood=likelihood, seed=seed)
    return meter(
        data, num_examples=num_examples, batch_size=batch_size, by_layer=by_layer, verbose=True
    )


class PerExampleGradientNormsMeter:
    """`per_example_gradient_norms`, compiled once for many measurements of one model.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> categorical = kf.likelihoods.Categorical()
        >>> meter = kf.traces.PerExampleGradientNormsMeter(model, likelihood=categorical)
        >>> data = np.random.rand(32, 4), np.random.randint(0, 3, 32)
        >>> meter(data).shape, meter(data, num_examples=8).shape
        ((32,), (8,))

    Args:
        model: A Keras model with one output.
        labels: "given", "sampled", "uniform" or "expected".
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of drawn labels; `None` for a random one.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        labels: str = "given",
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        self._meter = _SquaredNormsMeter(model, labels=labels, likelihood=likelihood, seed=seed)

    def __call__(
        self,
        data: Any,
        *,
        num_examples: int | None = None,
        batch_size: int = 128,
        by_layer: bool = False,
        verbose: bool = False,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Measures over `data`; see the function of the same name for the arguments.

        With `verbose`, shows a progress bar after some seconds.
        """
        squares = self._meter.squares(data, num_examples, batch_size, by_layer, verbose)
        if not by_layer:
            return np.sqrt(squares.sum(axis=1))
        layers = np.array(self._meter._layers())
        return {
            layer: np.sqrt(squares[:, layers == layer].sum(axis=1))
            for layer in dict.fromkeys(layers.tolist())
        }


class _SquaredNormsMeter(FisherTraceMeter):
    """Keeps the measurement of each example."""

    _kinds = _LABELS
    _counted: np.ndarray

    def squares(self, *arguments: Any) -> np.ndarray:
        """Returns the squared norms, shape `(examples, weights)`; NaN for only padding."""
        measured = self._measurements(*arguments)
        squares = np.full((len(self._counted), measured.shape[1]), np.nan)
        squares[self._counted] = np.maximum(measured, 0.0)  # closed forms can round below 0
        return squares

    def _measure(self, batches: Iterator[LabelledBatch], by_weight: bool) -> np.ndarray:
        squares, self._counted = self._squared_norms(batches)
        return squares[self._counted]
