"""The likelihood of one real number per component."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods.likelihood import Likelihood
from keras_fisher.likelihoods.outputs import align_labels, promote
from keras_fisher.utils import arguments


@keras.saving.register_keras_serializable(package="keras_fisher")
class Gaussian(Likelihood):
    """A real number per component: -log p(y) = (y - output)^2 / (2 variance) + constant.

    Examples:
        >>> import numpy as np
        >>> from keras_fisher.likelihoods import Gaussian
        >>> nll = Gaussian().nll(np.array([[1.0, 2.0]]), np.zeros((1, 2)))
        >>> print(np.asarray(nll))  # (1 + 4) / 2
        [2.5]

    Args:
        variance: The variance of each component. The default, 0.5, makes the negative
            log-likelihood equal to Keras's mean squared error.

    Labels have the outputs' shape (a trailing axis of length 1 may be missing).

    Raises:
        ValueError: if `variance` is not a finite number above 0.
    """

    def __init__(self, variance: float = 0.5) -> None:
        self.variance = arguments.check_positive("variance", variance)

    def observation_nll(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns the scaled squared error of each component, of the outputs' shape."""
        outputs = promote(outputs)
        return ops.square(align_labels(labels, outputs) - outputs) / (2.0 * self.variance)

    def sample(self, outputs: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Draws a number per component around the prediction, of the outputs' shape."""
        outputs = promote(outputs)
        noise = keras.random.normal(ops.shape(outputs), dtype=outputs.dtype, seed=seed)
        return outputs + self.variance**0.5 * noise

    def num_outcomes(self, outputs: Tensor) -> int:
        """Returns 1: the gradient is linear in the label, so one outcome gives its mean square."""
        return 1

    def outcome(self, index: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns labels one standard deviation away, which give the mean squared gradient."""
        outputs = promote(outputs)
        return outputs + self.variance**0.5, ops.ones_like(outputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"variance": self.variance}
