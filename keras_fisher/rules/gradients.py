"""Per-example gradients, as tensors or as factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_fisher.backend.types import Tensor

ExampleGradients: TypeAlias = Any
"""A weight's gradients for each example: a tensor, or a closed form such as `Outer`."""

WeightGradients: TypeAlias = list[tuple[keras.Variable, ExampleGradients | None]]
"""The weights of a layer with their gradients; `None` for a weight that a call does not use."""


class Outer:
    """Per-example gradients sum_t left[b, t] right[b, t]^T, stored as their factors.

    Each squared norm is computed in the cheaper of two ways: from the product itself, with T m n
    multiplications, or from the Gram matrices of the factors, with T^2 (m + n) multiplications:
    ||sum_t l_t r_t^T||^2 = sum_ts (l_t . l_s) (r_t . r_s).

    Examples:
        >>> import numpy as np
        >>> from keras_fisher.rules import Outer
        >>> left, right = np.ones((2, 4, 3), "float32"), np.ones((2, 4, 5), "float32")
        >>> np.asarray(Outer(left, right).squared_norms())  # 3 * 5 entries, each 4
        array([240., 240.], dtype=float32)

    Args:
        left: Shape `(batch, T, m)`, or `(batch, groups, T, m)` for independent groups.
        right: Shape `(batch, T, n)` or `(batch, groups, T, n)`.
        assemble: Turns products of shape `(batch, m, n)` or `(batch, groups, m, n)` into the
            layout of the weight, shape `(batch, *weight.shape)`; needed if the layouts differ.
    """

    def __init__(
        self,
        left: Tensor,
        right: Tensor,
        assemble: Callable[[Tensor], Tensor] = lambda product: product,
    ) -> None:
        self.left, self.right, self._assemble = left, right, assemble
        t, m, n = left.shape[-2], left.shape[-1], right.shape[-1]
        self._by_gram = t * (m + n) < m * n
        largest = t * t if self._by_gram else m * n
        self.size = math.prod(left.shape[1:-2]) * (t * (m + n) + largest)
        """The number of values per example, including the factors."""

    def squared_norms(self) -> Tensor:
        """Returns the squared norm of each example's gradient, shape `(batch,)`."""
        left, right = self.left, self.right
        if not self._by_gram:
            # Matrix products are faster if the longer side of the result is last.
            narrow, wide = sorted((left, right), key=lambda factor: factor.shape[-1])
            return squared_norms(ops.matmul(ops.swapaxes(narrow, -1, -2), wide))
        grams = ops.matmul(left, ops.swapaxes(left, -1, -2)) * ops.matmul(
            right, ops.swapaxes(right, -1, -2)
        )
        return ops.sum(grams, axis=tuple(range(1, len(grams.shape))))

    def gradient(self) -> Tensor:
        """Returns each example's gradient in the layout of the weight."""
        return self._assemble(ops.matmul(ops.swapaxes(self.left, -1, -2), self.right))


def squared_norms(gradient: ExampleGradients) -> Tensor:
    """Returns the squared norm of each example's gradient, shape `(batch,)`."""
    if hasattr(gradient, "squared_norms"):
        return gradient.squared_norms()
    return ops.sum(ops.square(gradient), axis=tuple(range(1, len(gradient.shape))))


def total(gradients: Sequence[ExampleGradients]) -> ExampleGradients:
    """Returns the sum of a weight's gradients over all its uses."""
    closed = join(gradients)
    if closed is not None:
        return closed
    return sum(g.gradient() if hasattr(g, "gradient") else g for g in gradients)


def join(gradients: Sequence[ExampleGradients]) -> ExampleGradients | None:
    """Returns a closed form of the sum of gradients, or `None` if there is none."""
    if len(gradients) == 1:
        return gradients[0]
    if len(gradients) == 2:
        for one, other in (gradients, reversed(gradients)):
            if hasattr(one, "join"):
                return one.join(other)
    return None


def size(gradient: ExampleGradients) -> int:
    """Returns the number of values that a gradient takes per example."""
    return gradient.size if hasattr(gradient, "squared_norms") else math.prod(gradient.shape[1:])


def sum_to(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Sums `values` of each example to the shape of a weight that was broadcast against them.

    Applied to the output gradient, it gives the per-example gradient of a weight that is added to
    the input; applied to the output gradient times the input, of a weight that multiplies it.

    Examples:
        >>> import numpy as np
        >>> from keras_fisher.rules import sum_to
        >>> tuple(sum_to(np.ones((2, 4, 5, 3)), (3,)).shape)
        (2, 3)
        >>> tuple(sum_to(np.ones((2, 4, 5, 3)), ()).shape)
        (2,)

    Args:
        values: Shape `(batch, ...)`.
        shape: The shape of the weight, which broadcasts against the axes after the first.

    Returns:
        A tensor of shape `(batch, *shape)`.
    """
    extra = len(values.shape) - 1 - len(shape)
    summed = ops.sum(values, axis=tuple(range(1, 1 + extra))) if extra else values
    ones = tuple(i for i, n in enumerate(shape, 1) if n == 1 and summed.shape[i] != 1)
    return ops.sum(summed, axis=ones, keepdims=True) if ones else summed


def sum_over_others(values: Tensor, axes: Sequence[int]) -> Tensor:
    """Sums `values` of each example over all axes except the first and `axes`."""
    rank = len(values.shape)
    kept = {0, *(axis % rank for axis in axes)}
    others = tuple(axis for axis in range(rank) if axis not in kept)
    return ops.sum(values, axis=others) if others else values
