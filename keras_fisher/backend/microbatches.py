"""The gradient of a squared gradient norm, one part of the batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
from keras import ops

from keras_fisher.backend import finite_difference
from keras_fisher.backend.types import MicroBatch, Nll, PenaltyGradients, Replica, Tensor

Terms = Callable[[Any, list[Any]], list[Any]]


class Backend(Protocol):
    """The interface that each backend's `penalty.py` implements."""

    def squared_norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """Returns the sum of squares, at least float32."""

    def differentiate(self, nll: Nll, at: Sequence[Tensor], scale: Tensor) -> list[Tensor]:
        """Returns d nll / d at, at least float32."""

    def differentiate_along(
        self, nll: Nll, at: Sequence[Tensor], direction: Sequence[Tensor], scale: Tensor
    ) -> list[Tensor]:
        """Returns d <2 d nll / d at, direction> / d at, at least float32."""

    def cond(self, condition: Tensor, if_true: Any, if_false: Any) -> Any:
        """Runs one of two functions."""

    def sum_over_parts(
        self, terms: Terms, count: Tensor, at: Sequence[Tensor], zeros: list[Tensor]
    ) -> list[Tensor]:
        """Returns the sum of `terms(index, at)`, in a loop that frees the memory of each term."""

    def differentiate_penalty(
        self, objective: Any, weights: Any, inputs: Any, scale: Tensor
    ) -> PenaltyGradients:
        """Differentiates the squared norm of all examples at once."""

    def differentiate_penalty_by_difference(
        self,
        objective: Any,
        shifted_nll: Any,
        weights: Any,
        inputs: Any,
        scale: Tensor,
        precision: str,
    ) -> PenaltyGradients:
        """Differentiates it from two first-order gradients."""


def differentiate_penalty_in_parts(
    backend: Backend,
    part: Callable[[Any], MicroBatch],
    count: Tensor,
    weights: Sequence[Tensor],
    factor: Callable[[Any, Any], Any],
    *,
    wrt_inputs: bool,
    exact: bool,
    scale: Tensor | None = None,
    precision: str = "float32",
    replica: Replica,
) -> PenaltyGradients:
    """Differentiates the squared norm of g using the memory of a single part of the batch.

    If g is taken with respect to inputs, which differ between parts, the squared norm is the sum of
    the squared norms of the parts. If g is taken with respect to weights, g = sum g_p is computed
    first. The gradient of the squared norm is then the sum over parts of d <2 g_p, g> / d weights,
    with g held fixed, or a finite difference of sums at weights shifted along g.

    Args:
        backend: The backend's functions.
        part: A function from an index to the part, which is evaluated again for each derivative.
        count: The number of parts.
        weights: The tensors to differentiate with respect to.
        factor: A function from the two sums of `count_data` over all parts to the factor of g.
        wrt_inputs: Whether g is taken with respect to inputs.
        exact: Whether to backpropagate twice instead of taking a finite difference.
        scale: A loss scale, as in `differentiate_penalty`.
        precision: The dtype of the model's computations.
        replica: This replica; the mean is over the parts of all replicas.

    Returns:
        The gradient of the squared norm, and the squared norm; no gradients of a loss.
    """
    none = _zeros(backend.squared_norm(weights))
    zeros = [_zeros(weight) for weight in weights]

    def total(
        terms: Callable[[MicroBatch, list[Any]], list[Any]],
        at: Sequence[Tensor],
        zeros: list[Tensor],
    ) -> list[Tensor]:
        """Returns the sum over the parts of this replica."""
        return backend.sum_over_parts(lambda i, inside: terms(part(i), inside), count, at, zeros)

    def counts(one: MicroBatch) -> list[Tensor]:
        return [ops.cast(number, none.dtype) for number in one.count_data()]

    def penalise_inputs(one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
        assert one.inputs is not None
        inputs = [ops.copy(tensor) for tensor in one.inputs]

        def objective(weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[None, Any]:
            return None, one.nll(weights, inputs)

        if exact:
            result = backend.differentiate_penalty(objective, at, inputs, scale)
        else:
            result = backend.differentiate_penalty_by_difference(
                objective, one.nll, at, inputs, scale, precision
            )
        return [*result.penalty, result.squared_norm, *counts(one)]

    def gradient(one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
        return backend.differentiate(lambda weights: one.nll(weights, []), at, scale)

    def gradient_and_counts(one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
        return [*gradient(one, at), *counts(one)]

    def gradient_there(one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
        one.nll(weights, [])  # draws the labels
        return gradient(one, at)

    def differentiate_along_g(one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
        return backend.differentiate_along(lambda weights: one.nll(weights, []), at, g, scale)

    def multiply(tensors: Sequence[Tensor], number: Tensor) -> list[Tensor]:
        return [tensor * ops.cast(number, tensor.dtype) for tensor in tensors]

    if wrt_inputs:
        sums = replica.sum(total(penalise_inputs, weights, [*zeros, none, none, none]))
        *penalty, norm = multiply(sums[:-2], ops.square(factor(*sums[-2:])))
        return PenaltyGradients(None, penalty, norm)
    here = total(gradient_and_counts, weights, [*zeros, none, none])
    sums = replica.sum(here)
    multiplier = factor(*sums[-2:])
    g = multiply(sums[:-2], multiplier)
    norm = backend.squared_norm(g)
    if exact:
        penalty = total(differentiate_along_g, weights, zeros)
    else:
        step = finite_difference.step_length(backend.squared_norm(weights), norm, precision)
        penalty = finite_difference.compute_slope(
            here[:-2],
            lambda h: total(gradient_there, finite_difference.shift(weights, g, h), zeros),
            step,
            finite_difference.may_be_on_kink(weights, g),
            backend.cond,
        )
    return PenaltyGradients(None, multiply(replica.sum(penalty), multiplier), norm)


def _zeros(like: Any) -> Any:
    return ops.zeros_like(like, dtype=keras.backend.result_type(like.dtype, "float32"))
