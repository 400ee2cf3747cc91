"""The pieces of one penalised step: its labels, its inputs, its weights."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_fisher import autodiff
from keras_fisher._arguments import is_sparse
from keras_fisher._labels import only_labels
from keras_fisher._masks import mask_of
from keras_fisher.penalties import Penalty

if TYPE_CHECKING:
    from keras_fisher.autodiff.tensorflow_replicas import Replica

_SEEDS_APART = 1_000_003


class StepKind(enum.IntEnum):
    """What a step adds to the gradient of the loss."""

    NO_PENALTY = 0
    KEPT_PENALTY = 1
    NEW_PENALTY = 2


def each(function: Callable[[Any], Any], tensors: Any) -> Any:
    """A function of each tensor of a structure; an optional input that is left out stays `None`."""
    return keras.tree.map_structure(lambda t: None if t is None else function(t), tensors)


def each_dense(function: Callable[[Any], Any], tensors: Any) -> Any:
    """The same, where a function cannot be one of sparse tensors, as that which takes a part.

    Raises:
        ValueError: if a tensor is sparse.
    """
    for leaf in keras.tree.flatten(tensors):
        if is_sparse(leaf):
            raise ValueError(
                "`x` must be dense where a part of a batch is taken (`penalty_batch_size`, "
                "`micro_batch_size`) and where the gradient is that by the inputs "
                f"(penalty='gp_x'). Received: {type(leaf).__name__}. "
                "Make it dense, as tf.sparse.to_dense does, or leave these options out"
            )
    return each(function, tensors)


def length(x: Any) -> Any:
    """The number of examples in a batch of inputs."""
    return ops.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]


def at_least_one(number: Any) -> Any:
    """A number, or 1 if that is more: an integer of an integer, as JAX needs for shapes."""
    return max(number, 1) if isinstance(number, int) else ops.maximum(number, 1)


def share_of(examples: Any, share: float) -> Any:
    """Returns how many examples a share of some is: rounded, at least 1."""
    if isinstance(examples, int):
        return max(int(np.round(np.float32(share) * np.float32(examples))), 1)
    size = ops.maximum(ops.round(share * ops.cast(examples, "float32")), 1.0)
    return ops.cast(size, "int32")


def fewer(number: Any, other: Any) -> Any:
    """Returns the smaller of two numbers: an integer of integers, as JAX needs for shapes."""
    if isinstance(number, int) and isinstance(other, int):
        return min(number, other)
    return ops.minimum(ops.cast(number, "int32"), ops.cast(other, "int32"))


def root_of_ratio(part: Any, whole: Any, dtype: Any) -> Any:
    """Returns the square root of part / whole."""
    return ops.sqrt(ops.cast(part, dtype) / ops.cast(whole, dtype))


class HeldLabels:
    """The labels of a batch, drawn at the first call and held afterwards, and their likelihood.

    Args:
        likelihood: The model's likelihood.
        penalty: What says which labels they are.
        y: The labels of the data.
        seed: The generator that drawn labels come from.
        present: Which observations are data, or `None` for all.
    """

    def __init__(
        self, likelihood: Any, penalty: Penalty, y: Any, seed: Any, present: Any = None
    ) -> None:
        self.likelihood, self.penalty, self.seed, self.present = likelihood, penalty, seed, present
        self.y = only_labels(y)
        self.labels: Any = None

    def at(self, outputs: Any) -> Any:
        """Returns the labels."""
        if self.labels is None:
            self.labels = self.penalty.draw_labels(self.likelihood, self.y, outputs, self.seed)
        return self.labels

    def nll(self, outputs: Any) -> tuple[Any, Any]:
        """Returns what each example adds to a mean over all: as `Likelihood.counted_nll`."""
        if self.present is None and mask_of(outputs) is None:
            return self.likelihood.nll(self.at(outputs), outputs), None
        return self.likelihood.counted_nll(self.at(outputs), outputs, self.present)


class MeanNll:
    """The mean negative log-likelihood of examples, as the penalty takes it.

    The expected squared norm of a mean of n gradients is Tr(F)/n. The mean is multiplied by
    sqrt(n / full), so that the penalty of a batch with less data is that of a full one.

    Args:
        examples: How many examples there are, on all replicas.
        full: How many there are if the batch is a full one.
        replica: This replica, where there are several.
    """

    def __init__(self, examples: Any, full: Any, replica: Replica | None = None) -> None:
        self._examples, self._full, self._replica = examples, full, replica
        self._factor: Any = None

    def __call__(self, values: Any, fractions: Any) -> Any:
        """Returns the mean over the examples of this replica, a scalar.

        Args:
            values: What each example adds, shape `(batch,)`.
            fractions: The fraction of its observations that are data; `None` if all are.
        """
        if self._factor is None:  # held, as labels are
            self._factor = self._factor_of(fractions, values.dtype)
        return ops.mean(values) * self._factor

    def _factor_of(self, fractions: Any, dtype: Any) -> Any:
        if fractions is None:
            return root_of_ratio(self._examples, self._full, dtype)
        sums = [ops.sum(fractions), ops.sum(ops.cast(fractions > 0, dtype))]
        return self.factor(*(sums if self._replica is None else self._replica.sum(sums)))

    def factor(self, fractions: Any, with_data: Any) -> Any:
        """Returns what a mean over examples, in which padding counts as 0, is multiplied by.

        Args:
            fractions: The sum over all examples of the fraction that is data.
            with_data: How many examples have any.
        """
        root = root_of_ratio(with_data, self._full, fractions.dtype)
        return root * ops.divide_no_nan(ops.cast(self._examples, fractions.dtype), fractions)


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
        return each_dense(lambda leaf: leaf, [self.leaves[index] for index in self.indices])

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
        return each_dense(lambda tensor: ops.take(tensor, rows, axis=0), tensors)

    def mean(self, index: Any, values: Any) -> Any:
        """What the values of a part's examples add to the mean over the batch."""
        return self.sum(index, values) / ops.cast(self._examples, values.dtype)

    def sum(self, index: Any, values: Any) -> Any:
        """What the values of a part's examples add to the sum over the batch."""
        return ops.sum(ops.where(self._counts[index], values, 0.0))
