"""Tr(F), the trace of the Fisher Information Matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces.data import batches
from keras_fisher.traces.estimate import Estimate
from keras_fisher.traces.labels import (
    Expected,
    Given,
    LabelledBatch,
    Labels,
    Passes,
    Sampled,
    choose_labels,
)
from keras_fisher.traces.meter import Meter
from keras_fisher.traces.per_example import SquaredGradientNorms

LABELS: Mapping[str, type[Given]] = {"sampled": Sampled, "expected": Expected, "given": Given}


def fisher_trace(
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
    """Measures the trace of the Fisher Information Matrix (eq. 2).

        Tr(F) = E_x E_{y^ ~ p(y|x)} ||d/dw l(x, y^)||^2,

    the mean over examples of the squared norm of each example's own gradient. It averages these
    squared norms; it does not square the gradient of a mini-batch.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, name="logits")]
        >>> model = keras.Sequential(layers, name="net")
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x = np.random.default_rng(0).normal(size=(500, 4))
        >>> trace = kf.fisher_trace(model, (x, None), num_examples=300, by_layer=True, seed=0)
        >>> trace.count, list(trace.layers)
        (300, ['net/logits'])
        >>> trace.stderr < 0.2 * trace.value
        True

    Args:
        model: A Keras model with one output; it may be uncompiled, or a `FisherPenaltyModel`.
        data: Arrays `(x, y)`, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`). Labels are needed only for
            `labels="given"`; otherwise `(x, None)` or batches of x are enough. In `(x, y,
            sample_weight)`, a sample weight of 0 marks padding; other sample weights have no
            effect. The measurement compiles once for each shape of the examples, so pad sequences
            to a few lengths.
        labels: "sampled" draws one label for each example from the model's prediction;
            "expected" sums exactly over all labels (for C classes it costs C times as much);
            "given" uses the labels of the data (the empirical Fisher).
        num_examples: Uses only the first `num_examples` examples; `None` uses all. (The paper
            uses 2,500 to 5,000 in appendix G.1, a batch in G.2.)
        batch_size: The number of examples of arrays measured at a time. It affects speed and memory
            (and which labels a seed draws). Batches that need too much memory are split.
        by_layer: Whether to fill in `layers`, the trace split by layer.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of drawn labels; `None` for a random one.

    Returns:
        An `Estimate` over examples.

    Scaling: the loss of an example is the mean negative log-likelihood over its observations, as in
    Keras's losses. For one label per example this is eq. 2. For T positions the trace is 1/T^2 of
    the trace for their joint likelihood. Padding (masked by Keras, of weight 0 or with a label that
    the loss ignores) is excluded: T counts the other positions of the example, and an example with
    only padding does not count.

    One backward pass measures all examples of a batch, using the closed forms of
    `keras_fisher.rules`. Layers and models without them are differentiated one example at a time,
    which is logged once.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `data` is empty, holds fewer than `num_examples` or lacks required labels,
            the model has no known likelihood, or `labels` is unknown, or is "expected" for a
            likelihood that does not enumerate its outcomes; or if an example's outputs depend on
            the rest of the batch, or on random numbers that the model draws in evaluation.
    """
    meter = FisherTraceMeter(model, labels=labels, likelihood=likelihood, seed=seed)
    return meter(
        data, num_examples=num_examples, batch_size=batch_size, by_layer=by_layer, verbose=True
    )


class FisherTraceMeter(Meter):
    """`fisher_trace`, compiled once for many measurements of one model.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> meter = kf.traces.FisherTraceMeter(model, likelihood=kf.likelihoods.Categorical())
        >>> x = np.random.rand(32, 4)
        >>> meter((x, None)).count, meter((x, None), num_examples=8).count
        (32, 8)

    Args:
        model: A Keras model with one output.
        labels: "sampled", "expected" or "given".
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of drawn labels; `None` for a random one.
    """

    _kinds = LABELS

    def __init__(
        self,
        model: keras.Model,
        *,
        labels: str = "sampled",
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, likelihood)
        self._labels = choose_labels(labels, self._kinds, self._likelihood, seed)
        self.needs_labels = self._labels.needs_labels
        self._generator = self._labels.generator
        self._norms: dict[tuple[tuple[int, ...], ...], tuple[SquaredGradientNorms, Passes]] = {}

    _read = staticmethod(batches)

    def _compile(self) -> None:
        self._norms = {}

    def _measure(self, batches: Iterator[LabelledBatch], by_weight: bool) -> np.ndarray:
        squares, with_data = self._squared_norms(batches)
        return squares[with_data]

    def _squared_norms(self, batches: Iterator[LabelledBatch]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the squared norms, shape `(examples, weights)`, and which examples have data."""
        squares, with_data = zip(*(self._batch_norms(*batch) for batch in batches), strict=True)
        return np.concatenate(squares), np.concatenate(with_data)

    def _batch_norms(self, x: Any, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
        # Time steps may differ between batches, and so may the passes and the memory limit.
        shapes = tuple(tuple(array.shape[1:]) for array in keras.tree.flatten(x))
        if shapes not in self._norms:
            kind = self._labels
            norms = SquaredGradientNorms(self._model, kind.draw, kind.values, kind.generator)
            self._norms[shapes] = norms, self._inspect_outputs(x, kind.passes)
        norms, passes = self._norms[shapes]
        squares = np.sum([norms(x, labels, *arguments) for arguments in passes], axis=0)
        with_data = self._mask_data(x, labels)
        return squares, np.ones(len(squares), bool) if with_data is None else with_data
