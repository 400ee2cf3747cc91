"""Closed forms of per-example gradients, one for each kind of layer.

The gradient of an example's loss with respect to a weight follows from what went into the layer and
from the gradient of the loss with respect to what came out of it, so that one backward pass over a
whole batch gives the squared gradient norm of every example in it (Goodfellow, "Efficient
Per-Example Gradient Computations", 2015, for dense layers; Rochette et al., "Efficient Per-Example
Gradient Computations in Convolutional Neural Networks", 2019). `keras.ops` only.

- `register(layer_class)`: gives a rule for a layer of your own.
- `Outer`: a per-example gradient kept as factors, whose norm is taken the cheaper way.
- `sum_to(values, shape)`: the per-example gradient of a weight that is added or multiplied.
"""

from keras_fisher.rules import convolution, dense, embedding, keras_hub, normalization, scale
from keras_fisher.rules.gradients import Outer, sum_to
from keras_fisher.rules.registry import Rule, find, register

__all__ = [
    "Outer",
    "Rule",
    "convolution",
    "dense",
    "embedding",
    "find",
    "keras_hub",
    "normalization",
    "register",
    "scale",
    "sum_to",
]
