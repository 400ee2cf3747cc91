"""The training accuracy of each mini-batch, as in figures 15 and 16."""

from __future__ import annotations

from typing import Any

import keras


class BatchAccuracy(keras.callbacks.Callback):
    """Keeps the accuracy of every mini-batch in `history`, a list of `(step, accuracy)`.

    Keras tells the mean over the epoch so far, m_t over n_t examples; the accuracy of step t is
    (n_t m_t - n_(t-1) m_(t-1)) / (n_t - n_(t-1)).

    Args:
        num_train: The number of training examples.
        batch_size: The size of a mini-batch, but for the last one of a pass over them.
    """

    def __init__(self, num_train: int, batch_size: int) -> None:
        super().__init__()
        self.sizes = [
            min(batch_size, num_train - start) for start in range(0, num_train, batch_size)
        ]
        self.history: list[tuple[int, float]] = []

    def get_state(self) -> dict[str, Any]:
        return {"history": self.history}

    def set_state(self, state: dict[str, Any]) -> None:
        self.history = [(step, accuracy) for step, accuracy in state["history"]]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._seen, self._right = 0, 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = len(self.history) + 1
        seen = self._seen + self.sizes[(step - 1) % len(self.sizes)]
        right = seen * float((logs or {})["accuracy"])
        self.history.append((step, (right - self._right) / (seen - self._seen)))
        self._seen, self._right = seen, right
