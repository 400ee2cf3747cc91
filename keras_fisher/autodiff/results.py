"""What derivatives take and give, with any backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class InnerGraphError(Exception):
    """A tensor was tapped inside a loop, a branch or another function than the derivative's."""


class PenaltyGradients(NamedTuple):
    """What one penalised evaluation gives.

    Attributes:
        loss: d loss / d weights, a list; `None` where a weight is unconnected. `None` if the
            objective had no loss.
        penalty: d ||g||^2 / d weights, a list of dense tensors, at least float32.
        squared_norm: ||g||^2, a scalar, at least float32.
    """

    loss: list[Any] | None
    penalty: list[Any]
    squared_norm: Any


class Part(NamedTuple):
    """A part of the mini-batch.

    Attributes:
        nll: From weights and inputs (none for the part's own), what the part adds to the mean nll,
            in which padding counts as 0. Its labels are drawn in the first call, and held.
        counts: After a call of `nll`, what the part adds to two sums over examples: the fraction of
            their observations that are data, and the number of those that have any.
        inputs: What g is taken with respect to, or `None` for the weights.
    """

    nll: Callable[[Sequence[Any], Sequence[Any]], Any]
    counts: Callable[[], list[Any]]
    inputs: list[Any] | None
