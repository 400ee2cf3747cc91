"""The pieces of one penalised step: its labels, its inputs, its weights."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher import autodiff
from keras_fisher._labels import only_labels
from keras_fisher.penalties import Penalty

_SEEDS_APART = 1_000_003


class StepKind(enum.IntEnum):
    """What a step adds to the gradient of the loss."""

    NO_PENALTY = 0
    KEPT_PENALTY = 1
    NEW_PENALTY = 2


def each(function: Callable[[Any], Any], tensors: Any) -> Any:
    """A function of each tensor of a structure; an optional input that is left out stays `None`."""
    return keras.tree.map_structure(lambda t: None if t is None else function(t), tensors)


def length(x: Any) -> Any:
    """The number of examples in a batch of inputs."""
    return ops.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]


def at_least_one(number: Any) -> Any:
    """A number, or 1 if that is more: an integer of an integer, as JAX needs for shapes."""
    return max(number, 1) if isinstance(number, int) else ops.maximum(number, 1)


def share_of(examples: Any, share: float) -> tuple[Any, Any]:
    """How many examples a share of some is, rounded, at least 1; and what share that number is."""
    if isinstance(examples, int):
        size: Any = max(int(np.round(np.float32(share) * np.float32(examples))), 1)
        return size, size / max(examples, 1)
    whole = ops.cast(examples, "float32")
    size = ops.maximum(ops.round(share * whole), 1.0)
    return ops.cast(size, "int32"), size / ops.maximum(whole, 1.0)


def times(factor: Any, value: Any) -> Any:
    """A value times a factor, which may be `None` for 1."""
    return value if factor is None else value * ops.cast(factor, value.dtype)


class HeldLabels:
    """The mean negative log-likelihood of labels drawn at the first call and held afterwards.

    It is multiplied by a factor.
    """

    def __init__(
        self, likelihood: Any, penalty: Penalty, y: Any, seed: Any, factor: Any = None
    ) -> None:
        self.likelihood, self.penalty, self.seed, self.factor = likelihood, penalty, seed, factor
        self.y = only_labels(y)
        self.labels: Any = None

    def __call__(self, outputs: Any) -> Any:
        return times(self.factor, self.likelihood.mean_nll(self.at(outputs), outputs))

    def at(self, outputs: Any) -> Any:
        """The labels."""
        if self.labels is None:
            self.labels = self.penalty.draw_labels(self.likelihood, self.y, outputs, self.seed)
        return self.labels


class LabelSeed(keras.random.SeedGenerator):
    """Seeds for drawn labels, different on each of several replicas."""

    def next(self, ordered: bool = True) -> Any:
        seed = super().next(ordered)
        index = autodiff.replica_index()
        return seed if index is None else apart(seed, index)


def apart(seed: Any, index: Any) -> Any:
    """A seed for each index, far from the next ones of a generator, which count upwards."""
    return seed + ops.cast(ops.stack([_SEEDS_APART * index, 0]), seed.dtype)


class PartSeed(keras.random.SeedGenerator):
    """Seeds for one part of a batch: the same ones whenever it is gone through.

    Apart from those of other parts in their second number, as replicas are in their first.
    """

    def __init__(self, seed: Any, part: Any) -> None:
        self._seed, self._part, self._drawn = seed, part, 0

    def next(self, ordered: bool = True) -> Any:
        self._drawn += 1
        offset = ops.stack([0, _SEEDS_APART * (self._part + 1) + self._drawn])
        return self._seed + ops.cast(offset, self._seed.dtype)


class Inputs:
    """The floating-point tensors among a batch's inputs."""

    def __init__(self, x: Any) -> None:
        self.x = x
        self.leaves = keras.tree.flatten(each(ops.convert_to_tensor, x))
        self.indices = [
            index
            for index, leaf in enumerate(self.leaves)
            if leaf is not None and keras.backend.is_float_dtype(leaf.dtype)
        ]

    def floating(self) -> list[Any]:
        if not self.indices:
            dtypes = each(lambda leaf: str(leaf.dtype), self.leaves)
            raise ValueError(
                "A penalty with respect to the inputs ('gp_x') needs an input of floating-point "
                f"numbers. Received inputs of dtype {dtypes}"
            )
        return [self.leaves[index] for index in self.indices]

    def replaced(self, floating: Sequence[Any]) -> Any:
        leaves = list(self.leaves)
        for index, leaf in zip(self.indices, floating, strict=False):
            leaves[index] = leaf
        return keras.tree.pack_sequence_as(self.x, leaves)


class Connected:
    """Takes unconnected weights (gradient `None`) out of a list, and puts them back."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.length = 0

    def only(self, gradients: Sequence[Any]) -> list[Any]:
        self.length = len(gradients)
        self.indices = [i for i, gradient in enumerate(gradients) if gradient is not None]
        return [gradients[i] for i in self.indices]

    def all(self, gradients: Sequence[Any]) -> list[Any]:
        restored: list[Any] = [None] * self.length
        for index, gradient in zip(self.indices, gradients, strict=True):
            restored[index] = gradient
        return restored


class MicroBatches:
    """A batch in parts of equal size, the last filled up with examples that count for nothing.

    Args:
        examples: How many examples the batch has.
        size: How many a part may have.
    """

    def __init__(self, examples: Any, size: int) -> None:
        self.count = -(-examples // size)
        each = -(-examples // at_least_one(self.count))
        places = ops.arange(self.count * each)
        self._rows = ops.reshape(places % at_least_one(examples), (self.count, each))
        self._counts = ops.reshape(places < examples, (self.count, each))
        self._examples = examples

    def part(self, index: Any, tensors: Any) -> Any:
        """A part of tensors of shape `(batch, ...)`."""
        rows = self._rows[index]
        return each(lambda tensor: ops.take(tensor, rows, axis=0), tensors)

    def mean(self, index: Any, values: Any) -> Any:
        """What the values of a part's examples add to the mean over the batch."""
        counted = ops.where(self._counts[index], values, 0.0)
        return ops.sum(counted) / ops.cast(self._examples, values.dtype)
