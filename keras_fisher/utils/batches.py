"""The examples of a mini-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

if TYPE_CHECKING:
    from keras_fisher.backend.types import Tensor


def count_examples(x: Any) -> int | Tensor:
    """Returns the number of examples in a batch of inputs: an integer if shapes are static."""
    return ops.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]


def map_tensors(function: Callable[[Any], Any], tensors: Any) -> Any:
    """Applies a function to each tensor of a structure; omitted optional inputs stay `None`."""
    return keras.tree.map_structure(lambda t: None if t is None else function(t), tensors)
