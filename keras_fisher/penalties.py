"""Penalties: squared norms of the mini-batch gradient.

All four penalties of section 4 are ||d/dv (1/B) sum_i l(x_i, y_i)||^2, the squared norm of the
gradient of the *mean* loss of the mini-batch (eq. 3). They differ in the labels y_i and the
variable v:

| name | labels | with respect to |
|------|--------|-----------------|
| fp   | drawn from the model's own prediction | weights |
| gp   | given | weights |
| gp_x | given | inputs  |
| gp_r | drawn uniformly from the label set    | weights |
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods import Likelihood
from keras_fisher.utils import arguments

_LABELS = ("sampled", "given", "uniform")
_WRT = ("weights", "inputs")


@keras.saving.register_keras_serializable(package="keras_fisher")
@dataclasses.dataclass(frozen=True)
class Penalty:
    """A squared norm of the mini-batch gradient, defined by its labels and its variable.

    Example: the input gradient under labels drawn from the model, which the paper does not try.

    >>> from keras_fisher.penalties import Penalty
    >>> Penalty(labels="sampled", wrt="inputs")
    Penalty(labels='sampled', wrt='inputs')

    Args:
        labels: "sampled" (from the model's own prediction, eq. 1), "given" (those of the batch) or
            "uniform" (from the label set).
        wrt: "weights" (the trainable ones) or "inputs" (the floating-point ones).

    Raises:
        ValueError: if an argument is none of these.
    """

    labels: str = "sampled"
    wrt: str = "weights"

    def __post_init__(self) -> None:
        arguments.check_choice("labels", self.labels, _LABELS)
        arguments.check_choice("wrt", self.wrt, _WRT)

    def draw_labels(
        self,
        likelihood: Likelihood,
        y: Tensor | None,
        outputs: Tensor,
        seed: keras.random.SeedGenerator,
    ) -> Tensor:
        """Returns the labels of the gradient, as constants of the differentiation.

        Args:
            likelihood: The model's likelihood.
            y: The labels of the batch.
            outputs: The model's outputs for the batch, shape `(batch, ...)`.
            seed: The generator for drawn labels.

        Returns:
            Labels in a layout that `likelihood` accepts.
        """
        if self.labels == "given":
            return y
        draws = {"sampled": likelihood.sample, "uniform": likelihood.sample_uniform}
        draw = draws[self.labels]
        outputs = ops.stop_gradient(ops.convert_to_tensor(outputs))
        return ops.stop_gradient(draw(outputs, seed))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Penalty:
        """Creates the penalty from the result of `get_config`."""
        return cls(**config)


PENALTIES = {
    "fp": Penalty("sampled", "weights"),
    "gp": Penalty("given", "weights"),
    "gp_x": Penalty("given", "inputs"),
    "gp_r": Penalty("uniform", "weights"),
}


def get(penalty: str | Penalty) -> Penalty:
    """Returns the penalty with the given name, or the given `Penalty` itself.

    >>> from keras_fisher import penalties
    >>> penalties.get("gp_x")
    Penalty(labels='given', wrt='inputs')

    Args:
        penalty: "fp", "gp", "gp_x", "gp_r" or a `Penalty`.

    Raises:
        ValueError: if `penalty` is none of these.
    """
    if isinstance(penalty, Penalty):
        return penalty
    if isinstance(penalty, str) and penalty in PENALTIES:
        return PENALTIES[penalty]
    names = ", ".join(repr(name) for name in PENALTIES)
    raise ValueError(f"`penalty` must be one of {names} or a Penalty. Received: {penalty!r}")
