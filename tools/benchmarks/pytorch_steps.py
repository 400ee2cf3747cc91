"""Training steps with the Fisher penalty, as one would write them by hand in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

ALPHA = 1e-4
ONE_IN = 32  # examples of which one is penalised
RELATIVE_STEP = 1e-2  # of the finite difference, relative to the norm of the weights

Figures = dict[str, Any]


class PlainStep:
    """A step on the loss."""

    def __init__(self, model: nn.Sequential) -> None:
        self.model = copy.deepcopy(model)
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, lr=1e-6, momentum=0.9)

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> Figures:
        self.optimizer.zero_grad()
        loss = self.differentiate(x, y)
        self.optimizer.step()
        return {"value": loss.item()}

    def differentiate(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Fills the gradients of the parameters; returns the loss."""
        loss = cross_entropy(self.model(x), y)
        loss.backward()
        return loss

    def find_gradient(
        self, logits: torch.Tensor, labels: torch.Tensor, **options: Any
    ) -> tuple[torch.Tensor, ...]:
        """Returns the gradient of the negative log-likelihood."""
        return torch.autograd.grad(cross_entropy(logits, labels), self.parameters, **options)


class ExactStep(PlainStep):
    """With the penalty on the whole batch, by double backpropagation.

    One backward pass differentiates the sum of loss and penalty.
    """

    def differentiate(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = self.model(x)
        loss = cross_entropy(logits, y)
        gradient = self.find_gradient(logits, draw(logits), create_graph=True)
        (loss + ALPHA * square(gradient)).backward()
        return loss


class ShareStep(PlainStep):
    """With the penalty on a share of the batch, in a forward pass of its own."""

    def differentiate(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = super().differentiate(x, y)
        logits = self.model(x[: len(x) // ONE_IN])
        gradient = self.find_gradient(logits, draw(logits), create_graph=True)
        (ALPHA / ONE_IN * square(gradient)).backward()
        return loss


class DifferenceStep(PlainStep):
    """With the penalty on the whole batch, by the difference of two gradients."""

    def differentiate(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = self.model(x)
        loss, labels = cross_entropy(logits, y), draw(logits)
        here = self.find_gradient(logits, labels, retain_graph=True)
        loss.backward()
        norm = square(here).sqrt()
        step = RELATIVE_STEP * square(self.parameters).detach().sqrt() / norm
        self.shift(here, step)
        there = self.find_gradient(self.model(x), labels)
        self.shift(here, -step)
        for parameter, a, b in zip(self.parameters, here, there, strict=True):
            parameter.grad += 2 * ALPHA / step * (b - a)
        return loss

    @torch.no_grad()
    def shift(self, direction: tuple[torch.Tensor, ...], distance: torch.Tensor) -> None:
        """Moves the parameters along a direction."""
        for parameter, part in zip(self.parameters, direction, strict=True):
            parameter += distance * part


def draw(logits: torch.Tensor) -> torch.Tensor:
    """Draws labels from the prediction."""
    return torch.distributions.Categorical(logits=logits.detach()).sample()


def square(tensors: Any) -> torch.Tensor:
    """Returns the squared norm."""
    return sum(tensor.square().sum() for tensor in tensors)


METHODS: Mapping[str, Any] = {
    "plain_step": PlainStep,
    "exact_step": ExactStep,
    "difference_step": DifferenceStep,
    "share_step": ShareStep,
}
