"""Low-rank adapters: a frozen matrix W, to which scale * A B is added; A and B are trained.

With d l / d W = sum_t l_t r_t^T, the adapter gets

    d l / d A = sum_t l_t (scale * B r_t)^T  and  d l / d B = sum_t (scale * A^T l_t) r_t^T.

(Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022.)
"""

from __future__ import annotations

import keras
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.rules.gradients import Outer, WeightGradients


def list_adapter_gradients(
    layer: keras.layers.Layer, a: keras.Variable, b: keras.Variable, left: Tensor, right: Tensor
) -> WeightGradients:
    """Returns the gradients of a matrix's adapter, given the factors of the matrix's gradient.

    Args:
        layer: A layer with LoRA enabled.
        a: Its variable A, shape `(m, rank)`.
        b: Its variable B, shape `(rank, n)`.
        left: Shape `(batch, T, m)`.
        right: Shape `(batch, T, n)`.
    """
    return [
        (a, Outer(left, multiply_b(layer, b, right))),
        (b, Outer(scale(layer) * ops.matmul(left, ops.cast(a, left.dtype)), right)),
    ]


def multiply_b(layer: keras.layers.Layer, b: keras.Variable, right: Tensor) -> Tensor:
    """Returns scale * B r for each r in the last axis of `right`."""
    return scale(layer) * ops.matmul(right, ops.transpose(ops.cast(b, right.dtype)))


def scale(layer: keras.layers.Layer) -> float:
    """Returns the factor of A B."""
    return layer.lora_alpha / layer.lora_rank
