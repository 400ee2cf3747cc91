"""The gradient of a squared gradient norm: exact, by a finite difference, or in parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import keras

from keras_fisher.backend import finite_difference
from keras_fisher.backend.jax.autodiff import promote, squared_norm
from keras_fisher.backend.jax.stateless import Pure, cond
from keras_fisher.backend.microbatches import Terms
from keras_fisher.backend.types import Nll, NllAt, Objective, PenaltyGradients, Replica, Tensor


def differentiate_penalty(
    objective: Objective,
    weights: Sequence[Tensor],
    inputs: Sequence[Tensor] | None = None,
    scale: Tensor | None = None,
    replica: Replica | None = None,
) -> PenaltyGradients:
    """Differentiates the squared norm of g = d nll / d v by backpropagating twice.

    `replica` is ignored: a step is written for the whole batch.
    """
    evaluation = _Evaluation(objective, weights, inputs)

    def scaled_norm(
        at: Sequence[Tensor],
    ) -> tuple[Tensor, tuple[Tensor, list[Tensor] | None, list[Tensor]]]:
        first = evaluation.differentiate(at, scale)
        norm = squared_norm(first.by_inputs if inputs else first.by_weights)
        return _scale_by(norm, scale), (norm, first.differentiate_loss(), first.assigned)

    penalty, (norm, of_loss, assigned) = jax.grad(scaled_norm, has_aux=True)(evaluation.values)
    evaluation.pure.assign_state(assigned)
    return PenaltyGradients(of_loss, _unscale(penalty, scale), norm)


def differentiate_penalty_by_difference(
    objective: Objective,
    shifted_nll: NllAt,
    weights: Sequence[Tensor],
    inputs: Sequence[Tensor] | None = None,
    scale: Tensor | None = None,
    precision: str = "float32",
    replica: Replica | None = None,
) -> PenaltyGradients:
    """Differentiates the squared norm of g = d nll / d v from two first-order gradients.

    `replica` is ignored: a step is written for the whole batch.
    """
    evaluation = _Evaluation(objective, weights, inputs)
    first = evaluation.differentiate(evaluation.values, scale)
    evaluation.pure.assign_state(first.assigned)
    here = first.by_weights
    point, g = (inputs, first.by_inputs) if inputs else (evaluation.values, here)
    norm = squared_norm(g)
    step = finite_difference.step_length(squared_norm(point), norm, precision)

    def gradient_at(distance: Tensor) -> list[Tensor]:
        shifted = finite_difference.shift(point, g, distance)
        at, at_inputs = (evaluation.values, shifted) if inputs else (shifted, [])
        return differentiate(lambda values: shifted_nll(values, at_inputs), at, scale)

    is_on_kink = finite_difference.may_be_on_kink(point, g)
    penalty = finite_difference.compute_slope(here, gradient_at, step, is_on_kink, cond)
    return PenaltyGradients(first.differentiate_loss(), penalty, norm)


def differentiate(nll: Nll, at: Sequence[Tensor], scale: Tensor | None = None) -> list[Tensor]:
    """Returns d nll / d at, at least float32."""
    return _unscale(jax.grad(lambda values: _scale_by(nll(values), scale))(list(at)), scale)


def differentiate_along(
    nll: Nll, at: Sequence[Tensor], direction: Sequence[Tensor], scale: Tensor | None = None
) -> list[Tensor]:
    """Returns d <2 d nll / d at, direction> / d at, by backpropagating twice."""

    def slope(values: Sequence[Tensor]) -> Tensor:
        pairs = zip(differentiate(nll, values, scale), direction, strict=True)
        return _scale_by(2.0 * sum(jnp.vdot(a, b) for a, b in pairs), scale)

    return _unscale(jax.grad(slope)(list(at)), scale)


def sum_over_parts(
    terms: Terms, count: Tensor, at: Sequence[Tensor], zeros: list[Tensor]
) -> list[Tensor]:
    """Adds up lists of tensors over indices, in a loop that frees the memory of each term."""

    def add(index: Tensor, sums: list[Tensor]) -> list[Tensor]:
        return [a + b for a, b in zip(sums, terms(index, list(at)), strict=True)]

    # The step is not compiled: some layers, such as RandomCrop, cannot be compiled.
    if not any(isinstance(tensor, jax.core.Tracer) for tensor in [count, *at]):
        return functools.reduce(lambda sums, index: add(index, sums), range(count), zeros)
    return jax.lax.fori_loop(0, count, add, zeros)


class _First:
    """The first-order derivatives of an evaluation.

    Attributes:
        by_weights: d nll / d weights, at least float32.
        by_inputs: d nll / d inputs.
        assigned: The values assigned to variables.
    """

    def __init__(
        self,
        outcome: tuple[Tensor | None, Tensor],
        pull: Callable[..., tuple[list[Tensor], list[Tensor]]],
        assigned: list[Tensor],
        scale: Tensor | None,
    ) -> None:
        self.assigned = assigned
        self._loss, self._pull = outcome[0], pull
        nll = outcome[1]
        self._none = jnp.zeros_like(nll)
        zero = None if self._loss is None else jnp.zeros_like(self._loss)
        gradients = pull((zero, _scale_by(jnp.ones_like(nll), scale)))
        self.by_weights, self.by_inputs = (_unscale(some, scale) for some in gradients)

    def differentiate_loss(self) -> list[Tensor] | None:
        """Returns d loss / d weights, if there is a loss."""
        if self._loss is None:
            return None
        return self._pull((jnp.ones_like(self._loss), self._none))[0]


class _Evaluation:
    """An objective at the values of weights and inputs.

    Args:
        objective: As in `differentiate_penalty`.
        weights: Variables, which the objective reads, or tensors, which are passed to it.
        inputs: Tensors, which are passed to the objective.
    """

    def __init__(
        self, objective: Objective, weights: Sequence[Tensor], inputs: Sequence[Tensor] | None
    ) -> None:
        self.inputs = list(inputs or [])
        self.are_variables = isinstance(weights[0], keras.Variable)
        self.values = [w.value for w in weights] if self.are_variables else list(weights)
        self.pure = Pure(objective, weights if self.are_variables else [])

    def differentiate(self, at: Sequence[Tensor], scale: Tensor | None) -> _First:
        """Returns the derivatives at other values of the weights."""

        def evaluate(
            values: Sequence[Tensor], inputs: Sequence[Tensor]
        ) -> tuple[tuple[Tensor | None, Tensor], list[Tensor]]:
            return self.pure(values if self.are_variables else [], values, inputs)

        outcome, pull, assigned = jax.vjp(evaluate, list(at), self.inputs, has_aux=True)
        return _First(outcome, pull, assigned, scale)


def _scale_by(scalar: Tensor, scale: Tensor | None) -> Tensor:
    """Multiplies a scalar by a loss scale, which may be `None` for 1."""
    return scalar if scale is None else scalar * scale.astype(scalar.dtype)


def _unscale(tensors: Sequence[Tensor], scale: Tensor | None) -> list[Tensor]:
    """Divides tensors by a loss scale; the results are at least float32."""
    wide = [promote(tensor) for tensor in tensors]
    return wide if scale is None else [t / scale.astype(t.dtype) for t in wide]
