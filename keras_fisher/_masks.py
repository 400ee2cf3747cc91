"""Keras's masks, which mark the padded time steps of a tensor."""

from __future__ import annotations

from typing import Any

# Keras keeps them beside tensors that, as in JAX, take no attributes; it has no public name for it.
from keras.src.backend import get_keras_mask, set_keras_mask


def mask_of(tensor: Any) -> Any:
    """The mask of a tensor, or `None`."""
    return get_keras_mask(tensor)


def set_mask(tensor: Any, mask: Any) -> None:
    """Gives a tensor a mask."""
    set_keras_mask(tensor, mask)
