"""Early-learning regularisation (ELR), alone or together with a penalty."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

import keras_fisher as kf
from keras_fisher.backend.types import Tensor

SMALLEST = 1e-4  # probabilities are clipped to [1e-4, 1 - 1e-4]


class RunningPredictions(keras.layers.Layer):
    """Keeps a running mean of the predicted probabilities of each training example.

    A layer, so that checkpoints contain it.

    Args:
        examples: The number of training examples.
        classes: The number of classes.
        momentum: The weight of the previous mean.
    """

    def __init__(self, examples: int, classes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.targets = self.add_weight(
            shape=(examples, classes), initializer="zeros", trainable=False, name="targets"
        )
        self.built = True

    def update(self, indices: Tensor, probabilities: Tensor) -> Tensor:
        """Returns the new means of the examples at `indices`, shape `(batch, classes)`."""
        before = ops.take(self.targets, indices, axis=0)
        new = self.momentum * before + (1 - self.momentum) * probabilities
        self.targets.assign(ops.scatter_update(self.targets, indices[:, None], new))
        return new


class EarlyLearningModel(kf.FisherPenaltyModel):
    """Trains `backbone` with early-learning regularisation (Liu et al., 2020, eq. 6 and 9).

    With the predicted probabilities p_i of example i, the targets t_i and the loss l,

        t_i <- momentum t_i + (1 - momentum) p_i,
        (1/B) sum_i l(x_i, y_i) + strength log(1 - <p_i, t_i>).

    The targets are constants in the gradient. `alpha` above 0 adds a penalty.

    Training labels have shape `(batch, 2)`: the class of an example, and its index. In evaluation
    labels are classes of shape `(batch,)`, and there is no regularisation.

    Args:
        backbone: The model to train, whose outputs are logits.
        examples: The number of training examples.
        strength: The weight of the regularisation.
        momentum: The weight of the previous target.
        **kwargs: Arguments of `FisherPenaltyModel`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        *,
        examples: int,
        strength: float,
        momentum: float = 0.7,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.strength = strength
        self.predictions = RunningPredictions(examples, backbone.output_shape[-1], momentum)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        classes, indices = split_labels(y)
        loss = super().compute_loss(x, classes, y_pred, sample_weight, training)
        return loss if indices is None else loss + self._regularise(indices, y_pred)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        return super().compute_metrics(x, split_labels(y)[0], y_pred, sample_weight)

    def _regularise(self, indices: Tensor, outputs: Tensor) -> Tensor:
        p = ops.clip(ops.softmax(outputs), SMALLEST, 1 - SMALLEST)
        normalised = p / ops.sum(p, axis=-1, keepdims=True)
        targets = ops.stop_gradient(self.predictions.update(indices, normalised))
        return self.strength * ops.mean(ops.log(1 - ops.sum(p * targets, axis=-1)))


def split_labels(y: Any) -> tuple[Any, Any]:
    """Returns the classes and the indices of examples; labels without indices have `None`."""
    return (y[:, 0], y[:, 1]) if len(y.shape) == 2 else (y, None)
