"""The losses of the settings."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from experiment.plan.setting import Run

SMALLEST = 1e-7  # probability; the derivative of p^q at 0 is infinite


@keras.saving.register_keras_serializable(package="experiment")
class GeneralizedCrossEntropy(keras.losses.CategoricalGeneralizedCrossEntropy):
    """Computes Keras's generalised cross-entropy, (1 - p_y^q) / q, of logits.

    Zhang & Sabuncu (2018). Labels are integers of shape `(batch,)`.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return super().call(y_true, ops.clip(ops.softmax(y_pred), SMALLEST, 1.0))


def make_loss(run: Run) -> keras.losses.Loss:
    """Creates the loss of a run, whose labels are one-hot if `takes_one_hot_labels`."""
    if run.gce_q:
        return GeneralizedCrossEntropy(run.gce_q)
    if takes_one_hot_labels(run):
        return keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=run.label_smoothing
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def takes_one_hot_labels(run: Run) -> bool:
    """Whether the loss of a run takes one-hot labels instead of integers."""
    return bool(run.mixup_beta or run.label_smoothing)
