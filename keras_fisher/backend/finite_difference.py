"""The difference of two gradients, in the place of a second derivative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_fisher.backend.types import Tensor

# How far, of its size, a point is shifted along the gradient for a difference: about the square
# root of each dtype's rounding error; for bfloat16, whose rounding is felt at any length, what was
# least wrong on SimpleCNN, VGG-11 and a Wide ResNet.
_SHIFT = {"float64": 1e-8, "float32": 1e-4, "float16": 2e-2, "bfloat16": 2e-3}


def step_length(squared_norm_of_point: Tensor, squared_norm_of_g: Tensor, precision: str) -> Tensor:
    """The h for which the shift h g is a fixed small fraction of the point's own size."""
    size = 1.0 + ops.sqrt(squared_norm_of_point)
    return _SHIFT[precision] * size / (ops.sqrt(squared_norm_of_g) + 1e-30)


def shift(point: Sequence[Tensor], g: Sequence[Tensor], step: Tensor) -> list[Tensor]:
    """The point moved by h g."""
    return [v + ops.cast(step * d, v.dtype) for v, d in zip(point, g, strict=True)]


def may_be_on_kink(point: Sequence[Tensor], g: Sequence[Tensor]) -> Tensor:
    """Returns whether the point moves off a value of exactly 0, a boolean scalar.

    Inputs of 0 and biases that are still 0 put a ReLU on its kink, and the gradients at the point
    and beside it then differ by a jump, however small the shift.
    """
    moves = [ops.any(ops.logical_and(v == 0, d != 0)) for v, d in zip(point, g, strict=True)]
    return ops.any(ops.stack(moves))


def compute_slope(
    here: Sequence[Tensor],
    gradient_at: Callable[[Any], list[Any]],
    step: Tensor,
    is_on_kink: Tensor,
    cond: Callable[..., Any],
) -> list[Tensor]:
    """Returns the derivative of the squared norm of g, from two gradients along h g.

    They are those at h = 0 and at one step, or on a kink those at one step and at two, which lie on
    the same side of it.

    Args:
        here: The gradient at h = 0.
        gradient_at: The gradient at another h.
        step: The distance between the two, a scalar.
        is_on_kink: Whether h = 0 is on a kink, a boolean scalar.
        cond: Runs one of two functions.
    """
    near = gradient_at(step)
    first, second = cond(
        is_on_kink,
        lambda: (list(near), list(gradient_at(2.0 * step))),
        lambda: (list(here), list(near)),
    )
    return [(b - a) * (2.0 / step) for a, b in zip(first, second, strict=True)]
