"""Half precision in measurements, which have no loss scale."""

from __future__ import annotations

import math

import keras

from keras_fisher.backend.finite_difference import find_precision
from keras_fisher.backend.private_api.keras import list_all_layers
from keras_fisher.backend.types import Tensor
from keras_fisher.utils.messages import warn_once

# The gradient of a mean over more positions is below the smallest normal number of float16.
_MOST = 2**14


def warn_of_rounding(model: keras.Model, outputs: Tensor) -> None:
    """Warns once if outputs in half precision have so many positions that gradients vanish."""
    positions = math.prod(size or 1 for size in outputs.shape[1:-1])
    if positions <= _MOST:
        return
    dtype = find_precision(layer.compute_dtype for layer in list_all_layers(model))
    if dtype in ("float16", "bfloat16"):
        warn_once(
            f"{model.name!r} computes in {dtype}, and its outputs have {positions} positions for "
            "each example: gradients of their mean are too small for it, so traces and gradient "
            "norms may be wrong by tens of percent. Measure a copy of the model in float32."
        )
