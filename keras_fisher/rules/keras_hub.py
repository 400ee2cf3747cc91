"""KerasHub layers with their own weights, registered by name so that KerasHub is not imported."""

from __future__ import annotations

import math

import keras
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.rules.convolution import convolution
from keras_fisher.rules.embedding import Rows, embedding, wrap_ids
from keras_fisher.rules.gradients import WeightGradients, sum_to
from keras_fisher.rules.registry import register_by_name


@register_by_name("keras_hub", "PositionEmbedding")
def position_embedding(
    layer: keras.layers.Layer,
    inputs: Tensor,
    gradient: Tensor,
    start_index: int | Tensor = 0,
    positions: Tensor | None = None,
) -> WeightGradients:
    """Every example uses the same rows, starting at `start_index`, or those at given positions."""
    table = layer.position_embeddings
    g = sum_to(gradient, gradient.shape[-2:])
    if positions is None:
        return [(table, _Slice(g, start_index, layer.sequence_length))]
    ids = ops.broadcast_to(ops.cast(positions, "int32"), ops.shape(g)[:2])
    return [(table, Rows(wrap_ids(ids, layer.sequence_length), g, layer.sequence_length))]


@register_by_name("keras_hub", "ViTPatchingAndEmbedding")
def vit_patching_and_embedding(
    layer: keras.layers.Layer, inputs: Tensor, gradient: Tensor
) -> WeightGradients:
    """A convolution, a token before its patches, and an added table of positions."""
    g, weights = gradient, []
    if layer.use_class_token:
        weights.append((layer.class_token, gradient[:, None, :1]))
        g = gradient[:, 1:]
    ids = ops.broadcast_to(layer.position_ids, ops.shape(gradient)[:2])
    grid = [size // patch for size, patch in zip(layer.image_size, layer.patch_size, strict=True)]
    g = ops.reshape(g, (-1, *grid, g.shape[-1]))
    if layer.data_format == "channels_first":
        g = ops.moveaxis(g, -1, 1)
    weights += embedding(layer.position_embedding, ids, gradient)
    return weights + convolution(layer.patch_embedding, inputs, g)


class _Slice:
    """Per-example gradients that are 0 except in consecutive rows.

    Args:
        g: The gradients of these rows, shape `(batch, T, features)`.
        start: The index of the first of them in the table.
        rows: The number of rows of the table.
    """

    def __init__(self, g: Tensor, start: int | Tensor, rows: int) -> None:
        self._g, self._start, self._rows = g, start, rows
        self.size = math.prod(g.shape[1:])

    def squared_norms(self) -> Tensor:
        return ops.sum(ops.square(self._g), axis=(1, 2))

    def gradient(self) -> Tensor:
        whole = ops.zeros((ops.shape(self._g)[0], self._rows, self._g.shape[-1]), self._g.dtype)
        return ops.slice_update(whole, (0, self._start, 0), self._g)
