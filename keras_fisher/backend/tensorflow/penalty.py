"""The gradient of a squared gradient norm: exact, by a finite difference, or in parts."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_fisher.backend import finite_difference
from keras_fisher.backend.microbatches import Terms
from keras_fisher.backend.tensorflow import gram, tapes
from keras_fisher.backend.tensorflow.autodiff import cond
from keras_fisher.backend.tensorflow.ops import refuse_wrong_gradients
from keras_fisher.backend.tensorflow.tapes import squared_norm
from keras_fisher.backend.types import Nll, NllAt, Objective, PenaltyGradients, Replica, Tensor

_ALONE = Replica(0)


def differentiate_penalty(
    objective: Objective,
    weights: Sequence[Tensor],
    inputs: Sequence[Tensor] | None = None,
    scale: Tensor | None = None,
    replica: Replica = _ALONE,
) -> PenaltyGradients:
    """Differentiates the squared norm of g = d nll / d v by backpropagating twice.

    On several replicas, each has the nll of its own examples, and g is the gradient of the mean
    over all examples. With g_r the gradient of replica r's part of the mean, the gradient of
    ||g||^2 is the sum over r of d <2 g_r, g> / d weights, where g = sum g_r is held fixed.

    Args:
        objective: A function that evaluates the model once at weights and inputs, and returns
            `(loss, nll)`, two scalars; the loss may be `None`.
        weights: The weights to differentiate with respect to; v if `inputs` is `None`.
        inputs: v, if the gradient with respect to inputs is penalised.
        scale: A loss scale, which keeps half-precision gradients from underflowing. The returned
            results of the penalty are divided by it again.
        replica: This replica.

    Returns:
        The gradients of the loss (on this replica) and of the squared norm, and the squared norm.

    Raises:
        NotImplementedError: if an operation has no second derivative.
    """
    has_parts = inputs is not None  # each replica has its own inputs, but all weights
    at, weights = weights, tapes.list_sources(weights)
    wrt = weights if inputs is None else list(inputs)
    with tf.GradientTape(persistent=True) as outer, tapes.use_exact_gradients():
        outer.watch(weights)
        with tf.GradientTape() as inner:
            inner.watch(wrt)
            loss, nll = objective(at, inputs or [])
            scaled_nll = tapes.scale_by(replica.add_up(nll), scale)
        g = tapes.unscale(tapes.densify(inner.gradient(scaled_nll, wrt)), scale)
        g = replica.zero_without_examples(g)
        norm = target = gram.squared_norm(g)
        if replica.count > 1:
            with outer.stop_recording():
                held, norm = _combine_gradients(g, replica, has_parts)
            target = 2.0 * tf.add_n([tf.reduce_sum(a * b) for a, b in _pair_present(g, held)])
        scaled_target = tapes.scale_by(target, scale)
    penalty = tapes.unscale(tapes.differentiate_again(outer, scaled_target, weights), scale)
    penalty = replica.sum(replica.zero_without_examples(penalty))
    of_loss = _differentiate_loss(outer, loss, weights)
    return PenaltyGradients(of_loss, penalty, tf.stop_gradient(norm))


def differentiate_penalty_by_difference(
    objective: Objective,
    shifted_nll: NllAt,
    weights: Sequence[Tensor],
    inputs: Sequence[Tensor] | None = None,
    scale: Tensor | None = None,
    precision: str = "float32",
    replica: Replica = _ALONE,
) -> PenaltyGradients:
    """Differentiates the squared norm of g = d nll / d v from two first-order gradients.

    d ||g||^2 / d weights = 2 d/dh [d nll / d weights](v + h g) at h = 0, a forward difference. If v
    may be on a kink, it needs a third gradient.

    Args:
        objective: As in `differentiate_penalty`.
        shifted_nll: The nll as a function of weights and inputs, with the same labels and seeds.
        weights: As in `differentiate_penalty`.
        inputs: As in `differentiate_penalty`.
        scale: A loss scale, as in `differentiate_penalty`.
        precision: The dtype of the model's computations; coarser dtypes use longer steps.
        replica: As in `differentiate_penalty`.

    Returns:
        The gradients of the loss (on this replica) and of the squared norm, and the squared norm.
    """
    given, weights = weights, tapes.list_sources(weights)
    shift_inputs = inputs is not None
    point = weights if inputs is None else list(inputs)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([*weights, *point])
        loss, nll = objective(given, inputs or [])
        scaled_nll = tapes.scale_by(replica.add_up(nll), scale)
    here = replica.zero_without_examples(_gradient(tape, scaled_nll, weights, scale))
    if shift_inputs:
        g = replica.zero_without_examples(_gradient(tape, scaled_nll, point, scale))
    else:
        g = replica.sum(here)
    values = [tapes.value(v) for v in point]
    norm, size = squared_norm(g), squared_norm(values)
    if shift_inputs:  # each replica has its own inputs
        norm, size = replica.sum([norm, size])

    def gradient_at(distance: Tensor) -> list[Tensor]:
        shifted = finite_difference.shift(values, g, distance)
        at = [tapes.value(w) for w in weights] if shift_inputs else shifted

        def nll_there(at: Sequence[Tensor]) -> Tensor:
            return replica.add_up(shifted_nll(at, shifted if shift_inputs else []))

        return replica.zero_without_examples(differentiate(nll_there, at, scale))

    step = finite_difference.step_length(size, norm, precision)
    is_on_kink = finite_difference.may_be_on_kink(values, g)
    penalty = finite_difference.compute_slope(here, gradient_at, step, is_on_kink, cond)
    penalty = replica.sum(penalty)
    return PenaltyGradients(_differentiate_loss(tape, loss, weights), penalty, norm)


def differentiate(nll: Nll, at: Sequence[Tensor], scale: Tensor | None = None) -> list[Tensor]:
    """Returns d nll / d at, at least float32; zeros for unconnected tensors."""
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = tapes.scale_by(nll(at), scale)
    return _gradient(tape, value, at, scale)


def differentiate_along(
    nll: Nll, at: Sequence[Tensor], direction: Sequence[Tensor], scale: Tensor | None = None
) -> list[Tensor]:
    """Returns d <2 d nll / d at, direction> / d at, by backpropagating twice."""
    with tf.GradientTape() as outer, tapes.use_exact_gradients():
        outer.watch(at)
        with tf.GradientTape() as inner:
            inner.watch(at)
            value = tapes.scale_by(nll(at), scale)
        of_part = tapes.unscale(tapes.densify(inner.gradient(value, at)), scale)
        slopes = [tf.reduce_sum(a * b) for a, b in _pair_present(of_part, direction)]
        target = tapes.scale_by(2.0 * tf.add_n(slopes), scale)
    return tapes.unscale(tapes.differentiate_again(outer, target, list(at)), scale)


def sum_over_parts(
    terms: Terms, count: Tensor, at: Sequence[Tensor], zeros: list[Tensor]
) -> list[Tensor]:
    """Adds up lists of tensors over indices, in a loop that frees the memory of each term."""

    def add(index: Tensor, sums: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        new = terms(index, [tf.identity(tensor) for tensor in at])
        return index + 1, [a + tf.cast(b, a.dtype) for a, b in zip(sums, new, strict=True)]

    start = (tf.constant(0), zeros)
    return tf.while_loop(lambda index, _: index < count, add, start, parallel_iterations=1)[1]


def _gradient(
    tape: tf.GradientTape, value: Tensor, at: Sequence[Tensor], scale: Tensor | None
) -> list[Tensor]:
    """Returns the gradient of a scalar with a loss scale; zeros for unconnected tensors."""
    with refuse_wrong_gradients():
        gradient = tapes.fill_unconnected(tapes.densify(tape.gradient(value, at)), at)
    return tapes.unscale(gradient, scale)


def _combine_gradients(
    g: list[Tensor | None], replica: Replica, has_parts: bool
) -> tuple[list[Tensor | None], Tensor]:
    """Returns this replica's part of g for the mean over all examples, and its squared norm."""
    if has_parts:
        held = [None if t is None else tf.stop_gradient(t) for t in g]
        return held, replica.sum([squared_norm(held)])[0]
    held = replica.sum(g)
    return held, squared_norm(held)


def _pair_present(
    first: Sequence[Tensor | None], second: Sequence[Tensor | None]
) -> list[tuple[Tensor, Tensor]]:
    return [(a, b) for a, b in zip(first, second, strict=True) if a is not None]


def _differentiate_loss(
    tape: tf.GradientTape, loss: Tensor | None, weights: list[Tensor]
) -> list[Tensor | None] | None:
    return None if loss is None else tapes.densify(tape.gradient(loss, weights))
