"""Types shared by all backends, and the replica of training on one device."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras

Tensor: TypeAlias = Any
"""A tensor of the backend. Docstrings give its shape."""

Objective: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[Tensor | None, Tensor]]
"""A function from weights and inputs to `(loss, nll)`, two scalars; the loss may be `None`."""

Values: TypeAlias = Sequence[tuple[keras.Variable, Tensor]]
"""Variables and other values for them."""

Nll: TypeAlias = Callable[[Sequence[Tensor]], Tensor]
"""A function from the values to differentiate with respect to, to a scalar."""

NllAt: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""A function from weights and inputs to a scalar."""

Tap: TypeAlias = Callable[[Tensor], Tensor]
"""A function that returns a tensor with the same value, whose gradient is wanted."""


class StepKind(enum.IntEnum):
    """The penalty of a step: none, the kept gradient or a new one."""

    NO_PENALTY = 0
    KEPT_PENALTY = 1
    NEW_PENALTY = 2


class InnerGraphError(Exception):
    """Raised when a tensor is tapped inside a loop, a branch or an inner function."""


def make_unconnected_error() -> ValueError:
    """Returns the error for a squared norm of gradients that are all unconnected."""
    return ValueError(
        "A gradient norm needs outputs that depend on what the gradient is taken with respect "
        "to (trainable weights, or floating-point inputs for 'gp_x'). Received: none that do"
    )


class PenaltyGradients(NamedTuple):
    """The derivatives of one penalised evaluation.

    Attributes:
        of_loss: d loss / d weights, a list with `None` for unconnected weights; `None` if the
            objective has no loss.
        of_penalty: d ||g||^2 / d weights, a list of dense tensors, at least float32.
        squared_norm: ||g||^2, a scalar, at least float32.
    """

    of_loss: list[Tensor | None] | None
    of_penalty: list[Tensor]
    squared_norm: Tensor


class MicroBatch(NamedTuple):
    """A part of the mini-batch.

    Attributes:
        nll: A function from weights and inputs (an empty list for the part's own) to the part's
            contribution to the mean nll, in which padding counts as 0. The first call draws labels.
        count_data: A function that returns, after a call of `nll`, the part's contributions to two
            sums over examples: the fraction that is data, and whether any is.
        inputs: The tensors that g is taken with respect to, or `None` for the weights.
    """

    nll: NllAt
    count_data: Callable[[], list[Tensor]]
    inputs: list[Tensor] | None


class Replica:
    """The only replica of training on one device, which has the whole mini-batch.

    Args:
        examples: The number of examples on this replica.

    Attributes:
        count: The number of replicas.
        total: The number of examples on all replicas.
    """

    count = 1

    def __init__(self, examples: int | Tensor) -> None:
        self.total = examples

    def take_first(self, examples: int | Tensor) -> tuple[int | Tensor, Replica]:
        """Returns how many of the first `examples` are on this replica, and a replica of these."""
        return examples, Replica(examples)

    def add_up(self, mean: Tensor) -> Tensor:
        """Returns the contribution of this replica's mean to the mean over all replicas."""
        return mean

    def restore_mean(self, loss: Tensor) -> Tensor:
        """Returns the mean over this replica's examples, from the result of Keras's losses."""
        return loss

    def zero_without_examples(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Returns the gradients, or zeros if the replica has no examples."""
        return list(gradients)

    def align_non_finite(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Returns the gradients, or NaN on every replica if one has a non-finite gradient."""
        return list(gradients)

    def sum(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Returns the sum over replicas of each tensor; `None` stays `None`."""
        return list(tensors)
