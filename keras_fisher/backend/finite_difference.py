"""Finite differences of gradients, in place of second derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_fisher.backend.types import Tensor

# The relative shift of a point along the gradient: about the square root of each dtype's rounding
# error. For bfloat16, where rounding matters at any shift, it is the value with the smallest error
# on SimpleCNN, VGG-11 and a Wide ResNet.
_SHIFT = {"float64": 1e-8, "float32": 1e-4, "float16": 2e-2, "bfloat16": 2e-3}


def find_precision(dtypes: Iterable[str]) -> str:
    """Returns the precision of a model whose layers compute in these dtypes: the coarsest.

    Some backends compute parts of a float64 model in float32.
    """
    known = (dtype for dtype in dtypes if dtype in _SHIFT)
    coarsest = max(known, key=_SHIFT.__getitem__, default="float32")
    is_double = coarsest == "float64"
    return keras.backend.result_type(coarsest, "float32") if is_double else coarsest


def step_length(squared_norm_of_point: Tensor, squared_norm_of_g: Tensor, precision: str) -> Tensor:
    """Returns h such that the shift h g is a small fixed fraction of the point's norm."""
    size = 1.0 + ops.sqrt(squared_norm_of_point)
    return _SHIFT[precision] * size / (ops.sqrt(squared_norm_of_g) + 1e-30)


def shift(point: Sequence[Tensor], g: Sequence[Tensor], step: Tensor) -> list[Tensor]:
    """Returns the point moved by h g."""
    return [v + ops.cast(step * d, v.dtype) for v, d in zip(point, g, strict=True)]


def may_be_on_kink(point: Sequence[Tensor], g: Sequence[Tensor]) -> Tensor:
    """Returns whether a value of exactly 0 moves, a boolean scalar.

    Inputs of 0 and biases that are still 0 put a ReLU on its kink. The gradient then jumps between
    the point and the shifted point, for any shift.
    """
    moves = [ops.any(ops.logical_and(v == 0, d != 0)) for v, d in zip(point, g, strict=True)]
    return ops.any(ops.stack(moves))


def compute_slope(
    here: Sequence[Tensor],
    gradient_at: Callable[[Tensor], list[Tensor]],
    step: Tensor,
    is_on_kink: Tensor,
    cond: Callable[..., Any],
) -> list[Tensor]:
    """Returns the derivative of the squared norm of g, from two gradients along h g.

    It uses the gradients at h = 0 and at one step. On a kink, it uses those at one step and at two
    steps, which are on the same side of it.

    Args:
        here: The gradient at h = 0.
        gradient_at: A function from h to the gradient there.
        step: The step length, a scalar.
        is_on_kink: Whether h = 0 is on a kink, a boolean scalar.
        cond: A function that runs one of two functions.
    """
    near = gradient_at(step)
    first, second = cond(
        is_on_kink,
        lambda: (list(near), list(gradient_at(2.0 * step))),
        lambda: (list(here), list(near)),
    )
    return [(b - a) * (2.0 / step) for a, b in zip(first, second, strict=True)]
