"""The gradient of a squared gradient norm, one part of the batch at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
from keras import ops

from keras_fisher.backend import finite_difference
from keras_fisher.backend.types import (
    MicroBatch,
    Nll,
    NllAt,
    Objective,
    PenaltyGradients,
    Replica,
    Tensor,
)

Terms = Callable[[Tensor, list[Tensor]], list[Tensor]]
PartTerms = Callable[[MicroBatch, list[Tensor]], list[Tensor]]


class Backend(Protocol):
    """The interface that each backend's `penalty.py` implements."""

    def squared_norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """Returns the sum of squares, at least float32."""

    def differentiate(self, nll: Nll, at: Sequence[Tensor], scale: Tensor | None) -> list[Tensor]:
        """Returns d nll / d at, at least float32."""

    def differentiate_along(
        self, nll: Nll, at: Sequence[Tensor], direction: Sequence[Tensor], scale: Tensor | None
    ) -> list[Tensor]:
        """Returns d <2 d nll / d at, direction> / d at, at least float32."""

    def cond(
        self, condition: Tensor, if_true: Callable[[], Any], if_false: Callable[[], Any]
    ) -> Any:
        """Runs one of two functions."""

    def sum_over_parts(
        self, terms: Terms, count: Tensor, at: Sequence[Tensor], zeros: list[Tensor]
    ) -> list[Tensor]:
        """Returns the sum of `terms(index, at)`, in a loop that frees the memory of each term."""

    def differentiate_penalty(
        self,
        objective: Objective,
        weights: Sequence[Tensor],
        inputs: Sequence[Tensor] | None,
        scale: Tensor | None,
    ) -> PenaltyGradients:
        """Differentiates the squared norm of all examples at once."""

    def differentiate_penalty_by_difference(
        self,
        objective: Objective,
        shifted_nll: NllAt,
        weights: Sequence[Tensor],
        inputs: Sequence[Tensor] | None,
        scale: Tensor | None,
        precision: str,
    ) -> PenaltyGradients:
        """Differentiates it from two first-order gradients."""


def differentiate_penalty_in_parts(
    backend: Backend,
    part: Callable[[Tensor], MicroBatch],
    count: Tensor,
    weights: Sequence[Tensor],
    factor: Callable[[Tensor, Tensor], Tensor],
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
    parts = _Parts(backend, part, count, list(weights), factor, exact, scale, precision, replica)
    return parts.differentiate_by_inputs() if wrt_inputs else parts.differentiate_by_weights()


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The parts of this replica, with the arguments of `differentiate_penalty_in_parts`."""

    backend: Backend
    part: Callable[[Tensor], MicroBatch]
    count: Tensor
    weights: list[Tensor]
    factor: Callable[[Tensor, Tensor], Tensor]
    exact: bool
    scale: Tensor | None
    precision: str
    replica: Replica

    def differentiate_by_inputs(self) -> PenaltyGradients:
        """Adds up the squared norms of all parts, and their gradients."""
        sums = self.replica.sum(self._add_up(self._penalise_inputs, self.weights, scalars=3))
        *penalty, norm = _multiply(sums[:-2], ops.square(self.factor(*sums[-2:])))
        return PenaltyGradients(None, penalty, norm)

    def differentiate_by_weights(self) -> PenaltyGradients:
        """Adds up the gradient g of all parts, then the gradients of its squared norm."""
        here = self._add_up(self._differentiate_and_count, self.weights, scalars=2)
        sums = self.replica.sum(here)
        multiplier = self.factor(*sums[-2:])
        g = _multiply(sums[:-2], multiplier)
        norm = self.backend.squared_norm(g)
        penalty = self._backpropagate(g) if self.exact else self._take_slope(here[:-2], g, norm)
        return PenaltyGradients(None, _multiply(self.replica.sum(penalty), multiplier), norm)

    def _backpropagate(self, g: list[Tensor]) -> list[Tensor]:
        """Returns the sum over parts of d <2 g_p, g> / d weights."""

        def differentiate(one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
            nll = _fix_inputs(one)
            return self.backend.differentiate_along(nll, at, g, self.scale)

        return self._add_up(differentiate, self.weights)

    def _take_slope(self, here: list[Tensor], g: list[Tensor], norm: Tensor) -> list[Tensor]:
        """Returns the same by a finite difference of gradients."""

        def differentiate(one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
            one.nll(self.weights, [])  # draws the labels
            return self._differentiate(one, at)

        def gradient_at(distance: Tensor) -> list[Tensor]:
            return self._add_up(differentiate, finite_difference.shift(self.weights, g, distance))

        size = self.backend.squared_norm(self.weights)
        step = finite_difference.step_length(size, norm, self.precision)
        is_on_kink = finite_difference.may_be_on_kink(self.weights, g)
        return finite_difference.compute_slope(
            here, gradient_at, step, is_on_kink, self.backend.cond
        )

    def _add_up(self, terms: PartTerms, at: Sequence[Tensor], scalars: int = 0) -> list[Tensor]:
        """Returns the sums over the parts of `terms`: one per weight, then `scalars` more."""
        none = ops.zeros((), dtype=self._dtype)
        zeros = [*map(_make_zeros, self.weights), *[none] * scalars]
        return self.backend.sum_over_parts(
            lambda index, inside: terms(self.part(index), inside), self.count, at, zeros
        )

    def _penalise_inputs(self, one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
        assert one.inputs is not None
        inputs = [ops.copy(tensor) for tensor in one.inputs]

        def objective(weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[None, Tensor]:
            return None, one.nll(weights, inputs)

        if self.exact:
            result = self.backend.differentiate_penalty(objective, at, inputs, self.scale)
        else:
            result = self.backend.differentiate_penalty_by_difference(
                objective, one.nll, at, inputs, self.scale, self.precision
            )
        return [*result.of_penalty, result.squared_norm, *self._count(one)]

    def _differentiate(self, one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
        return self.backend.differentiate(_fix_inputs(one), at, self.scale)

    def _differentiate_and_count(self, one: MicroBatch, at: list[Tensor]) -> list[Tensor]:
        return [*self._differentiate(one, at), *self._count(one)]

    def _count(self, one: MicroBatch) -> list[Tensor]:
        return [ops.cast(number, self._dtype) for number in one.count_data()]

    @property
    def _dtype(self) -> str:
        """The dtype of sums over weights."""
        return keras.backend.result_type(*(weight.dtype for weight in self.weights), "float32")


def _fix_inputs(one: MicroBatch) -> Nll:
    """Returns the nll of a part as a function of the weights."""
    return lambda weights: one.nll(weights, [])


def _multiply(tensors: Sequence[Tensor], number: Tensor) -> list[Tensor]:
    return [tensor * ops.cast(number, tensor.dtype) for tensor in tensors]


def _make_zeros(like: Tensor) -> Tensor:
    return ops.zeros_like(like, dtype=keras.backend.result_type(like.dtype, "float32"))
