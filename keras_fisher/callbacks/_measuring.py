"""Callbacks that measure the model at the end of epochs, or every so many training steps."""

from __future__ import annotations

import abc
import random
from typing import Any

import keras

from keras_fisher.callbacks._checks import (
    Frequency,
    check_freq,
    check_likelihood,
    check_rereadable,
)
from keras_fisher.callbacks._log_writer import LogWriter
from keras_fisher.callbacks._steps import StepCounter
from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces import Estimate, check_data


class Measuring(LogWriter, abc.ABC):
    """A callback that looks at the model in training, every `freq`.

    Every so many steps it looks where the next batch begins, or the epoch ends. So the end of an
    epoch is known to be one; and Keras, where its backend allows, may call the end of a batch from
    another thread while training goes on, but never these.

    What it remembers is of one training. A fit whose optimizer has taken no step yet is a new one,
    unless `set_state` was called before it.
    """

    def __init__(
        self,
        data: Any,
        freq: Frequency,
        num_examples: int | None,
        batch_size: int,
        likelihood: Likelihood | None,
        *,
        needs_labels: bool,
    ) -> None:
        super().__init__()
        check_data(data, num_examples, batch_size, needs_labels)
        check_rereadable(data)
        self.freq = check_freq(freq)
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.likelihood = check_likelihood(likelihood)
        self._data = data
        self._meter: Any = None
        self._counter: Any = None
        self._epochs = 0
        self._is_restored = False
        self._random_state: list[int] | None = None
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_meter": None, "_counter": None}

    @abc.abstractmethod
    def _make_meter(self, model: keras.Model) -> Any:
        """Returns what measures the model."""

    @abc.abstractmethod
    def _look(self, logs: dict[str, Any] | None) -> None:
        """Does what is due; `logs` are those of the epoch at its end, and `None` within it."""

    @abc.abstractmethod
    def _values(self) -> dict[str, float]:
        """Returns what goes into the logs of the epoch."""

    @abc.abstractmethod
    def _forget(self) -> None:
        """Starts with nothing remembered."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        # A meter with no seed draws one from Python's generator, and so may the training data.
        state = random.getstate()
        self._meter = self._make_meter(self.model)
        random.setstate(state)
        self._counter = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epochs = epoch
        if self._counter is None:  # No earlier: BackupAndRestore acts when training begins.
            self._counter = StepCounter(self.model, self.freq, (self.params or {}).get("steps"))
            if not (self._counter.taken or self._is_restored):
                self._forget()
                self._random_state = None
            if self._random_state is not None:
                self._meter.random_state = self._random_state
            self._is_restored = False
        self._counter.begin_epoch()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._counter.begin_batch(batch):
            self._look(None)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._counter.end_batch(batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        logs = {} if logs is None else logs
        self._epochs = epoch + 1
        if self._counter.end_epoch():
            self._look(logs)
        logs.update(self._values())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        self._random_state = self._meter.random_state
        self._meter = None

    def _measure(self) -> tuple[int, Estimate]:
        """Returns the step and the measurement."""
        step = self._counter.taken
        estimate = self._meter(
            self._data, num_examples=self.num_examples, batch_size=self.batch_size
        )
        self._warn_of_nan(estimate.value, f"at step {step} (after {self._epochs} epochs)")
        return step, estimate
