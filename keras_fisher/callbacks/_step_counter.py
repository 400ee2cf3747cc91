"""The steps of a training, and when to measure."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_fisher.backend.private_api.keras import get_step_variable

Frequency = int | Literal["epoch"]


class StepCounter:
    """Counts the steps of a training, and reports when `freq` more have passed.

    It starts from the optimizer's count, then counts by itself: the optimizer does not count the
    steps that a loss scale skips, and TensorFlow's counts one too many after each epoch of a
    dataset of unknown length. Steps that an earlier counter of the same model has counted are those
    of that counter.

    Args:
        model: The model in training.
        freq: "epoch", or the number of steps between measurements.
        steps_per_epoch: The number of steps in an epoch; `None` if unknown (an epoch then counts
            as whole executions of `steps_per_execution`).
        excess: How many steps too many the optimizer has counted before.

    Attributes:
        taken: The number of steps taken in the training.
    """

    def __init__(
        self,
        model: keras.Model,
        freq: Frequency,
        steps_per_epoch: int | None = None,
        excess: int = 0,
    ) -> None:
        self.taken = count_steps_taken(model) - excess
        self._freq = freq
        self._steps_per_epoch = steps_per_epoch or math.inf
        self._epoch_began_at = self.taken
        self._executed = 0

    def begin_epoch(self) -> None:
        """Starts counting the batches of an epoch."""
        self._epoch_began_at = self.taken
        self._executed = 0

    def begin_batch(self, batch: int) -> bool:
        """Counts the epoch's batches before `batch`; returns whether to measure."""
        return self._advance(batch)

    def end_batch(self, batch: int) -> None:
        """Records that the epoch has reached the end of `batch`."""
        # With steps_per_execution, Keras may pass a number beyond the last batch.
        self._executed = int(min(batch + 1, self._steps_per_epoch))

    def end_epoch(self) -> bool:
        """Counts the epoch's remaining batches; returns whether to measure."""
        return self._advance(self._executed) or self._freq == "epoch"

    def _advance(self, in_epoch: int) -> bool:
        before, self.taken = self.taken, self._epoch_began_at + in_epoch
        return self._freq != "epoch" and self.taken // self._freq > before // self._freq


def count_steps_taken(model: keras.Model) -> int:
    """Returns the number of steps that the model's optimizer has taken, 0 if it does not count."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return int(ops.convert_to_numpy(get_step_variable(optimizer)))


def check_freq(freq: Any) -> Frequency:
    """Returns `freq`; raises unless it is "epoch" or a number of steps."""
    message = f"`freq` must be 'epoch' or an integer >= 1 (of steps). Received: freq={freq!r}"
    if isinstance(freq, bool) or not isinstance(freq, str | int | np.integer):
        raise TypeError(message)
    if freq == "epoch":
        return "epoch"
    if isinstance(freq, str) or freq < 1:
        raise ValueError(message)
    return int(freq)
