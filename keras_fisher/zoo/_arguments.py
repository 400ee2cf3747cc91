"""Checks of the networks' arguments."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_fisher.utils.arguments import check_channels_last, check_integer


def check_network(
    input_shape: Any, num_classes: Any, *, smallest: int = 1
) -> tuple[tuple[int, int, int], int]:
    """Returns the input shape and the number of classes as plain integers, or raises.

    Args:
        input_shape: Height, width and channels of one image.
        num_classes: The number of logits.
        smallest: The smallest height and width that the network accepts.

    Returns:
        `(input_shape, num_classes)`.

    Raises:
        TypeError: If one has the wrong type.
        ValueError: If one is out of range, or Keras's image data format is "channels_first".
    """
    check_channels_last()
    pixels = f"{smallest} by {smallest} pixel{'s' if smallest > 1 else ''}"
    message = (
        "`input_shape` must be three integers, the height, width and channels of one image, of at "
        f"least {pixels}. Received: input_shape={input_shape!r}"
    )
    if not isinstance(input_shape, Sequence) or not all(map(_is_integer, input_shape)):
        raise TypeError(message)
    if len(input_shape) != 3 or not all(map(operator.ge, input_shape, (smallest, smallest, 1))):
        raise ValueError(message)
    height, width, channels = map(int, input_shape)
    return (height, width, channels), check_integer("num_classes", num_classes, low=1)


def check_depth(depth: Any, step: int, base: int) -> int:
    """Returns n >= 1 such that the depth is `step * n + base`; raises if there is none."""
    accepted = f"{step}n + {base} for a whole number n >= 1"
    message = f"`depth` must be {accepted}. Received: depth={depth!r}"
    if not _is_integer(depth):
        raise TypeError(message)
    n, remainder = divmod(int(depth) - base, step)
    if n < 1 or remainder:
        raise ValueError(message)
    return n


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
