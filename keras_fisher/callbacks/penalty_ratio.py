"""The size of the penalty's gradient during training."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from keras_fisher.callbacks._log_writer import LogWriter
from keras_fisher.model import FisherPenaltyModel


class PenaltyRatio(LogWriter):
    """Logs the size of the penalty's gradient relative to the gradient of the loss.

        alpha ||d/dw P|| / ||d/dw l||,

    where P is the squared norm of eq. 3 and l the loss. Both norms are means over about the last
    ten steps that computed the penalty. At a ratio far below 0.1 the penalty changes little; above
    2, before the model has learnt, the penalty keeps it from learning. With `max_penalty_ratio`, it
    is the ratio after the limit.

    It logs `penalty_ratio` at the end of each epoch, before any other callback reads `logs`, in
    whatever order they are listed.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model = kf.FisherPenaltyModel(backbone, alpha=0.1, seed=0)
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> fit = model.fit(x, y, epochs=2, callbacks=[kf.callbacks.PenaltyRatio()], verbose=0)
        >>> [0.0 < ratio < 1.0 for ratio in fit.history["penalty_ratio"]]
        [True, True]

    Raises:
        TypeError: when training begins, if the model is not a `FisherPenaltyModel`.
    """

    key = "penalty_ratio"

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if not isinstance(self.model, FisherPenaltyModel):
            raise TypeError(
                "PenaltyRatio needs a FisherPenaltyModel. "
                f"Received: {self.model.name!r} ({type(self.model).__name__})"
            )

    def _list_keys(self) -> Collection[str]:
        return (self.key,)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if logs is not None:
            logs[self.key] = self.model.penalty_ratio
