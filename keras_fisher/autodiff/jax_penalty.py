"""The gradient of a squared gradient norm: exactly, by a difference, or part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from keras_fisher.autodiff.jax import promoted, squared_norm
from keras_fisher.autodiff.jax_pure import Pure
from keras_fisher.autodiff.results import SHIFT, Part, PenaltyGradients

Objective = Callable[[Sequence[Any], Sequence[Any]], tuple[Any, Any]]


def penalty_gradients(
    objective: Objective,
    weights: Sequence[Any],
    inputs: Sequence[Any] | None = None,
    scale: Any = None,
    replica: Any = None,
) -> PenaltyGradients:
    """Differentiates the squared norm of g = d nll / d v by backpropagating twice.

    Args:
        objective: Evaluates the model once at weights and inputs, and returns `(loss, nll)`, two
            scalars; the loss may be `None`.
        weights: What to differentiate the loss and the squared norm by; v, unless there are inputs.
        inputs: v, when the gradient with respect to inputs is penalised.
        scale: A loss scale. Half-precision gradients are computed multiplied by it, so that they
            do not underflow, and what is returned for the penalty is divided by it again.
        replica: `None`.

    Returns:
        The gradients of the loss and of the squared norm, and the squared norm.
    """
    evaluation = _Evaluation(objective, weights, inputs)

    def scaled_norm(at: Sequence[Any]) -> tuple[Any, Any]:
        first = evaluation.differentiated(at, scale)
        norm = squared_norm(first.by_inputs if inputs else first.by_weights)
        return _scaled(norm, scale), (norm, first.of_loss(), first.assigned)

    penalty, (norm, of_loss, assigned) = jax.grad(scaled_norm, has_aux=True)(evaluation.values)
    evaluation.pure.assign(assigned)
    return PenaltyGradients(of_loss, _unscaled(penalty, scale), norm)


def penalty_gradients_by_difference(
    objective: Objective,
    shifted_nll: Callable[[Sequence[Any], Sequence[Any]], Any],
    weights: Sequence[Any],
    inputs: Sequence[Any] | None = None,
    scale: Any = None,
    precision: str = "float32",
    replica: Any = None,
) -> PenaltyGradients:
    """Differentiates the squared norm of g = d nll / d v from two first-order gradients.

    d ||g||^2 / d weights = 2 d/dh [d nll / d weights](v + h g) at h = 0, a forward difference.

    Args:
        objective: As in `penalty_gradients`.
        shifted_nll: The nll at other weights and inputs, with the same labels and random numbers.
        weights: As in `penalty_gradients`.
        inputs: As in `penalty_gradients`.
        scale: A loss scale, as in `penalty_gradients`.
        precision: The dtype that the model computes in; the coarser, the longer the step.
        replica: `None`.

    Returns:
        The gradients of the loss and of the squared norm, and the squared norm.
    """
    evaluation = _Evaluation(objective, weights, inputs)
    first = evaluation.differentiated(evaluation.values, scale)
    evaluation.pure.assign(first.assigned)
    here = first.by_weights
    point, g = (inputs, first.by_inputs) if inputs else (evaluation.values, here)
    norm = squared_norm(g)
    step = _step_length(squared_norm(point), norm, precision)
    shifted = _shifted(point, g, step)
    at, at_inputs = (evaluation.values, shifted) if inputs else (shifted, [])
    there = _gradient(lambda values: shifted_nll(values, at_inputs), at, scale)
    return PenaltyGradients(first.of_loss(), _slope(here, there, step), norm)


def penalty_gradients_in_parts(
    part: Callable[[Any], Part],
    count: int,
    weights: Sequence[Any],
    *,
    wrt_inputs: bool,
    exact: bool,
    scale: Any = None,
    precision: str = "float32",
    replica: Any = None,
) -> PenaltyGradients:
    """Differentiates the squared norm of g in the memory that a single part of the batch takes.

    With respect to inputs, of which each part has its own, the squared norm is the sum of those of
    the parts. With respect to weights, g = sum g_p is computed first; the gradient of the squared
    norm is then the sum over parts of d <2 g_p, g> / d weights, where g is held fixed, or comes
    from a second sum at weights shifted along g.

    Args:
        part: From an index, the part, evaluated anew for each derivative.
        count: How many parts there are.
        weights: What to differentiate by, tensors.
        wrt_inputs: Whether g is taken with respect to inputs.
        exact: Whether to backpropagate twice, or to take a difference.
        scale: A loss scale, as in `penalty_gradients`.
        precision: The dtype that the model computes in.
        replica: `None`.

    Returns:
        The gradient of the squared norm, and the squared norm; no gradients of a loss.
    """

    def total(terms: Callable[[Part, list[Any]], list[Any]], at: Sequence[Any]) -> list[Any]:
        like = jax.eval_shape(lambda: terms(part(0), list(at)))
        zeros = [jnp.zeros(t.shape, t.dtype) for t in like]

        def add(index: Any, sums: list[Any]) -> list[Any]:
            return [a + b for a, b in zip(sums, terms(part(index), list(at)), strict=True)]

        return jax.lax.fori_loop(0, count, add, zeros)

    def of_inputs(one: Part, at: list[Any]) -> list[Any]:
        def objective(weights: Sequence[Any], inputs: Sequence[Any]) -> tuple[None, Any]:
            return None, one.nll(weights, inputs)

        if exact:
            result = penalty_gradients(objective, at, one.inputs, scale)
        else:
            result = penalty_gradients_by_difference(
                objective, one.nll, at, one.inputs, scale, precision
            )
        return [*result.penalty, result.squared_norm]

    def gradient(one: Part, at: list[Any]) -> list[Any]:
        return _gradient(lambda values: one.nll(values, []), at, scale)

    def gradient_there(one: Part, at: list[Any]) -> list[Any]:
        one.nll(weights, [])  # which draws the labels
        return gradient(one, at)

    def along_g(one: Part, at: list[Any]) -> list[Any]:
        def slope(values: Sequence[Any]) -> Any:
            of_part = gradient(one, list(values))
            slopes = [jnp.vdot(a, b) for a, b in zip(of_part, g, strict=True)]
            return _scaled(2.0 * sum(slopes), scale)

        return _unscaled(jax.grad(slope)(at), scale)

    if wrt_inputs:
        *penalty, norm = total(of_inputs, weights)
        return PenaltyGradients(None, penalty, norm)
    g = total(gradient, weights)
    norm = squared_norm(g)
    if exact:
        return PenaltyGradients(None, total(along_g, weights), norm)
    step = _step_length(squared_norm(weights), norm, precision)
    there = total(gradient_there, _shifted(weights, g, step))
    return PenaltyGradients(None, _slope(g, there, step), norm)


class _First:
    """The first-order derivatives of an evaluation.

    Attributes:
        by_weights: d nll / d weights, at least float32.
        by_inputs: d nll / d inputs.
        assigned: What variables were assigned.
    """

    def __init__(self, outcome: Any, pull: Any, assigned: list[Any], scale: Any) -> None:
        self.assigned = assigned
        self._loss, self._pull = outcome[0], pull
        nll = outcome[1]
        self._none = jnp.zeros_like(nll)
        zero = None if self._loss is None else jnp.zeros_like(self._loss)
        gradients = pull((zero, _scaled(jnp.ones_like(nll), scale)))
        self.by_weights, self.by_inputs = (_unscaled(some, scale) for some in gradients)

    def of_loss(self) -> list[Any] | None:
        """D loss / d weights, if there is a loss."""
        if self._loss is None:
            return None
        return self._pull((jnp.ones_like(self._loss), self._none))[0]


class _Evaluation:
    """An objective at the values of weights and inputs.

    Args:
        objective: As in `penalty_gradients`.
        weights: Variables, whose values the objective reads; or tensors, which it is given.
        inputs: Tensors that the objective is given.
    """

    def __init__(
        self, objective: Objective, weights: Sequence[Any], inputs: Sequence[Any] | None
    ) -> None:
        self.inputs = list(inputs or [])
        self.are_variables = isinstance(weights[0], keras.Variable)
        self.values = [w.value for w in weights] if self.are_variables else list(weights)
        self.pure = Pure(objective, weights if self.are_variables else [])

    def differentiated(self, at: Sequence[Any], scale: Any) -> _First:
        """The derivatives at other values of the weights."""

        def evaluate(values: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, Any]:
            return self.pure(values if self.are_variables else [], values, inputs)

        outcome, pull, assigned = jax.vjp(evaluate, list(at), self.inputs, has_aux=True)
        return _First(outcome, pull, assigned, scale)


def _gradient(nll: Callable[[Sequence[Any]], Any], at: Sequence[Any], scale: Any) -> list[Any]:
    return _unscaled(jax.grad(lambda values: _scaled(nll(values), scale))(list(at)), scale)


def _scaled(scalar: Any, scale: Any) -> Any:
    """A scalar times a loss scale, which may be `None` for 1."""
    return scalar if scale is None else scalar * scale.astype(scalar.dtype)


def _unscaled(tensors: Sequence[Any], scale: Any) -> list[Any]:
    """Tensors divided by a loss scale, at least float32."""
    wide = [promoted(tensor) for tensor in tensors]
    return wide if scale is None else [t / scale.astype(t.dtype) for t in wide]


def _step_length(squared_norm_of_point: Any, squared_norm_of_g: Any, precision: str) -> Any:
    """The h for which the shift h g is a fixed small fraction of the point's own size."""
    size = 1.0 + jnp.sqrt(squared_norm_of_point)
    return SHIFT[precision] * size / (jnp.sqrt(squared_norm_of_g) + 1e-30)


def _shifted(point: Sequence[Any], g: Sequence[Any], step: Any) -> list[Any]:
    return [v + (step * d).astype(v.dtype) for v, d in zip(point, g, strict=True)]


def _slope(here: Sequence[Any], there: Sequence[Any], step: Any) -> list[Any]:
    return [(t - h) * (2.0 / step) for t, h in zip(there, here, strict=True)]
