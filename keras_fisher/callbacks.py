"""Callbacks that measure during `fit` and write into `logs`.

List them before `keras.callbacks.TensorBoard`, `CSVLogger` and whatever else reads `logs`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_fisher import _arguments
from keras_fisher.traces import GradientNormMeter, accuracy


class LabelNoiseMonitor(keras.callbacks.Callback):
    """Measures, after each epoch, how clean and noisy examples are being learnt (figure 5).

    It logs the training accuracy on either group against the labels that are trained on
    (`clean_accuracy`, `noisy_accuracy`: the latter is the fraction of noisy labels memorised), the
    norm of the mini-batch gradient on either (`clean_gradient_norm`, `noisy_gradient_norm`) and
    the ratio clean to noisy of these (`gradient_norm_ratio`). All in inference mode.

    Example:
    >>> import keras, numpy as np, keras_fisher as kf
    >>> keras.utils.set_random_seed(0)
    >>> x, y = np.random.rand(200, 4), np.random.randint(0, 3, 200)
    >>> y_noisy, is_noisy = kf.data.uniform_label_noise(y, 0.5, num_classes=3, seed=0)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> monitor = kf.callbacks.LabelNoiseMonitor(x, y_noisy, is_noisy)
    >>> history = model.fit(x, y_noisy, callbacks=[monitor], verbose=0)
    >>> 0 <= history.history["noisy_accuracy"][0] <= 1
    True

    Args:
        x: Training inputs, an array of shape `(n, ...)`.
        y: The labels that are trained on, integers of shape `(n,)`.
        is_noisy: Which of them are noisy, booleans of shape `(n,)`; some of either kind.
        batch_size: The size of a mini-batch.
        gradient_batches: On how many mini-batches of either group the gradient norm is measured.

    Raises:
        ValueError: if the arrays differ in length, or all examples are of one kind.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        is_noisy: np.ndarray,
        *,
        batch_size: int = 128,
        gradient_batches: int = 10,
    ) -> None:
        super().__init__()
        x, y, is_noisy = np.asarray(x), np.asarray(y), np.asarray(is_noisy, bool)
        if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
            raise ValueError(
                "`y` must hold integer labels, shape (n,). "
                f"Received: dtype {y.dtype}, shape {y.shape}"
            )
        if not len(x) == len(y) == len(is_noisy):
            raise ValueError(
                "`x`, `y` and `is_noisy` must have the same length. "
                f"Received: {len(x)}, {len(y)} and {len(is_noisy)}"
            )
        if is_noisy.all() or not is_noisy.any():
            raise ValueError(
                "`is_noisy` must mark some examples and leave some. "
                f"Received: {is_noisy.sum()} marked of {len(is_noisy)}"
            )
        self.batch_size = _arguments.check_integer("batch_size", batch_size, low=1)
        self.gradient_batches = _arguments.check_integer(
            "gradient_batches", gradient_batches, low=1
        )
        self._groups = {
            "clean": (x[~is_noisy], y[~is_noisy]),
            "noisy": (x[is_noisy], y[is_noisy]),
        }
        self._gradient_norm: GradientNormMeter | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Compiles the measurement for the model that is trained."""
        self._gradient_norm = GradientNormMeter(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures and writes into `logs`."""
        assert self._gradient_norm is not None
        measured = {}
        for name, (x, y) in self._groups.items():
            measured[f"{name}_accuracy"] = accuracy(self.model, x, y)
            some = min(len(y), self.gradient_batches * self.batch_size)
            norm = self._gradient_norm((x, y), num_examples=some, batch_size=self.batch_size)
            measured[f"{name}_gradient_norm"] = norm.value
        measured["gradient_norm_ratio"] = (
            measured["clean_gradient_norm"] / measured["noisy_gradient_norm"]
            if measured["noisy_gradient_norm"]
            else float("nan")
        )
        if logs is not None:
            logs.update(measured)
