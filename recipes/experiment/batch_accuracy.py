"""The training accuracy of each mini-batch, as in figures 15 and 16."""

from __future__ import annotations

from typing import Any

import keras


class BatchAccuracy(keras.callbacks.Callback):
    """Keeps the accuracy of every mini-batch in `history`, a list of `(step, accuracy)`.

    Keras tells the mean over the epoch so far, m_t over n_t examples; the accuracy of step t is
    (n_t m_t - n_(t-1) m_(t-1)) / (n_t - n_(t-1)).

    Args:
        num_train: The number of examples of an epoch.
        batch_size: The size of a mini-batch, but for the last one of an epoch.
    """

    def __init__(self, num_train: int, batch_size: int) -> None:
        super().__init__()
        self.num_train, self.batch_size = num_train, batch_size
        self.history: list[tuple[int, float]] = []

    def get_state(self) -> dict[str, Any]:
        return {"history": self.history}

    def set_state(self, state: dict[str, Any]) -> None:
        self.history = [(step, accuracy) for step, accuracy in state["history"]]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._seen, self._right = 0, 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        seen = min((batch + 1) * self.batch_size, self.num_train)
        right = seen * float((logs or {})["accuracy"])
        step = self.history[-1][0] + 1 if self.history else 1
        self.history.append((step, (right - self._right) / (seen - self._seen)))
        self._seen, self._right = seen, right
