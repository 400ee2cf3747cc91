"""Tr(F) during training."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_fisher.callbacks._measuring import CurveCallback
from keras_fisher.callbacks._step_counter import Frequency
from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces import FisherTraceMeter
from keras_fisher.utils import arguments
from keras_fisher.utils.messages import warn


class FisherTrace(CurveCallback):
    """Tracks Tr(F), the mean squared norm of the per-example gradient, during training.

        Tr(F) = (1/n) sum_i ||g(x_i, y^_i)||^2

    where g is the gradient of the negative log-likelihood with respect to the weights, measured as
    in `keras_fisher.fisher_trace`. It logs `fisher_trace`, the latest value, and
    `fisher_trace_peak`, the largest value since the end of the first epoch; each is NaN before its
    first measurement. As in appendix A.2, the peak excludes the first epoch, because Tr(F) explodes
    at the initialisation of networks with batch normalisation.

    All measuring callbacks write into `logs` before any other callback reads them, in whatever
    order they are listed, and do not change the training, unless `data` is the same shuffled
    `tf.data.Dataset` object as the training data. (Set `mode` of `keras.callbacks.EarlyStopping`
    and `ModelCheckpoint` to "min" or "max" for these values.) If `freq` is a number of steps, each
    `keras.callbacks.TensorBoard` in the list also receives the curve over steps.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> trace = kf.callbacks.FisherTrace((x, y), freq=2, num_examples=16, seed=0)
        >>> fit = model.fit(x, y, batch_size=16, epochs=2, callbacks=[trace], verbose=0)
        >>> [step for step, estimate in trace.history]
        [2, 4, 6, 8]
        >>> fit.history["fisher_trace"][-1] == trace.history[-1][1].value
        True

    Args:
        data: Arrays `(x, y)` to measure on, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`), which is read from its beginning each
            time. Labels are needed only if `labels` is "given".
        freq: "epoch" to measure after each epoch, or the number of steps between measurements,
            counted from the beginning of the training, across fits. (`freq=1, num_examples=128` on
            a shuffling dataset gives figures 15 and 16.)
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The number of examples processed at a time.
        labels: "sampled" from the model's prediction, "expected" for the exact sum over the
            classes, or "given" for those of `data` (the empirical Fisher).
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the drawn labels; `None` for a random one.
        explosion_factor: Warns, once per training, when the peak exceeds `early` by this factor
            (figure 1, middle); `None` never warns.

    Attributes:
        history: All measurements of this training, a list of `(step, Estimate)`.
        key: The name in `logs`, "fisher_trace". To use two callbacks, on training and on test data,
            set another name in one of them.
        peak: The largest value since the end of the first epoch (index 0); NaN before. A fit with
            `initial_epoch` above 0 begins after that epoch.
        early: The first value measured at or after that point; NaN before.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `freq`, `labels` or a number is out of range, or `data` holds too little;
            when training begins, if the model has no known likelihood.
    """

    key = "fisher_trace"
    _settings = ("num_examples", "labels")
    _first_epoch_end: int | None  # in steps
    _has_exploded: bool

    def __init__(
        self,
        data: Any,
        *,
        freq: Frequency = "epoch",
        num_examples: int | None = None,
        batch_size: int = 128,
        labels: str = "sampled",
        likelihood: Likelihood | None = None,
        seed: int | None = None,
        explosion_factor: float | None = None,
    ) -> None:
        self.explosion_factor = (
            None
            if explosion_factor is None
            else arguments.check_positive("explosion_factor", explosion_factor)
        )
        self.labels = arguments.check_choice("labels", labels, ("sampled", "expected", "given"))
        super().__init__(
            data, freq, num_examples, batch_size, likelihood, needs_labels=labels == "given"
        )
        self.seed = arguments.check_seed(seed)

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"first_epoch_end": self._first_epoch_end}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._first_epoch_end = state["first_epoch_end"]
        self._has_exploded = self._is_above_factor()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if epoch and self._first_epoch_end is None:
            self._first_epoch_end = 0

    def _make_meter(self, model: keras.Model) -> FisherTraceMeter:
        return FisherTraceMeter(
            model, labels=self.labels, likelihood=self.likelihood, seed=self.seed
        )

    def _end_epoch(self) -> None:
        if self._first_epoch_end is None:
            self._first_epoch_end = self._counter.taken

    def _look(self, logs: dict[str, Any] | None) -> None:
        super()._look(logs)
        self._warn_of_explosion(self.history[-1][0])

    def _list_later(self) -> list[float]:
        """Returns the values from the end of the first epoch on, without NaN."""
        first = math.inf if self._first_epoch_end is None else self._first_epoch_end
        later = (estimate.value for step, estimate in self.history if step >= first)
        return [value for value in later if not math.isnan(value)]

    @property
    def early(self) -> float:
        """The first value from the end of the first epoch on; NaN before."""
        return next(iter(self._list_later()), math.nan)

    @property
    def peak(self) -> float:
        """The largest value from the end of the first epoch on; NaN before."""
        return max(self._list_later(), default=math.nan)

    def _is_above_factor(self) -> bool:
        return self.explosion_factor is not None and (
            self.peak > self.explosion_factor * self.early > 0
        )

    def _warn_of_explosion(self, step: int) -> None:
        if self._has_exploded or not self._is_above_factor():
            return
        self._has_exploded = True
        warn(
            f"Tr(F) has exploded: {self.peak:.3g} at step {step}, {self.peak / self.early:.3g} "
            f"times its early value of {self.early:.3g}. The learning rate may be too small, "
            "or the batch too large. A FisherPenaltyModel with a larger alpha keeps Tr(F) small."
        )

    def _values(self) -> dict[str, float]:
        return super()._values() | {f"{self.key}_peak": self.peak}

    def _forget(self) -> None:
        super()._forget()
        self._first_epoch_end = None
        self._has_exploded = False
