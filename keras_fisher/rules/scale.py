"""Activations with weights."""

from __future__ import annotations

import keras
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.rules.gradients import WeightGradients, sum_to
from keras_fisher.rules.registry import register


@register(keras.layers.PReLU)
def prelu(layer: keras.layers.PReLU, inputs: Tensor, gradient: Tensor) -> WeightGradients:
    """The slopes get sum g min(x, 0), over the axes that share a slope."""
    return [(layer.alpha, sum_to(gradient * ops.minimum(inputs, 0), layer.alpha.shape))]
