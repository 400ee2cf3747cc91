"""Base classes of callbacks that measure during training and write into `logs`."""

from __future__ import annotations

import abc
import math
import weakref
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import keras

from keras_fisher.backend.private_api.keras import record_summaries
from keras_fisher.callbacks._log_writer import LogWriter
from keras_fisher.callbacks._step_counter import (
    Frequency,
    StepCounter,
    check_freq,
    count_steps_taken,
)
from keras_fisher.likelihoods import Likelihood
from keras_fisher.likelihoods.likelihood import check_likelihood
from keras_fisher.traces import Estimate, HessianEigenvaluesMeter, check_data
from keras_fisher.traces.data import check_rereadable
from keras_fisher.traces.meter import Meter
from keras_fisher.utils.host_generators import preserve_host_generators


class MeasuringCallback(LogWriter):
    """A callback that measures the model during training, at intervals of `freq`.

    It measures in `on_train_batch_begin` and `on_epoch_end`, because it is then known whether the
    epoch has ended, and because some backends let Keras call `on_train_batch_end` from another
    thread.

    It keeps the measurements of one training. A fit starts a new training if it has another model
    than the last one, or if its optimizer has taken no step yet, unless `set_state` was called
    before.
    """

    _settings: ClassVar[tuple[str, ...]] = ("num_examples",)
    """The attributes that measurements depend on."""

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
        if self.freq != "epoch" and getattr(data, "persistent_workers", False):
            raise ValueError(
                "`data` must be read without persistent workers if `freq` is a number of steps: "
                "such a DataLoader has one iterator, which a measurement would take from training. "
                f"Received: freq={freq} and persistent_workers=True"
            )
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.likelihood = check_likelihood(likelihood)
        self._data = data
        self._meter: Any = None
        self._measured_model: _ModelReference | None = None
        self._counter: Any = None
        self._excess = 0
        self._epochs = 0
        self._is_restored = False
        self._random_state: list[int] | None = None
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_meter": None, "_counter": None}

    def get_state(self) -> dict[str, Any]:
        """Returns the state of the callback, in JSON-compatible values."""
        return {"settings": self._describe_settings(), "excess": self._excess}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state from `get_state`; the next fit resumes from it.

        Raises:
            ValueError: if the state is that of a callback that measures something else.
        """
        own, given = self._describe_settings(), state.get("settings")
        if given is not None and given != own:
            differing = {k: v for k, v in given.items() if k not in own or own[k] != v}
            raise ValueError(
                f"`state` must be that of a callback with the settings {own}. "
                f"Received: a state with {differing}"
            )
        self._excess = state.get("excess", 0)
        self._is_restored = True

    def _describe_settings(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in self._settings}
        return {"class_name": type(self).__name__, **settings}

    @abc.abstractmethod
    def _make_meter(self, model: keras.Model) -> Meter | HessianEigenvaluesMeter:
        """Returns the meter of the model."""

    @abc.abstractmethod
    def _look(self, logs: dict[str, Any] | None) -> None:
        """Measures; `logs` are the logs of the epoch at its end, and `None` before."""

    @abc.abstractmethod
    def _values(self) -> dict[str, float]:
        """Returns the values for the logs of the epoch."""

    @abc.abstractmethod
    def _forget(self) -> None:
        """Discards all measurements."""

    @abc.abstractmethod
    def _forget_after(self, step: int) -> None:
        """Discards what was measured later: this state may be newer than a restored model."""

    def _list_keys(self) -> Collection[str]:
        return self._values().keys()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        last = self._measured_model
        if last is not None and last.find() is not self.model and not self._is_restored:
            self._start_anew()
        self._measured_model = _ModelReference(self.model)
        with preserve_host_generators():  # A meter without a seed draws one.
            self._meter = self._make_meter(self.model)
            self._meter.check_labels(self._data)
        self._counter = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epochs = epoch
        if self._counter is None:  # Not earlier: BackupAndRestore acts when training begins.
            steps = (self.params or {}).get("steps")
            if not count_steps_taken(self.model):
                self._excess = 0  # a new optimizer
            self._counter = StepCounter(self.model, self.freq, steps, self._excess)
            if not (self._counter.taken or self._is_restored):
                self._start_anew()
            if self._counter.taken:
                self._forget_after(self._counter.taken)
            if self._random_state is not None:
                self._meter.random_state = self._random_state
            self._is_restored = False
        self._counter.begin_epoch()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._counter.begin_batch(batch):
            with preserve_host_generators(self._data):
                self._look(None)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._counter.end_batch(batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        logs = {} if logs is None else logs
        self._epochs = epoch + 1
        is_due = self._counter.end_epoch()
        self._excess = count_steps_taken(self.model) - self._counter.taken
        self._end_epoch()
        if is_due:
            with preserve_host_generators(self._data):
                self._look(logs)
        logs.update(self._values())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        self._random_state = self._meter.random_state
        self._meter = None
        if self._counter is not None:
            self._excess = count_steps_taken(self.model) - self._counter.taken

    def _end_epoch(self) -> None:
        """Is called before the measurement after an epoch."""

    def _start_anew(self) -> None:
        self._forget()
        self._random_state = None
        self._excess = 0

    def _measure(self) -> tuple[int, Any]:
        """Returns the step and the measurement."""
        step = self._counter.taken
        measured = self._meter(
            self._data, num_examples=self.num_examples, batch_size=self.batch_size
        )
        self._warn_of_nan(measured.value, f"at step {step} (after {self._epochs} epochs)")
        return step, measured


class HistoryCallback(MeasuringCallback, abc.ABC):
    """Records measurements in `logs`, in `history` and, by steps, in TensorBoard.

    Attributes:
        history: All measurements of this training, a list of `(step, measured)`.
    """

    history: list[tuple[int, Any]]

    @property
    @abc.abstractmethod
    def _keys(self) -> Sequence[str]:
        """The names in `logs` and in TensorBoard."""

    @abc.abstractmethod
    def _numbers(self, measured: Any) -> Sequence[float]:
        """Returns the number for each key."""

    @abc.abstractmethod
    def _to_json(self, step: int, measured: Any) -> list[Any]:
        """Returns a measurement in JSON-compatible values."""

    @abc.abstractmethod
    def _from_json(self, values: list[Any]) -> tuple[int, Any]:
        """Returns the step and the measurement from the result of `_to_json`."""

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"history": list(self.history)}

    def get_state(self) -> dict[str, Any]:
        """Returns the state of the callback, in JSON-compatible values."""
        drawn = self._random_state if self._meter is None else self._meter.random_state
        history = [self._to_json(*measured) for measured in self.history]
        return super().get_state() | {"history": history, "random_state": drawn}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.history = [self._from_json(measured) for measured in state["history"]]
        self._random_state = state["random_state"]

    def _look(self, logs: dict[str, Any] | None) -> None:
        self.history.append(self._measure())
        if self.freq != "epoch":
            self._write_summaries(*self.history[-1])

    def _values(self) -> dict[str, float]:
        if not self.history:
            return dict.fromkeys(self._keys, math.nan)
        return dict(zip(self._keys, self._numbers(self.history[-1][1]), strict=True))

    def _forget(self) -> None:
        self.history = []

    def _forget_after(self, step: int) -> None:
        self.history = [measured for measured in self.history if measured[0] <= step]

    def _write_summaries(self, step: int, measured: Any) -> None:
        for board in self._boards:
            with record_summaries(board) as summary:
                for key, number in zip(self._keys, self._numbers(measured), strict=True):
                    summary.scalar(key, number, step=step)


class CurveCallback(HistoryCallback, abc.ABC):
    """Records one quantity.

    Attributes:
        key: The name of the quantity in `logs` and in TensorBoard.
        history: All measurements of this training, a list of `(step, Estimate)`.
    """

    key: str
    history: list[tuple[int, Estimate]]

    @property
    def _keys(self) -> Sequence[str]:
        return (self.key,)

    def _numbers(self, measured: Estimate) -> Sequence[float]:
        return (measured.value,)

    def _to_json(self, step: int, measured: Estimate) -> list[float | str]:
        return to_json(step, measured)

    def _from_json(self, values: list[float | str]) -> tuple[int, Estimate]:
        return from_json(values)


class _ModelReference:
    """A weak reference to a model; a pickled one refers to none."""

    def __init__(self, model: keras.Model | None) -> None:
        self._reference = None if model is None else weakref.ref(model)

    def find(self) -> keras.Model | None:
        """Returns the model, if it still exists."""
        return None if self._reference is None else self._reference()

    def __reduce__(self) -> tuple[Any, ...]:
        return _ModelReference, (None,)


def number_to_json(number: float) -> float | str:
    """Returns the number, or its name ("nan", "inf") if JSON cannot represent it."""
    return number if math.isfinite(number) else str(number)


def to_json(step: int, estimate: Estimate) -> list[float | str]:
    """Returns `[step, value, stderr, count]`."""
    return [number_to_json(number) for number in (step, *estimate)]


def from_json(numbers: Sequence[float | str]) -> tuple[int, Estimate]:
    """Returns the step and the estimate from the result of `to_json`."""
    step, value, stderr, count = map(float, numbers)
    return int(step), Estimate(value, stderr, int(count))
