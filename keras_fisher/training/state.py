"""The state of penalised training besides weights and optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_fisher import backend
from keras_fisher.backend.private_api.keras import get_layout
from keras_fisher.backend.types import PenaltyGradients, Tensor
from keras_fisher.training.balance import PenaltyBalance
from keras_fisher.utils import arguments

_NEVER = -1


class PenaltyState:
    """Alpha, the step counter, the size of a full batch and the penalty's latest gradient.

    `balance` relates the size of this gradient to that of the loss.

    The gradient (without alpha, section 2) is recomputed at steps 0, `update_freq`,
    2 `update_freq`, …. If the latest of these was missed, because alpha was 0 or the gradient was
    not finite, it is recomputed at the next step.

    The variables are not weights of the model: its weight lists and counts exclude them.
    """

    def __init__(self, update_freq: int, max_ratio: float | None = None) -> None:
        self.update_freq = update_freq
        self.balance = PenaltyBalance(max_ratio)
        self.schedule: LearningRateSchedule | None = None
        self._number = 0.0  # alpha without a schedule
        self.metric = LatestValue("penalty")
        self.alpha = keras.Variable(0.0, dtype="float32", trainable=False, name="alpha")
        self.step = _counter("step", 0)
        self.computed_at = _counter("computed_at", _NEVER)
        self.full_size = _counter("full_size", 0)
        self.penalty_gradient_norm = keras.Variable(
            0.0, dtype="float32", trainable=False, name="norm"
        )
        self.gradients: list[keras.Variable] = []
        self._weights: list[keras.Variable] = []

    def set_alpha(self, value: float | LearningRateSchedule) -> bool:
        """Sets alpha to a number or a schedule; returns whether to trace the step again."""
        had_schedule = self.schedule is not None
        if isinstance(value, LearningRateSchedule):
            self.schedule = value
        else:
            accepted = "at least 0 and finite, or a LearningRateSchedule"
            self._number = arguments.check_non_negative("alpha", value, accepted)
            self.alpha.assign(self._number)
            self.schedule = None
        return had_schedule or self.schedule is not None

    @property
    def is_off(self) -> bool:
        """Whether alpha stays 0 until it is set again; does not wait for the device."""
        return self.schedule is None and self._number == 0.0

    def read_alpha(self) -> Tensor:
        """Returns the alpha of the next step, a scalar."""
        if self.schedule is None:
            return self.alpha
        return ops.maximum(self.schedule(ops.convert_to_tensor(self.step)), 0.0)

    def follow_schedule(self) -> None:
        """Sets alpha from the schedule, if there is one."""
        if self.schedule is not None:
            self.alpha.assign(self.read_alpha())

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables except the metric's, which Keras tracks."""
        numbers = [
            self.alpha,
            self.step,
            self.computed_at,
            self.full_size,
            self.penalty_gradient_norm,
        ]
        return [*numbers, *self.balance.variables.values(), *self.gradients]

    def allocate(self, weights: Sequence[keras.Variable]) -> None:
        """Allocates a kept gradient for each weight, sharded as it is, unless it exists already."""
        if [id(weight) for weight in weights] == [id(weight) for weight in self._weights]:
            return
        self._weights = list(weights)
        self.gradients = [
            keras.Variable(
                "zeros",
                w.shape,
                _dtype(w),
                trainable=False,
                name=f"kept_gradient_{i}",
                layout=get_layout(w),
            )
            for i, w in enumerate(weights)
        ]
        self.computed_at.assign(_NEVER)

    def see_batch(self, examples: Tensor) -> None:
        """Updates the size of a full batch, which is the largest size so far."""
        full = ops.convert_to_tensor(self.full_size)
        self.full_size.assign(ops.maximum(full, ops.cast(examples, full.dtype)))

    def is_due(self) -> Tensor:
        """Returns whether the latest scheduled computation is still missing, a boolean scalar."""
        step = ops.convert_to_tensor(self.step)
        return ops.less(self.computed_at, step - step % self.update_freq)

    def is_finite(self) -> Tensor:
        """Returns whether there is a finite kept gradient, a boolean scalar."""
        return ops.greater(self.computed_at, _NEVER)

    def keep(self, penalty: PenaltyGradients) -> None:
        """Keeps a new gradient and norm; counts the gradient as computed only if it is finite."""
        gradients = penalty.of_penalty
        for kept, gradient in zip(self.gradients, gradients, strict=True):
            kept.assign(gradient)
        # A single pass over the gradients. It also rejects sums of squares that overflow.
        norm = ops.sqrt(backend.squared_norm(gradients))
        self.penalty_gradient_norm.assign(norm)
        step = ops.convert_to_tensor(self.step)
        self.computed_at.assign(ops.where(ops.isfinite(norm), step, _NEVER))
        self.metric.update_state(penalty.squared_norm)

    def forget(self) -> None:
        """Makes the next step recompute the gradient."""
        self.computed_at.assign(_NEVER)

    def restart(self) -> None:
        """Discards what was computed with other weights or another loss."""
        self.forget()
        self.balance.restart()

    def count_step(self) -> None:
        """Counts one training step."""
        self.step.assign_add(1)

    def save(self, store: Any, all_weights: Sequence[keras.Variable]) -> None:
        """Writes the state, and the positions of its weights in the model, into a Keras store."""
        store["weights"] = _positions(self._weights, all_weights)
        for name in ("alpha", "step", "computed_at", "full_size"):
            store[name] = ops.convert_to_numpy(getattr(self, name))
        for name, variable in self.balance.variables.items():
            store[f"balance_{name}"] = ops.convert_to_numpy(variable)
        store["penalty"] = ops.convert_to_numpy(self.metric.latest)
        for index, gradient in enumerate(self.gradients):
            store[f"gradient_{index}"] = ops.convert_to_numpy(gradient)

    def load(
        self, store: Any, weights: Sequence[keras.Variable], all_weights: Sequence[keras.Variable]
    ) -> None:
        """Restores the state, except a kept gradient of other weights than `weights`."""
        self.allocate(weights)
        self.metric.update_state(store["penalty"][()])
        for name in ("alpha", "step", "computed_at"):
            getattr(self, name).assign(store[name][()])
        self._number = float(store["alpha"][()])
        # Files of version 0.1.0 have neither of these.
        later = {"full_size": self.full_size}
        later |= {f"balance_{name}": v for name, v in self.balance.variables.items()}
        for name, variable in later.items():
            if name in store.keys():  # noqa: SIM118
                variable.assign(store[name][()])
        is_of_these = np.array_equal(store["weights"][()], _positions(weights, all_weights))
        saved = [store[f"gradient_{i}"] for i in range(len(weights))] if is_of_these else []
        if [tuple(g.shape) for g in saved] != [tuple(g.shape) for g in self.gradients]:
            self.forget()
            return
        for gradient, value in zip(self.gradients, saved, strict=True):
            gradient.assign(value)


class LatestValue(keras.metrics.Metric):
    """Reports the latest value; a new epoch does not reset it."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        # All replicas have the same value.
        self.latest = self.add_variable(
            (), "zeros", "float32", aggregation="only_first_replica", name="latest"
        )

    def update_state(self, value: Tensor) -> None:
        """Stores `value`."""
        self.latest.assign(value)

    def result(self) -> Tensor:
        """Returns the latest value."""
        return keras.ops.convert_to_tensor(self.latest)

    def reset_state(self) -> None:
        """Does nothing: the latest value stays valid until it is recomputed."""


def _positions(
    weights: Sequence[keras.Variable], all_weights: Sequence[keras.Variable]
) -> np.ndarray:
    position = {id(weight): index for index, weight in enumerate(all_weights)}
    return np.array([position[id(weight)] for weight in weights], "int64")


def _counter(name: str, value: int) -> keras.Variable:
    return keras.Variable(value, dtype=backend.COUNTER_DTYPE, trainable=False, name=name)


def _dtype(variable: keras.Variable) -> str:
    return keras.backend.result_type(variable.dtype, "float32")
