"""Embeddings: rows of a table, of which an example uses a few."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_fisher.rules.gradients import Outer
from keras_fisher.rules.registry import register


@register(keras.layers.Embedding)
def embedding(layer: Any, inputs: Any, gradient: Any) -> list[tuple[Any, Any]]:
    """The table gets sum_t e_{id_t} g_t^T, where e is a unit vector."""
    t = math.prod(inputs.shape[1:])
    ids = _rows_read(ops.cast(ops.reshape(inputs, (-1, t)), "int32"), layer.input_dim)
    g = ops.reshape(gradient, (-1, t, gradient.shape[-1]))
    return [(layer.embeddings, _Rows(ids, g, layer.input_dim))]


def _rows_read(ids: Any, rows: int) -> Any:
    """The rows that Keras reads for ids: negative ones count from the end of the table.

    TensorFlow on a CPU refuses other ids, JAX returns NaN for them.
    """
    return ops.where(ids < 0, ids + rows, ids)


class _Rows:
    """Per-example gradients sum_t e_{ids[b, t]} g[b, t]^T with the Gram matrix of the ids."""

    def __init__(self, ids: Any, g: Any, rows: int) -> None:
        self._ids, self._g, self._rows = ids, g, rows
        self.size = g.shape[1] * (g.shape[1] + g.shape[2])

    def squared_norms(self) -> Any:
        same = self._ids[:, :, None] == self._ids[:, None, :]
        products = ops.matmul(self._g, ops.swapaxes(self._g, 1, 2))
        return ops.sum(ops.where(same, products, ops.zeros_like(products)), axis=(1, 2))

    def gradient(self) -> Any:
        units = ops.one_hot(self._ids, self._rows, dtype=self._g.dtype)
        return Outer(units, self._g).gradient()
