"""Detects the first step at which training fails."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Replica, Tensor
from keras_fisher.training.state import PenaltyState
from keras_fisher.utils import probability_checks
from keras_fisher.utils.messages import warn

# Outputs differ by less, of their size, where nothing but rounding tells examples apart.
_SAME = 1e-5
_SAME_FOR = 10  # steps
_LOOKED_AT = 16  # along each axis of the outputs but that of examples
# What can go wrong, by the number that stands for it.
_LOSS, _PENALTY, _GRADIENT, _OUTPUTS = 1, 2, 3, 4
_WHAT = {
    _LOSS: "the loss became NaN or infinite",
    _PENALTY: "the penalty or its gradient became NaN or infinite",
    _GRADIENT: "the gradient became NaN or infinite",
    _OUTPUTS: f"the model's outputs had been the same for all examples of {_SAME_FOR} mini-batches",
}
_MESSAGE = (
    "At step {step} (counted from 0) {what}. Loss {loss:g}, alpha {alpha:g}, penalty ||g||^2 "
    "{penalty:g}. An alpha or a learning rate far too large does this, or data that are not finite."
)
_MORE = {
    _OUTPUTS: (
        " A gradient of the penalty that is kept for many steps may do it at a smaller alpha: try "
        "update_freq=1 or a share of the batch, penalty_batch_size=1/32."
    ),
    _PENALTY: (
        " Under gradient='exact' an operation whose second derivative is NaN does it too (on JAX, "
        "UnitNormalization of a row of zeros); gradient='finite_difference' takes none."
    ),
}


class StepHealth:
    """Records, on the device, the first step that failed.

    A step fails where its loss, or the penalty or its gradient, is NaN or infinite. And under
    a penalty, where outputs that differed before are the same for all examples of several
    mini-batches while the loss is no better than half of the first: such a constant predictor is
    left where a penalty far too large has thrown the weights where no unit is active.

    The variables are no weights of the model, and are not saved.

    Attributes:
        skips: Whether steps that are not finite leave weights, statistics and metrics as they were.
        unverified: The name of a model whose outputs must lie in [0, 1] and may not; or `None`.
    """

    def __init__(self) -> None:
        self.skips = False
        self.unverified: str | None = None
        self._loss, self._first_loss = _variable("loss", 0.0), _variable("first_loss", -1.0)
        self._differ, self._same, self._has_differed, self._is_gradient_finite = (
            _variable(name, value, "bool")
            for name, value in (
                ("differ", False),
                ("same", False),
                ("has_differed", False),
                ("finite", True),
            )
        )
        self._same_for = _variable("same_for", 0, backend.COUNTER_DTYPE)
        # Of the first step that went wrong: what and when; and loss, alpha and penalty.
        self._event = _variable("event", (0, 0), backend.COUNTER_DTYPE)
        self._numbers = _variable("numbers", (0.0, 0.0, 0.0))
        self._skipped = _variable("skipped", 0, backend.COUNTER_DTYPE)
        self._is_outside = _variable("is_outside", False, "bool")
        self._warned_of = 0

    @property
    def variables(self) -> list[keras.Variable]:
        """All that it remembers on the device."""
        return [v for v in vars(self).values() if isinstance(v, keras.Variable)]

    def reset(self) -> None:
        """Begins a training."""
        self._event.assign((0, 0))
        self._skipped.assign(0)
        self._same_for.assign(0)
        self._first_loss.assign(-1.0)
        self._has_differed.assign(False)
        self._is_gradient_finite.assign(True)
        self._is_outside.assign(False)
        self._warned_of = 0

    def observe(self, loss: Tensor, outputs: Tensor, replica: Replica) -> None:
        """Records the loss of a forward pass, summed over replicas, and how its outputs differ."""
        outputs = ops.stop_gradient(ops.cast(outputs, "float32"))
        outputs = outputs[(slice(None), *[slice(_LOOKED_AT)] * (len(outputs.shape) - 1))]
        if self.unverified is not None:
            outside = probability_checks.find_outside(outputs)
            self._is_outside.assign(ops.logical_or(self._is_outside, outside))
        spread = ops.max(ops.absolute(outputs - outputs[:1]), initial=0.0)
        size = ops.max(ops.absolute(outputs), initial=0.0)
        several = ops.shape(outputs)[0] > 1
        differ = ops.logical_and(spread > _SAME * size, several)
        same = ops.logical_and(spread <= _SAME * size, several)
        votes = [ops.cast(vote, "float32") for vote in (differ, same)]
        loss, *votes = replica.sum([ops.stop_gradient(ops.cast(loss, "float32")), *votes])
        differ, same = votes[0] > 0.0, ops.logical_and(votes[0] <= 0.0, votes[1] > 0.0)
        self._loss.assign(loss)
        self._differ.assign(differ)
        self._same.assign(same)

    def check_gradients(self, gradients: Any, state: PenaltyState) -> Any:
        """Returns whether loss, penalty and gradients are finite, and records it."""
        is_finite = ops.isfinite(backend.squared_norm(gradients))
        self._is_gradient_finite.assign(is_finite)
        is_finite = ops.logical_and(is_finite, _is_penalty_finite(state))
        return ops.logical_and(is_finite, ops.isfinite(ops.convert_to_tensor(self._loss)))

    def record_step(self, state: PenaltyState, has_dynamic_scale: bool) -> Any:
        """Records the step if it is the first that failed; returns whether it is finite.

        Args:
            state: That of the step.
            has_dynamic_scale: Whether a loss scale deals with gradients that are too large for it.
        """
        checks = [(ops.isfinite(ops.convert_to_tensor(self._loss)), _LOSS)]
        if not has_dynamic_scale:
            checks.append((_is_penalty_finite(state), _PENALTY))
            if self.skips:
                checks.append((ops.convert_to_tensor(self._is_gradient_finite), _GRADIENT))
        kind = ops.where(self._is_constant(state), _OUTPUTS, 0)
        for is_fine, what in reversed(checks):
            kind = ops.where(is_fine, kind, what)
        is_finite = ops.logical_or(kind <= 0, ops.equal(kind, _OUTPUTS))
        known = self._event[0]
        is_worse = ops.logical_and(ops.equal(known, _OUTPUTS), ops.logical_not(is_finite))
        is_first = ops.logical_or(ops.logical_and(kind > 0, known <= 0), is_worse)
        event = ops.stack([ops.cast(kind, backend.COUNTER_DTYPE), ops.copy(state.step)])
        numbers = ops.stack(
            [ops.cast(n, "float32") for n in (self._loss, state.alpha, state.metric.latest)]
        )
        self._event.assign(ops.where(is_first, event, ops.convert_to_tensor(self._event)))
        self._numbers.assign(ops.where(is_first, numbers, ops.convert_to_tensor(self._numbers)))
        if self.skips:
            self._skipped.assign_add(ops.where(is_finite, 0, 1))
        return is_finite

    def _is_constant(self, state: PenaltyState) -> Any:
        """Whether the penalty has left a constant predictor."""
        loss, first_loss, differ, has_differed, same = map(
            ops.convert_to_tensor,
            (self._loss, self._first_loss, self._differ, self._has_differed, self._same),
        )
        self._has_differed.assign(ops.logical_or(has_differed, differ))
        first_loss = ops.where(first_loss < 0.0, loss, first_loss)
        self._first_loss.assign(first_loss)
        suspect = ops.logical_and(ops.logical_and(has_differed, same), state.alpha > 0.0)
        suspect = ops.logical_and(suspect, loss >= first_loss / 2.0)
        self._same_for.assign(ops.where(suspect, self._same_for + 1, 0))
        return self._same_for >= _SAME_FOR

    def warn(self) -> None:
        """Warns once of what went wrong first, and of what is not finite after constant outputs.

        And of outputs that are no probabilities, as they must be.
        """
        if self.unverified is not None and ops.convert_to_numpy(self._is_outside):
            probability_checks.warn_of_values(self.unverified)
        if self._kind() == self._warned_of:
            return
        kind, step = ops.convert_to_numpy(self._event).tolist()
        self._warned_of = kind
        loss, alpha, penalty = ops.convert_to_numpy(self._numbers).tolist()
        what = _WHAT[kind]
        message = _MESSAGE.format(step=step, what=what, loss=loss, alpha=alpha, penalty=penalty)
        warn(message + _MORE.get(kind, ""))

    @property
    def is_finite(self) -> bool:
        """Whether no step of this training had a number that was NaN or infinite."""
        return self._kind() in (0, _OUTPUTS)

    def _kind(self) -> int:
        return int(ops.convert_to_numpy(self._event)[0])

    @property
    def skipped(self) -> int:
        """How many steps of this training were skipped."""
        return int(ops.convert_to_numpy(self._skipped))


def add_health_warning(callbacks: Any, health: StepHealth) -> Any:
    """Adds the warning callback to `callbacks`, in any form that Keras takes."""
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return (
            [HealthWarning(health), *keras.tree.flatten(callbacks)]
            if callbacks
            else [HealthWarning(health)]
        )
    others = [
        callback for callback in callbacks.callbacks if not isinstance(callback, HealthWarning)
    ]
    callbacks.callbacks = [*others, HealthWarning(health)]
    return callbacks


class HealthWarning(keras.callbacks.Callback):
    """Warns, by the end of its epoch, of a step that went wrong."""

    def __init__(self, health: StepHealth) -> None:
        super().__init__()
        self._health = health

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._health.reset()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._health.warn()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._health.warn()


def _is_penalty_finite(state: PenaltyState) -> Any:
    """Whether there is no penalty, or one whose gradient is finite."""
    return ops.logical_or(state.alpha <= 0.0, state.is_finite())


def _variable(name: str, value: Tensor, dtype: str = "float32") -> keras.Variable:
    # Replicas all have the same.
    return keras.Variable(
        value, dtype=dtype, trainable=False, aggregation="only_first_replica", name=f"watch_{name}"
    )
