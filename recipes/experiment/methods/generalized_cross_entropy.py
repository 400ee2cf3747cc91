"""Generalised cross-entropy (GCE) of logits."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

SMALLEST = 1e-7  # probability; the derivative of p^q at 0 is infinite


@keras.saving.register_keras_serializable(package="experiment")
class GeneralizedCrossEntropy(keras.losses.CategoricalGeneralizedCrossEntropy):
    """Computes Keras's generalised cross-entropy, (1 - p_y^q) / q, of logits.

    Zhang & Sabuncu (2018). Labels are integers of shape `(batch,)`.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return super().call(y_true, ops.clip(ops.softmax(y_pred), SMALLEST, 1.0))
