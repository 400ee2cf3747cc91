"""The parts of a mini-batch that are penalised, and means over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher.backend.types import Replica, Tensor
from keras_fisher.utils.arguments import is_sparse
from keras_fisher.utils.batches import map_tensors


def map_dense(function: Callable[[Tensor], Tensor], tensors: Any) -> Any:
    """Applies a function to each tensor of a structure, and rejects sparse tensors.

    Raises:
        ValueError: if a tensor is sparse.
    """
    for leaf in keras.tree.flatten(tensors):
        if is_sparse(leaf):
            raise ValueError(
                "`x` must be dense for a penalty on a part of the batch (`penalty_batch_size`, "
                "`micro_batch_size`) and for a gradient with respect to the inputs "
                f"(penalty='gp_x'). Received: {type(leaf).__name__}. "
                "Convert it with tf.sparse.to_dense, or omit these options"
            )
    return map_tensors(function, tensors)


def take_at_least_one(number: int | Tensor) -> int | Tensor:
    """Returns max(number, 1): a Python integer for one, as JAX needs for shapes."""
    return max(number, 1) if isinstance(number, int) else ops.maximum(number, 1)


def count_share(examples: int | Tensor, share: float) -> int | Tensor:
    """Returns the number of examples in a share of them: rounded, at least 1."""
    if isinstance(examples, int):
        return max(int(np.round(np.float32(share) * np.float32(examples))), 1)
    size = ops.maximum(ops.round(share * ops.cast(examples, "float32")), 1.0)
    return ops.cast(size, "int32")


def take_smaller(number: int | Tensor, other: int | Tensor) -> int | Tensor:
    """Returns min(number, other): a Python integer for two, as JAX needs for shapes."""
    if isinstance(number, int) and isinstance(other, int):
        return min(number, other)
    return ops.minimum(ops.cast(number, "int32"), ops.cast(other, "int32"))


def sqrt_ratio(part: int | Tensor, whole: int | Tensor, dtype: Any) -> Tensor:
    """Returns the square root of part / whole."""
    return ops.sqrt(ops.cast(part, dtype) / ops.cast(whole, dtype))


class MeanNll:
    """The mean negative log-likelihood of examples, scaled for the penalty.

    The expected squared norm of a mean of n gradients is Tr(F)/n for labels drawn from the model.
    The mean is multiplied by sqrt(n / full), so that smaller batches have the same expected penalty
    as full ones.

    Args:
        full: The number of examples of a full batch.
        replica: This replica.
    """

    def __init__(self, full: int | Tensor, replica: Replica) -> None:
        self._full, self._replica = full, replica
        self._factor: Tensor | None = None

    def __call__(self, values: Tensor, fractions: Tensor | None) -> Tensor:
        """Returns the mean over the examples of this replica, a scalar.

        Args:
            values: The contribution of each example, shape `(batch,)`.
            fractions: The fraction of its observations that are data; `None` if all are.
        """
        if self._factor is None:  # kept for further passes, like labels
            self._factor = self._compute_factor(fractions, values.dtype)
        return ops.mean(values) * self._factor

    def _compute_factor(self, fractions: Tensor | None, dtype: Any) -> Tensor:
        if fractions is None:
            return sqrt_ratio(self._replica.total, self._full, dtype)
        sums = [ops.sum(fractions), ops.sum(ops.cast(fractions > 0, dtype))]
        return self.scale(*self._replica.sum(sums))

    def scale(self, fractions: Tensor, with_data: Tensor) -> Tensor:
        """Returns the factor for a mean over examples in which padding counts as 0.

        Args:
            fractions: The sum over all examples of the fraction that is data.
            with_data: The number of examples that have any data.
        """
        root = sqrt_ratio(with_data, self._full, fractions.dtype)
        return root * ops.divide_no_nan(ops.cast(self._replica.total, fractions.dtype), fractions)


class FloatingInputs:
    """The floating-point tensors among a batch's inputs."""

    def __init__(self, x: Any) -> None:
        self.x = x
        self.leaves = keras.tree.flatten(map_tensors(ops.convert_to_tensor, x))
        self.indices = [
            index
            for index, leaf in enumerate(self.leaves)
            if leaf is not None and keras.backend.is_float_dtype(leaf.dtype)
        ]

    def list_tensors(self) -> list[Tensor]:
        if not self.indices:
            dtypes = map_tensors(lambda leaf: str(leaf.dtype), self.leaves)
            raise ValueError(
                "A penalty with respect to the inputs ('gp_x') needs an input of floating-point "
                f"numbers. Received inputs of dtype {dtypes}"
            )
        return map_dense(lambda leaf: leaf, [self.leaves[index] for index in self.indices])

    def replace(self, floating: Sequence[Tensor]) -> Any:
        leaves = list(self.leaves)
        for index, leaf in zip(self.indices, floating, strict=False):
            leaves[index] = leaf
        return keras.tree.pack_sequence_as(self.x, leaves)


class ConnectedWeights:
    """Removes unconnected weights (gradient `None`) from a list, and restores them."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.length = 0

    def select(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        self.length = len(gradients)
        self.indices = [i for i, gradient in enumerate(gradients) if gradient is not None]
        return [gradients[i] for i in self.indices]

    def restore(self, gradients: Sequence[Tensor]) -> list[Tensor | None]:
        restored: list[Tensor | None] = [None] * self.length
        for index, gradient in zip(self.indices, gradients, strict=True):
            restored[index] = gradient
        return restored


class MicroBatches:
    """A batch in parts of equal size, the last one filled up with examples of weight 0.

    Args:
        examples: The number of examples in the batch.
        size: The maximum number of examples in a part.
    """

    def __init__(self, examples: int | Tensor, size: int) -> None:
        self.count = -(-examples // size)
        each = -(-examples // take_at_least_one(self.count))
        places = ops.arange(self.count * each)
        self._rows = ops.reshape(places % take_at_least_one(examples), (self.count, each))
        self._counts = ops.reshape(places < examples, (self.count, each))
        self._examples = examples

    def take(self, index: Tensor, tensors: Any) -> Any:
        """Returns one part of tensors of shape `(batch, ...)`."""
        rows = self._rows[index]
        return map_dense(lambda tensor: ops.take(tensor, rows, axis=0), tensors)

    def mean(self, index: Tensor, values: Tensor) -> Tensor:
        """Returns the contribution of a part to the mean over the batch."""
        return self.sum(index, values) / ops.cast(self._examples, values.dtype)

    def sum(self, index: Tensor, values: Tensor) -> Tensor:
        """Returns the contribution of a part to the sum over the batch."""
        return ops.sum(ops.where(self._counts[index], values, 0.0))
