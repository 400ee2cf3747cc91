"""The difference of two gradients, in the place of a second derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

# How far, of its size, a point is shifted along the gradient for a difference: about the square
# root of each dtype's rounding error; for bfloat16, whose rounding is felt at any length, what was
# least wrong on SimpleCNN, VGG-11 and a Wide ResNet.
_SHIFT = {"float64": 1e-8, "float32": 1e-4, "float16": 2e-2, "bfloat16": 2e-3}


def step_length(squared_norm_of_point: Any, squared_norm_of_g: Any, precision: str) -> Any:
    """The h for which the shift h g is a fixed small fraction of the point's own size."""
    size = 1.0 + ops.sqrt(squared_norm_of_point)
    return _SHIFT[precision] * size / (ops.sqrt(squared_norm_of_g) + 1e-30)


def shifted(point: Sequence[Any], g: Sequence[Any], step: Any) -> list[Any]:
    """The point moved by h g."""
    return [v + ops.cast(step * d, v.dtype) for v, d in zip(point, g, strict=True)]


def slope(here: Sequence[Any], there: Sequence[Any], step: Any) -> list[Any]:
    """The derivative of the squared norm of g, from gradients at the point and at h g from it."""
    return [(t - h) * (2.0 / step) for t, h in zip(there, here, strict=True)]
