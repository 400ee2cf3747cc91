"""The labels of a penalised step: checks, draws and their seeds."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.private_api.keras import get_mask
from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods import Likelihood
from keras_fisher.penalties import Penalty
from keras_fisher.utils.labels import (
    check_numbers,
    describe_classes,
    fill_ignored_labels,
    get_labels,
)

_SEED_OFFSET = 1_000_003


def check_labels_in_graph(likelihood: Likelihood, y: Any, outputs: Tensor) -> Any:
    """Returns `y`, in a graph that fails where a label lies outside the classes."""
    labels = get_labels(y)
    check_numbers(labels)
    bound = likelihood.class_bound(labels, outputs)
    if bound is None:
        return y
    values = fill_ignored_labels(likelihood, labels)
    checked = backend.assert_below(labels, values, bound, describe_classes(bound))
    return keras.tree.pack_sequence_as(y, [checked])


class BatchLabels:
    """The labels of a batch, drawn in its first forward pass and kept for the others.

    Args:
        likelihood: The model's likelihood.
        penalty: Says which labels to draw.
        y: The labels of the data.
        seed: The generator of drawn labels.
        present: Which observations are data, or `None` for all.
    """

    def __init__(
        self, likelihood: Any, penalty: Penalty, y: Any, seed: Any, present: Any = None
    ) -> None:
        self.likelihood, self.penalty, self.seed, self.present = likelihood, penalty, seed, present
        self.y = get_labels(y)
        self.labels: Any = None

    def draw(self, outputs: Tensor) -> Any:
        """Returns the labels."""
        if self.labels is None:
            self.labels = self.penalty.draw_labels(self.likelihood, self.y, outputs, self.seed)
        return self.labels

    def nll(self, outputs: Tensor) -> tuple[Any, Any]:
        """Returns what each example adds to a mean over all, as `Likelihood.counted_nll`."""
        if self.present is None and get_mask(outputs) is None:
            return self.likelihood.nll(self.draw(outputs), outputs), None
        return self.likelihood.counted_nll(self.draw(outputs), outputs, self.present)


class LabelSeedGenerator(keras.random.SeedGenerator):
    """Seeds of drawn labels, different on each replica."""

    def next(self, ordered: bool = True) -> Any:
        seed = super().next(ordered)
        index = backend.get_replica_index()
        return seed if index is None else offset_seed(seed, index)


def offset_seed(seed: Any, index: Tensor) -> Any:
    """Returns a seed for each index, far from the next ones of a generator, which count up."""
    return seed + ops.cast(ops.stack([_SEED_OFFSET * index, 0]), seed.dtype)


class MicroBatchSeedGenerator(keras.random.SeedGenerator):
    """Seeds of the labels of one micro-batch, the same in each of its passes.

    They differ from those of other micro-batches in their second number, as those of replicas do in
    their first.
    """

    def __init__(self, seed: Any, index: Tensor) -> None:
        self._seed, self._index, self._drawn = seed, index, 0

    def next(self, ordered: bool = True) -> Any:
        self._drawn += 1
        offset = ops.stack([0, _SEED_OFFSET * (self._index + 1) + self._drawn])
        return self._seed + ops.cast(offset, self._seed.dtype)
