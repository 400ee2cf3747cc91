"""The accuracy of a model on arrays."""

from __future__ import annotations

import keras
import numpy as np


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray, batch_size: int = 512) -> float:
    """Measures the fraction of examples whose label has the largest output, in inference mode.

    Unlike `model.evaluate` it needs no compiled metric, and is cheap enough for a few hundred
    examples after every epoch.

    Args:
        model: A Keras model with one output.
        x: Inputs, an array of shape `(n, ...)`.
        y: Integer labels, an array of shape `(n,)`.
        batch_size: How many examples are evaluated at a time.

    Returns:
        A float in `[0, 1]`.
    """
    outputs = model.predict(x, batch_size=batch_size, verbose=0)
    return float(np.mean(np.argmax(outputs, axis=-1) == y))
