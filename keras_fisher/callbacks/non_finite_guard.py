"""Stopping at, or skipping, steps that are not finite."""

from __future__ import annotations

from typing import Any

import keras

from keras_fisher.model import FisherPenaltyModel
from keras_fisher.utils import arguments
from keras_fisher.utils.messages import warn

_ACTIONS = ("stop", "skip")


class NonFiniteGuard(keras.callbacks.Callback):
    """Stops training at the step whose loss or penalty is NaN or infinite, or skips such steps.

    Without this callback a `FisherPenaltyModel` continues to train, like any Keras model, and warns
    at the end of the epoch. Every message contains the step, the loss, alpha and the penalty. A
    similar warning reports outputs that are the same for all examples of a mini-batch, in ten
    mini-batches in a row: a penalty that is far too large can move the weights to a point where no
    unit is active, and the model then predicts a constant, with a finite loss. This callback does
    not stop or skip such steps.

    A skipped step leaves weights, optimizer, batch-normalisation statistics and metrics unchanged.
    It still counts as a step and draws random numbers, and the next step recomputes the penalty.
    Each epoch with skipped steps ends with a warning that reports their number. With a loss scale
    (float16), which itself skips gradients that overflow, only losses are checked.

    "stop" reads one number from the device after each step (or `steps_per_execution` of them).

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> x[20] = np.nan
        >>> backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model = kf.FisherPenaltyModel(backbone, seed=0)
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> guard = kf.callbacks.NonFiniteGuard("skip")
        >>> fit = model.fit(x, y, batch_size=16, shuffle=False, callbacks=[guard], verbose=0)
        >>> guard.skipped, bool(np.isfinite(fit.history["loss"][0]))
        (1, True)

    Args:
        action: "stop" to stop training after the step, or "skip" to skip such steps. With "skip"
            each step checks all gradients, which takes one more pass over the weights.

    Attributes:
        skipped: The number of skipped steps of the latest training.

    Raises:
        ValueError: if `action` is unknown; when training begins, for "skip" under a tf.distribute
            strategy that mirrors variables.
        TypeError: when training begins, if the model is not a `FisherPenaltyModel`
            (`keras.callbacks.TerminateOnNaN` accepts any model).
    """

    def __init__(self, action: str = "stop") -> None:
        super().__init__()
        self.action = arguments.check_choice("action", action, _ACTIONS)
        self.skipped = 0
        self._reported = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not isinstance(self.model, FisherPenaltyModel):
            raise TypeError(
                "NonFiniteGuard needs a FisherPenaltyModel (keras.callbacks.TerminateOnNaN takes "
                f"any model). Received: {self.model.name!r} ({type(self.model).__name__})"
            )
        self.model.skip_non_finite(self.action == "skip")
        self.skipped = self._reported = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.action == "stop" and not self.model.health.is_finite:
            self.model.health.warn()
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.health.warn()
        self.skipped = self.model.health.skipped
        if self.skipped > self._reported:
            self._reported = self.skipped
            noun = "step" if self.skipped == 1 else "steps"
            warn(f"{self.skipped} {noun} skipped since training began.")
