"""The gradient of a squared gradient norm, from one part of the batch after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
from keras import ops

from keras_fisher.backend import finite_difference
from keras_fisher.backend.types import MicroBatch, Nll, PenaltyGradients, Replica, Tensor

Terms = Callable[[Any, list[Any]], list[Any]]


class Backend(Protocol):
    """What a backend differentiates: `tensorflow_penalty.py` and `jax_penalty.py`."""

    def squared_norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """The sum of squares, at least float32."""

    def differentiate(self, nll: Nll, at: Sequence[Tensor], scale: Tensor) -> list[Tensor]:
        """D nll / d at, at least float32."""

    def differentiate_along(
        self, nll: Nll, at: Sequence[Tensor], direction: Sequence[Tensor], scale: Tensor
    ) -> list[Tensor]:
        """D <2 d nll / d at, direction> / d at, at least float32."""

    def cond(self, condition: Tensor, if_true: Any, if_false: Any) -> Any:
        """Runs one of two functions."""

    def sum_over_parts(
        self, terms: Terms, count: Tensor, at: Sequence[Tensor], zeros: list[Tensor]
    ) -> list[Tensor]:
        """The sum of `terms(index, at)`, in a loop that frees what each of them needed."""

    def differentiate_penalty(
        self, objective: Any, weights: Any, inputs: Any, scale: Tensor
    ) -> PenaltyGradients:
        """That of all examples at once."""

    def differentiate_penalty_by_difference(
        self,
        objective: Any,
        shifted_nll: Any,
        weights: Any,
        inputs: Any,
        scale: Tensor,
        precision: str,
    ) -> PenaltyGradients:
        """That of all examples at once, from two first-order gradients."""


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
    """Differentiates the squared norm of g in the memory that a single part of the batch takes.

    With respect to inputs, of which each part has its own, the squared norm is the sum of those of
    the parts. With respect to weights, g = sum g_p is computed first; the gradient of the squared
    norm is then the sum over parts of d <2 g_p, g> / d weights, where g is held fixed, or comes
    from further sums at weights shifted along g.

    Args:
        backend: What differentiates.
        part: From an index, the part, evaluated anew for each derivative.
        count: How many parts there are.
        weights: What to differentiate by, tensors.
        factor: From the two sums of `count_data` over all parts, what g is multiplied by.
        wrt_inputs: Whether g is taken with respect to inputs.
        exact: Whether to backpropagate twice, or to take a difference.
        scale: A loss scale, as in `differentiate_penalty`.
        precision: The dtype that the model computes in.
        replica: This replica, whose parts add to the mean over all replicas.

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
        """The sum over the parts of this replica."""
        return backend.sum_over_parts(lambda i, inside: terms(part(i), inside), count, at, zeros)

    def counts(one: MicroBatch) -> list[Tensor]:
        return [ops.cast(number, none.dtype) for number in one.count_data()]

    def of_inputs(one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
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
        one.nll(weights, [])  # which draws the labels
        return gradient(one, at)

    def along_g(one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
        return backend.differentiate_along(lambda weights: one.nll(weights, []), at, g, scale)

    def multiplied(tensors: Sequence[Tensor], number: Tensor) -> list[Tensor]:
        return [tensor * ops.cast(number, tensor.dtype) for tensor in tensors]

    if wrt_inputs:
        sums = replica.sum(total(of_inputs, weights, [*zeros, none, none, none]))
        *penalty, norm = multiplied(sums[:-2], ops.square(factor(*sums[-2:])))
        return PenaltyGradients(None, penalty, norm)
    here = total(gradient_and_counts, weights, [*zeros, none, none])
    sums = replica.sum(here)
    multiplier = factor(*sums[-2:])
    g = multiplied(sums[:-2], multiplier)
    norm = backend.squared_norm(g)
    if exact:
        penalty = total(along_g, weights, zeros)
    else:
        step = finite_difference.step_length(backend.squared_norm(weights), norm, precision)
        penalty = finite_difference.compute_slope(
            here[:-2],
            lambda h: total(gradient_there, finite_difference.shift(weights, g, h), zeros),
            step,
            finite_difference.may_be_on_kink(weights, g),
            backend.cond,
        )
    return PenaltyGradients(None, multiplied(replica.sum(penalty), multiplier), norm)


def _zeros(like: Any) -> Any:
    return ops.zeros_like(like, dtype=keras.backend.result_type(like.dtype, "float32"))
