"""Normalisation layers: y = gamma x^ + beta, with x^ the input normalised, in inference mode."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.rules.gradients import WeightGradients, sum_over_others
from keras_fisher.rules.registry import register
from keras_fisher.utils.stateless import Stateless


@register(
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
)
def normalization(layer: keras.layers.Layer, inputs: Tensor, gradient: Tensor) -> WeightGradients:
    """The weights get sum g x^ (gamma) and sum g (beta), over all axes except their own."""
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    weights = []
    if layer.gamma is not None:
        normalized = _normalise(layer, inputs, layer.gamma, layer.beta, gradient.dtype)
        weights.append((layer.gamma, _sum_to_weight(gradient * normalized, axes, layer.gamma)))
    if layer.beta is not None:
        weights.append((layer.beta, _sum_to_weight(gradient, axes, layer.beta)))
    return weights


@register(keras.layers.RMSNormalization)
def rms_normalization(
    layer: keras.layers.RMSNormalization, inputs: Tensor, gradient: Tensor
) -> WeightGradients:
    """The scale gets sum g x^, over all axes except its own."""
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    normalized = _normalise(layer, inputs, layer.scale, None, gradient.dtype)
    return [(layer.scale, _sum_to_weight(gradient * normalized, axes, layer.scale))]


def _sum_to_weight(values: Tensor, axes: Sequence[int], weight: keras.Variable) -> Tensor:
    """Sums over all other axes; with axes [-1, 1] the weight has shape (channels, height)."""
    return ops.reshape(sum_over_others(values, axes), (-1, *weight.shape))


def _normalise(
    layer: keras.layers.Layer,
    inputs: Tensor,
    scale: keras.Variable,
    offset: keras.Variable | None,
    dtype: str,
) -> Tensor:
    """Returns the layer's own output with scale 1 and offset 0."""
    at = [(scale, ops.ones(scale.shape, scale.dtype))]
    if offset is not None:
        at.append((offset, ops.zeros(offset.shape, offset.dtype)))
    with Stateless(at):
        return ops.cast(layer.call(inputs), dtype)
