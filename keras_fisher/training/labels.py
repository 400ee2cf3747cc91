"""The labels of a penalised step: checks, draws and their seeds."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods import Likelihood
from keras_fisher.penalties import Penalty
from keras_fisher.utils.labels import (
    check_numbers,
    describe_classes,
    fill_ignored_labels,
    get_labels,
)
from keras_fisher.utils.seeds import spread_seed

_SEED_OFFSET = 1_000_003


def check_labels_in_graph(likelihood: Likelihood, y: Any, outputs: Tensor) -> Any:
    """Returns `y`; asserts in the graph that its labels are classes."""
    labels = get_labels(y)
    check_numbers(labels, "y")
    bound = likelihood.class_bound(labels, outputs)
    if bound is None:
        return y
    values = fill_ignored_labels(likelihood, labels)
    checked = backend.assert_below(labels, values, bound, describe_classes(bound, "y"))
    return keras.tree.pack_sequence_as(y, [checked])


class BatchLabels:
    """The labels of a batch, drawn in its first forward pass and reused in later ones.

    Args:
        likelihood: The model's likelihood.
        penalty: The penalty, which determines the labels to draw.
        y: The labels of the data.
        seed: The generator of drawn labels.
        present: A mask of the observations that are data, or `None` for all.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        penalty: Penalty,
        y: Any,
        seed: keras.random.SeedGenerator,
        present: Tensor | None = None,
    ) -> None:
        self.likelihood, self.penalty, self.seed, self.present = likelihood, penalty, seed, present
        self.y = get_labels(y)
        self.labels: Tensor | None = None

    def draw(self, outputs: Tensor) -> Tensor:
        """Returns the labels, drawn on the first call."""
        if self.labels is None:
            self.labels = self.penalty.draw_labels(self.likelihood, self.y, outputs, self.seed)
        return self.labels

    def nll(self, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns each example's contribution to the mean, as `Likelihood.counted_nll` does."""
        return self.likelihood.counted_nll(self.draw(outputs), outputs, self.present)


class LabelSeedGenerator(keras.random.SeedGenerator):
    """Generates seeds of drawn labels, different on each replica."""

    def __init__(self, seed: int | None) -> None:
        # With the seed of a noise or dropout layer, labels would be drawn from its random numbers.
        super().__init__(spread_seed(seed, "labels"))

    def next(self, ordered: bool = True) -> Tensor:
        seed = super().next(ordered)
        index = backend.get_replica_index()
        return seed if index is None else offset_seed(seed, index)


def offset_seed(seed: Tensor, index: Tensor) -> Tensor:
    """Returns a seed for each index, far from a generator's next seeds, which count up."""
    return seed + ops.cast(ops.stack([_SEED_OFFSET * index, 0]), seed.dtype)


class MicroBatchSeedGenerator(keras.random.SeedGenerator):
    """Generates the label seeds of one micro-batch, the same in each of its passes.

    Seeds of micro-batches differ in their second number, and seeds of replicas in their first.
    """

    def __init__(self, seed: Tensor, index: Tensor) -> None:
        self._seed, self._index, self._drawn = seed, index, 0

    def next(self, ordered: bool = True) -> Tensor:
        self._drawn += 1
        offset = ops.stack([0, _SEED_OFFSET * (self._index + 1) + self._drawn])
        return self._seed + ops.cast(offset, self._seed.dtype)
