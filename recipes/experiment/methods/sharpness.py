"""Training with gradients at a nearby point of higher loss: SAM, ASAM and GNP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

import keras_fisher as kf
from keras_fisher import backend
from keras_fisher.backend.types import StepKind, Tensor
from keras_fisher.training.step import Batch, PenalisedStep

FLOOR = 0.01  # added to |w| in ASAM, so that weights of 0 move, too
SMALLEST = 1e-12  # norm


class SharpnessAwareModel(kf.FisherPenaltyModel):
    """Trains `backbone` with the mini-batch gradient at a point that is reached by ascending.

    With the gradient g at the weights w, the step uses

        (1 - share) g + share * gradient at w + e,    e = radius T^2 g / ||T g||.

    | method | T | share |
    |---|---|---|
    | SAM: Foret et al., 2021, eq. 2 and 3 | 1 | 1 |
    | ASAM: Kwon et al., 2021, eq. 11 | abs(w) + 0.01 for kernels, 1 for vectors | 1 |
    | GNP: Zhao et al., 2022, algorithm 1 | 1 | below 1 |

    GNP approximates the gradient of loss + share * radius * ||g||. A step costs two plain ones. The
    second pass draws the same dropout masks, and updates neither metrics nor moving statistics.

    Args:
        backbone: The model to train.
        radius: The length of e, under ASAM that of e / T.
        adaptive: Whether T depends on the weights, as in ASAM.
        share: The share of the gradient at w + e.
        **kwargs: Arguments of `FisherPenaltyModel`, which trains without a penalty here.
    """

    def __init__(
        self,
        backbone: keras.Model,
        *,
        radius: float,
        adaptive: bool = False,
        share: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, alpha=0.0, **kwargs)
        self.radius, self.adaptive, self.share = radius, adaptive, share
        self._step = SharpnessAwareStep(
            self, self._settings, self._state, self._health, self._label_seed
        )

    def ascend(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Returns the weights w + e."""
        weights = [ops.convert_to_tensor(weight) for weight in self.trainable_weights]
        scales = [
            ops.absolute(w) + FLOOR if self.adaptive and len(w.shape) > 1 else ops.ones_like(w)
            for w in weights
        ]
        scaled = [scale * g for scale, g in zip(scales, gradients, strict=True)]
        norm = ops.sqrt(backend.squared_norm(scaled))
        factor = self.radius / ops.maximum(norm, SMALLEST)
        return [
            w + ops.cast(factor, w.dtype) * scale * g
            for w, scale, g in zip(weights, scales, scaled, strict=True)
        ]


class SharpnessAwareStep(PenalisedStep):
    """The step of a `SharpnessAwareModel`."""

    _model: Any

    def _differentiate(self, batch: Batch, kind: StepKind | None) -> list[Tensor | None]:
        model, weights = self._model, self._model.trainable_weights
        replayed = self._copy_replayed()
        gradients = fill(self._differentiate_loss(batch), weights)
        moved = [(v, ops.copy(v)) for v in [*weights, *(v for v, _ in replayed)]]
        assign([*replayed, *zip(weights, model.ascend(gradients), strict=True)])
        ascended = fill(backend.differentiate(lambda: self._compute_loss(batch), weights), weights)
        assign(moved)
        return [
            (1 - model.share) * g + model.share * there
            for g, there in zip(gradients, ascended, strict=True)
        ]

    def _compute_loss(self, batch: Batch) -> Tensor:
        """Returns the loss without an update of the metrics."""
        y_pred = self._model(batch.x, training=True)
        loss = self._model.compute_loss(batch.x, batch.y, y_pred, batch.sample_weight)
        return self._model.optimizer.scale_loss(loss)


def assign(values: Sequence[tuple[keras.Variable, Tensor]]) -> None:
    """Assigns values to variables."""
    for variable, value in values:
        variable.assign(value)


def fill(gradients: Sequence[Tensor | None], weights: Sequence[Any]) -> list[Tensor]:
    """Returns the gradients, with zeros for weights that the loss does not depend on."""
    return [
        ops.zeros_like(weight) if gradient is None else gradient
        for gradient, weight in zip(gradients, weights, strict=True)
    ]
