"""Counting training steps."""

from __future__ import annotations

import math

import keras
from keras import ops

from keras_fisher.callbacks._checks import Frequency


class StepCounter:
    """Counts the steps of a training, and tells when `freq` more have passed.

    It starts from the optimizer's count and goes on by itself: the optimizer counts neither steps
    over which it accumulates gradients nor those that a loss scale skips.

    Args:
        model: The model that is trained.
        freq: "epoch", or every how many steps of the training, from its first on.
        steps_per_epoch: How many steps an epoch has; `None` if that is not known (an epoch is then
            counted in whole executions of `steps_per_execution`).

    Attributes:
        taken: How many steps the training has taken.
    """

    def __init__(
        self, model: keras.Model, freq: Frequency, steps_per_epoch: int | None = None
    ) -> None:
        self.taken = steps_taken(model)
        self._freq = freq
        self._steps_per_epoch = steps_per_epoch or math.inf
        self._epoch_began_at = self.taken
        self._executed = 0

    def begin_epoch(self) -> None:
        """Starts on the batches of an epoch."""
        self._epoch_began_at = self.taken
        self._executed = 0

    def begin_batch(self, batch: int) -> bool:
        """Counts the batches before number `batch` of the epoch; returns whether it is time."""
        return self._advance(batch)

    def end_batch(self, batch: int) -> None:
        """Notes that the epoch got as far as `batch`, or to its end."""
        # With steps_per_execution, Keras may name a batch behind the last.
        self._executed = int(min(batch + 1, self._steps_per_epoch))

    def end_epoch(self) -> bool:
        """Counts the epoch's remaining batches; returns whether it is time."""
        return self._advance(self._executed) or self._freq == "epoch"

    def _advance(self, in_epoch: int) -> bool:
        before, self.taken = self.taken, self._epoch_began_at + in_epoch
        return self._freq != "epoch" and self.taken // self._freq > before // self._freq


def steps_taken(model: keras.Model) -> int:
    """Returns how many steps the optimizer of a model has taken, 0 if it does not count."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    iterations = int(ops.convert_to_numpy(getattr(optimizer, "iterations", 0)))
    return iterations * (getattr(optimizer, "gradient_accumulation_steps", None) or 1)
