"""Measurements of how clean and noisy labels are learnt."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from keras_fisher.backend.types import Tensor
from keras_fisher.callbacks._log_writer import LogWriter
from keras_fisher.likelihoods import Bernoulli, Gaussian
from keras_fisher.traces import GradientNormMeter, accuracy
from keras_fisher.traces.accuracy import check_outputs, check_range
from keras_fisher.traces.meter import find_outputs
from keras_fisher.utils import arguments

_MEASURED = ("accuracy", "gradient_norm")


class LabelNoiseMonitor(LogWriter):
    """Measures, after each epoch, how clean and noisy examples are being learnt (figure 5).

    For each group it logs the accuracy on the training labels (`clean_accuracy`, `noisy_accuracy`),
    the norm of the mini-batch gradient (`clean_gradient_norm`, `noisy_gradient_norm`), and the
    ratio of these norms, clean to noisy (`gradient_norm_ratio`). `noisy_accuracy` is the fraction
    of noisy labels memorised. Without memorisation it is about 1/classes if `is_noisy` also marks
    labels that are correct by chance, as that of `uniform_label_noise` does. The callback measures
    in inference mode. Losses that need a target for each output, such as the squared error, receive
    one-hot labels.

    As with `FisherTrace`, the order of callbacks does not matter.

    Examples:
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
        x: Training inputs, an array of shape `(n, ...)`, not sorted by class: mini-batches are read
            in order.
        y: The training labels, integers of shape `(n,)`.
        is_noisy: Whether each label is noisy, booleans of shape `(n,)`; not all equal.
        batch_size: The mini-batch size, or the number of examples of the smaller group if that is
            smaller.
        gradient_batches: The number of mini-batches per group to measure the gradient norm on.

    Raises:
        ValueError: if the arrays differ in length, or all examples are in one group; when training
            begins, if the model has no known likelihood, or lacks an output for a label of `y` (for
            a subclassed model, at the end of the first epoch).
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
        x, y, is_noisy = (
            arguments.check_array(name, array)
            for name, array in (("x", x), ("y", y), ("is_noisy", is_noisy))
        )
        _check_shapes(x, y, is_noisy)
        is_noisy = _check_booleans(is_noisy)
        _check_groups(is_noisy)
        self.batch_size = arguments.check_integer("batch_size", batch_size, low=1)
        self.gradient_batches = arguments.check_integer("gradient_batches", gradient_batches, low=1)
        self._groups = {
            "clean": (x[~is_noisy], y[~is_noisy]),
            "noisy": (x[is_noisy], y[is_noisy]),
        }
        self._meter: GradientNormMeter | None = None
        self._targets: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_meter": None, "_targets": {}}

    def _list_keys(self) -> Collection[str]:
        names = [f"{group}_{what}" for group in self._groups for what in _MEASURED]
        return [*names, "gradient_norm_ratio"]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self._meter = GradientNormMeter(self.model)
        outputs = find_outputs(self.model)
        self._targets = {} if outputs is None else self._make_targets(outputs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if not self._targets:  # The model is subclassed.
            x = self._groups["clean"][0][: self.batch_size]
            self._targets = self._make_targets(self.model.predict(x, verbose=0))
        measured = {}
        for name, (x, y) in self._groups.items():
            measured[f"{name}_accuracy"] = accuracy(self.model, x, y)
            norm = self._gradient_norm(x, self._targets[name])
            self._warn_of_nan(norm, f"at the end of epoch {epoch}")
            measured[f"{name}_gradient_norm"] = norm
        noisy_norm = measured["noisy_gradient_norm"]
        measured["gradient_norm_ratio"] = (
            measured["clean_gradient_norm"] / noisy_norm if noisy_norm else math.nan
        )
        if logs is not None:
            logs.update(measured)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        self._meter = None

    def _make_targets(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns the labels of each group in the layout that the model's loss accepts."""
        check_outputs(self.model, outputs)
        width = outputs.shape[1]
        labels = {name: y for name, (_, y) in self._groups.items()}
        check_range(np.concatenate([*labels.values()]), width, self.model.name)
        assert self._meter is not None
        if isinstance(self._meter._likelihood, Bernoulli | Gaussian):
            return {name: np.eye(width, dtype="float32")[y] for name, y in labels.items()}
        return labels

    def _gradient_norm(self, x: np.ndarray, y: np.ndarray) -> float:
        assert self._meter is not None
        # The norm depends on the size of mini-batches, so both groups have the same.
        size = min(self.batch_size, *(len(labels) for _, labels in self._groups.values()))
        num_examples = min(self.gradient_batches * size, len(y))
        return self._meter((x, y), num_examples=num_examples, batch_size=size).value


def _check_shapes(x: np.ndarray, y: np.ndarray, is_noisy: np.ndarray) -> None:
    if is_noisy.ndim != 1:
        raise ValueError(f"`is_noisy` must have shape (n,). Received: shape {is_noisy.shape}")
    arguments.check_integer_labels(y)
    if not len(x) == len(y) == len(is_noisy):
        raise ValueError(
            "`x`, `y` and `is_noisy` must have the same length. "
            f"Received: {len(x)}, {len(y)} and {len(is_noisy)}"
        )


def _check_booleans(is_noisy: np.ndarray) -> np.ndarray:
    if not np.isin(is_noisy, (0, 1)).all():
        raise ValueError(
            "`is_noisy` must hold booleans. "
            f"Received: dtype {is_noisy.dtype}, with {is_noisy.ravel()[0]!r} first"
        )
    return is_noisy.astype(bool)


def _check_groups(is_noisy: np.ndarray) -> None:
    if is_noisy.all() or not is_noisy.any():
        raise ValueError(
            "`is_noisy` must be true for some examples and false for others. "
            f"Received: {is_noisy.sum()} true of {len(is_noisy)}"
        )
