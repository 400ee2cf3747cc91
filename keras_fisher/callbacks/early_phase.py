"""Tr(F_i): Tr(F) in the early phase of training."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras

from keras_fisher.callbacks._measuring import MeasuringCallback, from_json, to_json
from keras_fisher.callbacks._step_counter import Frequency
from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces import Estimate, FisherTraceMeter
from keras_fisher.utils import arguments


class EarlyPhase(MeasuringCallback):
    """Measures Tr(F_i): Tr(F) where the training loss first reaches a threshold (section 3).

    It logs `early_fisher_trace`: NaN until the loss is at or below `loss_threshold`, and then the
    trace at that step, measured once as in `keras_fisher.fisher_trace`. The loss is the one that
    Keras logs: the mean over the epoch so far, including regularisers.

    If training began without this callback, the loss may already be below the threshold when the
    callback first reads it. Then the crossing step is unknown: the callback warns, and the value
    stays NaN. To resume a training, pass the state of the earlier callback to `set_state`.

    As with `FisherTrace`, the order of callbacks does not matter.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> x = np.random.normal(size=(64, 4))
        >>> y = (x[:, 0] > 0).astype(int)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile(keras.optimizers.SGD(1.0), loss)
        >>> early = kf.callbacks.EarlyPhase((x, y), loss_threshold=0.5, seed=0)
        >>> fit = model.fit(x, y, epochs=5, callbacks=[early], verbose=0)
        >>> crossed = [loss <= 0.5 for loss in fit.history["loss"]].index(True)
        >>> step, estimate = early.crossing
        >>> step == 2 * (crossed + 1)  # an epoch has two steps
        True
        >>> fit.history["early_fisher_trace"][-1] == estimate.value
        True

    Args:
        data: Arrays `(x, y)` to measure on, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`). Labels are needed only if `labels` is
            "given".
        loss_threshold: The training loss to wait for. Section 3 uses 3.5 for CIFAR-100 and
            ImageNet, and 1.2 for CIFAR-10.
        freq: "epoch" to read the loss after each epoch, or the number of steps between two
            readings. (Early in an epoch the mean covers few batches.)
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The number of examples processed at a time.
        labels: "sampled" from the model's prediction, "expected" for the exact sum over the
            classes, or "given" for those of `data`.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the drawn labels; `None` for a random one.

    Attributes:
        crossing: `(step, Estimate)` once the threshold was crossed, `None` before.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `loss_threshold` is not finite, `freq`, `labels` or a number is out of range,
            or `data` holds too little; when training begins, if the model has no known likelihood;
            in training, if it does not log `loss`.
    """

    key = "early_fisher_trace"
    _settings = ("num_examples", "labels", "loss_threshold")
    crossing: tuple[int, Estimate] | None
    _is_ahead: bool | None  # of the threshold; None if unknown

    def __init__(
        self,
        data: Any,
        loss_threshold: float,
        *,
        freq: Frequency = "epoch",
        num_examples: int | None = None,
        batch_size: int = 128,
        labels: str = "sampled",
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        self.loss_threshold = _check_finite("loss_threshold", loss_threshold)
        self.labels = arguments.check_choice("labels", labels, ("sampled", "expected", "given"))
        super().__init__(
            data, freq, num_examples, batch_size, likelihood, needs_labels=labels == "given"
        )
        self.seed = arguments.check_seed(seed)

    def get_state(self) -> dict[str, Any]:
        crossing = None if self.crossing is None else to_json(*self.crossing)
        return super().get_state() | {"is_ahead": self._is_ahead, "crossing": crossing}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._is_ahead = state["is_ahead"]
        self.crossing = None if state["crossing"] is None else from_json(state["crossing"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if self._is_ahead is None and not self._counter.taken:
            self._is_ahead = True

    def _make_meter(self, model: keras.Model) -> FisherTraceMeter:
        return FisherTraceMeter(
            model, labels=self.labels, likelihood=self.likelihood, seed=self.seed
        )

    def _look(self, logs: dict[str, Any] | None) -> None:
        if self._is_ahead is False:
            return
        if not self._loss(logs) <= self.loss_threshold:
            self._is_ahead = True
            return
        if self._is_ahead:
            self.crossing = self._measure()
        else:
            warnings.warn(
                "EarlyPhase started when the training loss was already below "
                f"loss_threshold={self.loss_threshold}: `{self.key}` stays NaN",
                stacklevel=2,
            )
        self._is_ahead = False

    def _values(self) -> dict[str, float]:
        return {self.key: math.nan if self.crossing is None else self.crossing[1].value}

    def _forget(self) -> None:
        self.crossing = None
        self._is_ahead = None

    def _forget_after(self, step: int) -> None:
        if self.crossing is not None and self.crossing[0] > step:
            self.crossing, self._is_ahead = None, True

    def _loss(self, logs: dict[str, Any] | None) -> float:
        reported = self.model.get_metrics_result() if logs is None else logs
        if "loss" not in reported:
            raise ValueError(
                f"EarlyPhase needs a model that reports its `loss`. Received: {sorted(reported)}"
            )
        return float(reported["loss"])


def _check_finite(name: str, value: Any) -> float:
    number = arguments.check_real(name, value)
    if not math.isfinite(number):
        raise ValueError(f"`{name}` must be finite. Received: {name}={value}")
    return number
