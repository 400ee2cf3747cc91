"""Detects the first step at which training fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Replica, Tensor
from keras_fisher.likelihoods import probability_checks
from keras_fisher.training.state import PenaltyState
from keras_fisher.utils.messages import warn

# Relative differences between outputs below this may be due to rounding.
_SAME = 1e-5
_SAME_FOR = 10  # steps
_LOOKED_AT = 16  # outputs compared along each axis except that of examples
# A penalty whose gradient is this many times the loss's keeps an untrained model from learning.
# Later, as the loss vanishes, the ratio may be larger without harm (docs/results.md).
DOMINANT = 2.0
# A model has not learnt while its loss is at least this part of the first one.
UNTRAINED = 0.5
# The kinds of failure, from the least serious one; the last three are equally serious.
_RATIO, _OUTPUTS, _LOSS, _PENALTY, _GRADIENT = 1, 2, 3, 4, 5
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
_DOMINATES = (
    "At step {step} (counted from 0) the penalty dominates: for about ten computations its "
    "gradient times alpha has been {ratio:.2g} times as large as the gradient of the loss. "
    "Loss {loss:g}, alpha {alpha:g}, last penalty ||g||^2 {penalty:g}. An alpha of {balanced:.2g} "
    "would have made the two equal: use a smaller one, or set max_penalty_ratio=0.7. "
    "callbacks.PenaltyRatio logs the ratio."
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

    A step fails if its loss, its penalty or the penalty's gradient is NaN or infinite. With a
    penalty, a step also fails if outputs that differed before have become the same for all examples
    of several mini-batches, while the loss is still at least half of the first loss. Such a
    constant predictor results if a penalty that is far too large deactivates all units. Before
    that, and less seriously, the penalty's gradient is larger than that of the loss.

    The variables are not weights of the model, and are not saved.

    Attributes:
        skips: Whether non-finite steps leave weights, statistics and metrics unchanged.
        unverified: The name of a model whose outputs must lie in [0, 1] but may not; or `None`.
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
        # The first failed step: its kind of failure and step, and its loss, alpha, penalty
        # and ratio of gradients.
        self._event = _variable("event", (0, 0), backend.COUNTER_DTYPE)
        self._numbers = _variable("numbers", (0.0, 0.0, 0.0, 0.0))
        self._skipped = _variable("skipped", 0, backend.COUNTER_DTYPE)
        self._is_outside = _variable("is_outside", False, "bool")
        self._warned_of = 0

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables on the device."""
        return [v for v in vars(self).values() if isinstance(v, keras.Variable)]

    def reset(self) -> None:
        """Resets the record for a new training."""
        self._event.assign((0, 0))
        self._skipped.assign(0)
        self._same_for.assign(0)
        self._first_loss.assign(-1.0)
        self._has_differed.assign(False)
        self._is_gradient_finite.assign(True)
        self._is_outside.assign(False)
        self._warned_of = 0

    def observe(self, loss: Tensor, outputs: Tensor, replica: Replica) -> None:
        """Records a forward pass: its loss, summed over replicas, and whether outputs differ."""
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

    def check_gradients(self, gradients: Sequence[Tensor | None], state: PenaltyState) -> Tensor:
        """Returns whether loss, penalty and gradients are finite; records it for gradients."""
        is_finite = ops.isfinite(backend.squared_norm(gradients))
        self._is_gradient_finite.assign(is_finite)
        is_finite = ops.logical_and(is_finite, _is_penalty_finite(state))
        return ops.logical_and(is_finite, ops.isfinite(ops.convert_to_tensor(self._loss)))

    def record_step(self, state: PenaltyState, has_dynamic_scale: bool) -> Tensor:
        """Records the step if it is the first that failed; returns whether it is finite.

        Args:
            state: The state of the penalty.
            has_dynamic_scale: Whether a dynamic loss scale handles gradients that overflow.
        """
        checks = [(ops.isfinite(ops.convert_to_tensor(self._loss)), _LOSS)]
        if not has_dynamic_scale:
            checks.append((_is_penalty_finite(state), _PENALTY))
            if self.skips:
                checks.append((ops.convert_to_tensor(self._is_gradient_finite), _GRADIENT))
        ratio = state.balance.ratio(ops.convert_to_tensor(state.alpha))
        has_not_learnt = self._has_not_learnt()
        is_dominant = ops.logical_and(state.balance.is_reliable(), ratio > DOMINANT)
        kind = ops.where(ops.logical_and(is_dominant, has_not_learnt), _RATIO, 0)
        is_suspect = ops.logical_and(state.alpha > 0.0, has_not_learnt)
        kind = ops.where(self._has_been_constant(is_suspect), _OUTPUTS, kind)
        for is_fine, what in reversed(checks):
            kind = ops.where(is_fine, kind, what)
        is_finite = kind <= _OUTPUTS
        kind = ops.cast(kind, backend.COUNTER_DTYPE)
        is_first = ops.minimum(kind, _LOSS) > ops.minimum(self._event[0], _LOSS)
        event = ops.stack([kind, ops.copy(state.step)])
        numbers = ops.stack(
            [ops.cast(n, "float32") for n in (self._loss, state.alpha, state.metric.latest, ratio)]
        )
        self._event.assign(ops.where(is_first, event, ops.convert_to_tensor(self._event)))
        self._numbers.assign(ops.where(is_first, numbers, ops.convert_to_tensor(self._numbers)))
        if self.skips:
            self._skipped.assign_add(ops.where(is_finite, 0, 1))
        return is_finite

    def _has_not_learnt(self) -> Tensor:
        """Returns whether the loss is still at least half of the first loss."""
        loss, first = map(ops.convert_to_tensor, (self._loss, self._first_loss))
        first = ops.where(first < 0.0, loss, first)
        self._first_loss.assign(first)
        return loss >= UNTRAINED * first

    def _has_been_constant(self, is_suspect: Tensor) -> Tensor:
        """Counts suspect steps whose outputs no longer differ; returns whether they are many."""
        differ, has_differed, same = map(
            ops.convert_to_tensor, (self._differ, self._has_differed, self._same)
        )
        self._has_differed.assign(ops.logical_or(has_differed, differ))
        is_same = ops.logical_and(is_suspect, ops.logical_and(has_differed, same))
        self._same_for.assign(ops.where(is_same, self._same_for + 1, 0))
        return self._same_for >= _SAME_FOR

    def warn(self) -> None:
        """Warns once of the first failure, and of a more serious one after it.

        Also warns if outputs that must be probabilities are not.
        """
        if self.unverified is not None and ops.convert_to_numpy(self._is_outside):
            probability_checks.warn_of_values(self.unverified)
        if self._kind() == self._warned_of:
            return
        kind, step = ops.convert_to_numpy(self._event).tolist()
        self._warned_of = kind
        loss, alpha, penalty, ratio = ops.convert_to_numpy(self._numbers).tolist()
        numbers = {"step": step, "loss": loss, "alpha": alpha, "penalty": penalty}
        if kind == _RATIO:
            warn(_DOMINATES.format(**numbers, ratio=ratio, balanced=alpha / ratio))
        else:
            warn(_MESSAGE.format(**numbers, what=_WHAT[kind]) + _MORE.get(kind, ""))

    @property
    def is_finite(self) -> bool:
        """Whether all steps of this training were finite."""
        return self._kind() <= _OUTPUTS

    def _kind(self) -> int:
        return int(ops.convert_to_numpy(self._event)[0])

    @property
    def skipped(self) -> int:
        """The number of skipped steps of this training."""
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
    """Warns of a failed step at the end of its epoch."""

    def __init__(self, health: StepHealth) -> None:
        super().__init__()
        self._health = health

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._health.reset()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._health.warn()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._health.warn()


def _is_penalty_finite(state: PenaltyState) -> Tensor:
    """Whether the penalty's gradient is finite, or there is no penalty."""
    return ops.logical_or(state.alpha <= 0.0, state.is_finite())


def _variable(name: str, value: float | Sequence[float], dtype: str = "float32") -> keras.Variable:
    # All replicas have the same value.
    return keras.Variable(
        value, dtype=dtype, trainable=False, aggregation="only_first_replica", name=f"watch_{name}"
    )
