"""Closed forms of per-example gradients, one for each kind of layer.

The gradient of an example's loss with respect to a weight follows from the layer's input and the
gradient of the loss with respect to its output. One backward pass over a batch therefore gives the
squared gradient norm of every example (Goodfellow, "Efficient Per-Example Gradient Computations",
2015, for dense layers; Rochette et al., "Efficient Per-Example Gradient Computations in
Convolutional Neural Networks", 2019). Rules use only `keras.ops`.

- `register(layer_class)`: registers a rule for a custom layer.
- `Outer`: a per-example gradient stored as factors, whose norm is computed the cheaper way.
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
