"""Masks that separate data from padding.

Padding is marked in three ways: by Keras's mask on a tensor, by a sample weight of 0, or by a label
that the loss ignores. The likelihood and its mean exclude padded observations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

if TYPE_CHECKING:
    from keras_fisher.backend.types import Tensor
    from keras_fisher.likelihoods import Likelihood


def find_data(likelihood: Likelihood, y: Tensor | None, sample_weight: Any) -> Tensor | None:
    """Returns a mask of the data in a batch, from its labels and sample weights.

    Args:
        likelihood: The likelihood, which determines the ignored labels.
        y: The labels, or `None`.
        sample_weight: Weights of examples or observations, or `None`.

    Returns:
        Booleans of shape `(batch, ...)`; `None` if everything is data.
    """
    weight = next(iter(keras.tree.flatten(sample_weight)), None)
    by_weight = None if weight is None else ops.not_equal(weight, 0)
    return combine_masks(None if y is None else likelihood.counted(y), by_weight)


def combine_masks(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Returns where both masks of shape `(batch, ...)` are true; each may be `None`."""
    if first is None or second is None:
        return second if first is None else first
    first, second = ops.cast(first, "bool"), ops.cast(second, "bool")
    if len(first.shape) < len(second.shape):
        first, second = second, first
    return ops.logical_and(first, align_mask(second, len(first.shape)))


def align_mask(mask: Tensor, rank: int) -> Tensor:
    """Drops or appends axes of length 1 until a mask has `rank` axes."""
    while len(mask.shape) > rank and mask.shape[-1] == 1:
        mask = ops.squeeze(mask, axis=-1)
    while len(mask.shape) < rank:
        mask = ops.expand_dims(mask, -1)
    return mask


def examples_with_data(mask: Tensor) -> Tensor:
    """Returns a mask of the examples that have any data, shape `(batch,)`."""
    return ops.any(ops.reshape(mask, (ops.shape(mask)[0], -1)), axis=-1)
