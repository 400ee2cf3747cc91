"""The gradient of a squared gradient norm: exact, by a finite difference, or in parts."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import torch

from keras_fisher.backend import finite_difference
from keras_fisher.backend.microbatches import Terms
from keras_fisher.backend.torch.autodiff import cond
from keras_fisher.backend.torch.gradients import (
    detach,
    differentiate_again,
    fill_unconnected,
    find_gradient,
    list_sources,
    make_leaves,
    scale_by,
    squared_norm,
    unscale,
    use_twice_differentiable_kernels,
)
from keras_fisher.backend.types import Nll, NllAt, Objective, PenaltyGradients, Replica, Tensor

__all__ = ["cond", "squared_norm"]


@torch.enable_grad()
def differentiate_penalty(
    objective: Objective,
    weights: Sequence[Tensor],
    inputs: Sequence[Tensor] | None = None,
    scale: Tensor | None = None,
    replica: Replica | None = None,
) -> PenaltyGradients:
    """Differentiates the squared norm of g = d nll / d v by backpropagating twice.

    `replica` is ignored: training is on one device.
    """
    with use_twice_differentiable_kernels():
        evaluation = _Evaluation(objective, weights, inputs)
    wrt = evaluation.sources if inputs is None else evaluation.inputs
    g = unscale(find_gradient(scale_by(evaluation.nll, scale), wrt, create_graph=True), scale)
    norm = squared_norm(g)
    if norm.requires_grad:
        keeps = evaluation.loss is not None
        penalty = differentiate_again(scale_by(norm, scale), evaluation.sources, retain_graph=keeps)
    else:  # the nll is linear
        penalty = fill_unconnected([None] * len(weights), evaluation.sources)
    return PenaltyGradients(evaluation.differentiate_loss(), unscale(penalty, scale), norm.detach())


@torch.enable_grad()
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

    `replica` is ignored: training is on one device.
    """
    evaluation = _Evaluation(objective, weights, inputs)
    values = detach(evaluation.sources)
    wrt = [*evaluation.sources, *evaluation.inputs]
    keeps = evaluation.loss is not None
    found = find_gradient(scale_by(evaluation.nll, scale), wrt, retain_graph=keeps)
    squared_norm(found[len(values) :] if inputs else found)  # raises if all are unconnected
    found = unscale(fill_unconnected(found, wrt), scale)
    of_loss = evaluation.differentiate_loss()  # frees the graph
    here, of_inputs = found[: len(values)], found[len(values) :]
    point, g = (detach(evaluation.inputs), of_inputs) if inputs else (values, here)
    norm = squared_norm(g)
    step = finite_difference.step_length(squared_norm(point), norm, precision)

    def gradient_at(distance: Tensor) -> list[Tensor]:
        shifted = finite_difference.shift(point, g, distance)
        at, at_inputs = (values, shifted) if inputs else (shifted, [])
        return differentiate(lambda weights: shifted_nll(weights, at_inputs), at, scale)

    is_on_kink = finite_difference.may_be_on_kink(point, g)
    penalty = finite_difference.compute_slope(here, gradient_at, step, is_on_kink, cond)
    return PenaltyGradients(of_loss, penalty, norm)


@torch.enable_grad()
def differentiate(nll: Nll, at: Sequence[Tensor], scale: Tensor | None = None) -> list[Tensor]:
    """Returns d nll / d at, at least float32; zeros for unconnected tensors."""
    leaves = make_leaves(at)
    gradient = find_gradient(scale_by(nll(leaves), scale), leaves)
    return unscale(fill_unconnected(gradient, leaves), scale)


@torch.enable_grad()
def differentiate_along(
    nll: Nll, at: Sequence[Tensor], direction: Sequence[Tensor], scale: Tensor | None = None
) -> list[Tensor]:
    """Returns d <2 d nll / d at, direction> / d at, by backpropagating twice."""
    leaves = make_leaves(at)
    with use_twice_differentiable_kernels():
        value = scale_by(nll(leaves), scale)
    first = find_gradient(value, leaves, create_graph=True)
    of_part = unscale(fill_unconnected(first, leaves), scale)
    slopes = [torch.sum(a * b) for a, b in zip(of_part, direction, strict=True)]
    slope = 2.0 * torch.stack(slopes).sum()
    if not slope.requires_grad:  # the nll is linear
        return [torch.zeros_like(tensor) for tensor in detach(of_part)]
    return unscale(differentiate_again(scale_by(slope, scale), leaves), scale)


def sum_over_parts(
    terms: Terms, count: Tensor, at: Sequence[Tensor], zeros: list[Tensor]
) -> list[Tensor]:
    """Adds up lists of tensors over indices, in a loop that frees the memory of each term."""
    sums = zeros
    for index in range(int(count)):
        sums = [a + b for a, b in zip(sums, detach(terms(index, list(at))), strict=True)]
    return sums


class _Evaluation:
    """An objective, evaluated at the values of weights and inputs.

    Args:
        objective: As in `differentiate_penalty`.
        weights: Variables, which the objective reads, or tensors, which are passed to it.
        inputs: Tensors, which are passed to the objective.

    Attributes:
        sources: The weights to differentiate with respect to.
        inputs: The inputs to differentiate with respect to.
        loss: The loss, or `None`.
        nll: The nll.
    """

    def __init__(
        self, objective: Objective, weights: Sequence[Tensor], inputs: Sequence[Tensor] | None
    ) -> None:
        are_variables = isinstance(weights[0], keras.Variable)
        self.sources = list_sources(weights) if are_variables else make_leaves(weights)
        self.inputs = make_leaves(inputs or [])
        self.loss, self.nll = objective(weights if are_variables else self.sources, self.inputs)

    def differentiate_loss(self) -> list[Tensor | None] | None:
        """Returns d loss / d weights, if there is a loss; frees the graph."""
        return None if self.loss is None else find_gradient(self.loss, self.sources)
