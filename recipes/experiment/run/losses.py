"""The loss of a run."""

from __future__ import annotations

import keras

from experiment.methods.generalized_cross_entropy import GeneralizedCrossEntropy
from experiment.plan.setting import Run


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
