"""Embeddings: tables of which an example reads a few rows, also reused as a last layer."""

from __future__ import annotations

import math

import keras
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.rules import lora
from keras_fisher.rules.gradients import ExampleGradients, Outer, WeightGradients
from keras_fisher.rules.registry import register


@register(keras.layers.Embedding)
def embedding(layer: keras.layers.Embedding, inputs: Tensor, gradient: Tensor) -> WeightGradients:
    """The table gets sum_t e_{id_t} g_t^T, where e is a unit vector."""
    t = math.prod(inputs.shape[1:])
    ids = wrap_ids(ops.cast(ops.reshape(inputs, (-1, t)), "int32"), layer.input_dim)
    g = ops.reshape(gradient, (-1, t, gradient.shape[-1]))
    if not layer.lora_enabled:
        return [(layer.embeddings, Rows(ids, g, layer.input_dim))]
    a, b = layer.lora_embeddings_a, layer.lora_embeddings_b
    read = lora.scale(layer) * ops.take(ops.cast(a, g.dtype), ids, axis=0)
    return [(a, Rows(ids, lora.multiply_b(layer, b, g), layer.input_dim)), (b, Outer(read, g))]


@register(keras.layers.ReversibleEmbedding)
def reversible_embedding(
    layer: keras.layers.ReversibleEmbedding,
    inputs: Tensor,
    gradient: Tensor,
    reverse: bool = False,
) -> WeightGradients:
    """In reverse, a tied table gets sum_t g_t x_t^T, and a separate one sum_t x_t g_t^T."""
    if not reverse:
        weights = embedding(layer, inputs, gradient)
        return weights if layer.tie_weights else [*weights, (layer.reverse_embeddings, None)]
    t = math.prod(inputs.shape[1:-1])
    x = ops.reshape(ops.cast(inputs, gradient.dtype), (-1, t, layer.output_dim))
    g = ops.reshape(gradient, (-1, t, layer.input_dim))
    if layer.logit_soft_cap is not None:
        g = g * _slope_of_cap(layer, x)
    if not layer.tie_weights:
        others = [weight for weight in layer.weights if weight is not layer.reverse_embeddings]
        return [(layer.reverse_embeddings, Outer(x, g)), *((weight, None) for weight in others)]
    if layer.lora_enabled:
        return lora.list_adapter_gradients(
            layer, layer.lora_embeddings_a, layer.lora_embeddings_b, g, x
        )
    return [(layer.embeddings, Outer(g, x))]


def _slope_of_cap(layer: keras.layers.ReversibleEmbedding, x: Tensor) -> Tensor:
    """The derivative of cap * tanh(logits / cap)."""
    table = ops.transpose(layer.embeddings) if layer.tie_weights else layer.reverse_embeddings
    logits = ops.matmul(x, ops.cast(table, x.dtype))
    return 1 - ops.square(ops.tanh(logits / layer.logit_soft_cap))


def wrap_ids(ids: Tensor, rows: int) -> Tensor:
    """Returns the rows that Keras reads for ids: negative ones count from the end of the table.

    For other invalid ids, TensorFlow raises on a CPU, and JAX returns NaN.
    """
    return ops.where(ids < 0, ids + rows, ids)


class Rows:
    """Per-example gradients sum_t e_{ids[b, t]} g[b, t]^T with the Gram matrix of the ids.

    Args:
        ids: The row indices, shape `(batch, T)`.
        g: The output gradient, shape `(batch, T, features)`.
        rows: The number of rows of the table.
    """

    def __init__(self, ids: Tensor, g: Tensor, rows: int) -> None:
        self.ids, self.g, self._rows = ids, g, rows
        self.size = g.shape[1] * (g.shape[1] + g.shape[2])

    def squared_norms(self) -> Tensor:
        same = self.ids[:, :, None] == self.ids[:, None, :]
        products = ops.matmul(self.g, ops.swapaxes(self.g, 1, 2))
        return ops.sum(ops.where(same, products, ops.zeros_like(products)), axis=(1, 2))

    def gradient(self) -> Tensor:
        units = ops.one_hot(self.ids, self._rows, dtype=self.g.dtype)
        return Outer(units, self.g).gradient()

    def join(self, other: ExampleGradients) -> _Tied | None:
        """Returns the sum with an outer product for the same table; otherwise `None`."""
        return _Tied(self, other) if isinstance(other, Outer) else None


class _Tied:
    """Per-example gradients of a table used as an embedding and, in reverse, as a kernel.

    <sum_t e_{id_t} g_t^T, sum_s l_s r_s^T> = sum_ts l_s[id_t] (g_t . r_s).
    """

    def __init__(self, rows: Rows, outer: Outer) -> None:
        self._read, self._outer = rows, outer
        self.size = rows.size + outer.size + 2 * rows.g.shape[1] * outer.left.shape[1]

    def squared_norms(self) -> Tensor:
        entries = ops.take_along_axis(self._outer.left, self._read.ids[:, None, :], axis=2)
        products = ops.matmul(self._outer.right, ops.swapaxes(self._read.g, 1, 2))
        crossed = ops.sum(entries * products, axis=(1, 2))
        return self._read.squared_norms() + self._outer.squared_norms() + 2 * crossed

    def gradient(self) -> Tensor:
        return self._read.gradient() + self._outer.gradient()
