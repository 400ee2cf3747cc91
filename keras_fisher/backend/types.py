"""What every backend takes and returns, and what one device has in place of replicas."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the backend. Docstrings give its shape."""

Objective: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[Tensor | None, Tensor]]
"""From weights and inputs to `(loss, nll)`, two scalars; the loss may be `None`."""

Nll: TypeAlias = Callable[[Sequence[Tensor]], Tensor]
"""From the values of what it is differentiated by to a scalar."""


class StepKind(enum.IntEnum):
    """What a step adds to the gradient of the loss."""

    NO_PENALTY = 0
    KEPT_PENALTY = 1
    NEW_PENALTY = 2


class InnerGraphError(Exception):
    """A tensor was tapped inside a loop, a branch or another function than the derivative's."""


class PenaltyGradients(NamedTuple):
    """The derivatives of one penalised evaluation.

    Attributes:
        loss: d loss / d weights, a list; `None` where a weight is unconnected. `None` if the
            objective had no loss.
        penalty: d ||g||^2 / d weights, a list of dense tensors, at least float32.
        squared_norm: ||g||^2, a scalar, at least float32.
    """

    loss: list[Tensor | None] | None
    penalty: list[Tensor]
    squared_norm: Tensor


class MicroBatch(NamedTuple):
    """A part of the mini-batch.

    Attributes:
        nll: From weights and inputs (none for the part's own), what the part adds to the mean nll,
            in which padding counts as 0. Its labels are drawn in the first call, and kept.
        count_data: After a call of `nll`, what the part adds to two sums over examples: the
            fraction of their observations that are data, and the number of those that have any.
        inputs: What g is taken with respect to, or `None` for the weights.
    """

    nll: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
    count_data: Callable[[], list[Tensor]]
    inputs: list[Tensor] | None


class Replica:
    """The only replica of a training on one device: its part of a mini-batch is all of it.

    Args:
        examples: How many examples this replica has.

    Attributes:
        count: How many replicas train together.
        total: How many examples all of them have.
    """

    count = 1

    def __init__(self, examples: int | Tensor) -> None:
        self.total = examples

    def take_first(self, examples: int | Tensor) -> tuple[int | Tensor, Replica]:
        """Returns how many of the first `examples` are here, and a replica of those."""
        return examples, Replica(examples)

    def add_up(self, mean: Tensor) -> Tensor:
        """Returns what a mean over this replica's examples adds to that over all."""
        return mean

    def restore_mean(self, loss: Tensor) -> Tensor:
        """Returns the mean over this replica's examples, from what Keras's losses give here."""
        return loss

    def zero_without_examples(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Returns the gradients, 0 where there are no examples."""
        return list(gradients)

    def align_non_finite(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Returns the gradients, NaN on every replica where one has a non-finite gradient."""
        return list(gradients)

    def sum(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Returns the sum over replicas of each tensor; `None` stays `None`."""
        return list(tensors)
