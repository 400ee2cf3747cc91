"""The likelihood of one bit per component."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_fisher.backend.types import Tensor
from keras_fisher.likelihoods.likelihood import Likelihood
from keras_fisher.likelihoods.outputs import align_labels, clip, promote, read_logits


@keras.saving.register_keras_serializable(package="keras_fisher")
class Bernoulli(Likelihood):
    """One bit per component: -log p(y) = -y log p - (1 - y) log(1 - p).

    Examples:
        >>> import numpy as np
        >>> from keras_fisher.likelihoods import Bernoulli
        >>> nll = Bernoulli().nll(np.array([1, 0]), np.array([[0.0], [2.0]]))
        >>> print(np.asarray(nll).round(4))
        [0.6931 2.1269]

    Args:
        from_logits: Whether outputs are logits (the default) or probabilities.

    Labels are numbers from 0 to 1, of the outputs' shape (a trailing axis of length 1 may be
    missing).
    """

    def __init__(self, from_logits: bool = True) -> None:
        self.from_logits = from_logits

    def observation_nll(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns -log p of each component, of the outputs' shape."""
        outputs, from_logits = read_logits(outputs, self.from_logits)
        labels = align_labels(labels, outputs)
        if from_logits:
            return ops.softplus(outputs) - labels * outputs
        p = clip(outputs)
        return -labels * ops.log(p) - (1.0 - labels) * ops.log(1.0 - p)

    def sample(self, outputs: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Draws a bit per component from the prediction, of the outputs' shape."""
        return _draw_bits(self._probabilities(outputs), seed)

    def sample_uniform(self, outputs: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Draws a fair bit per component, of the outputs' shape."""
        return _draw_bits(0.5 * ops.ones_like(promote(outputs)), seed)

    def num_outcomes(self, outputs: Tensor) -> int:
        """Returns 2: a bit is 0 or 1."""
        return 2

    def outcome(self, index: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns bit `index` for every component, and its probability."""
        p = self._probabilities(outputs)
        bits = ops.zeros_like(p) + ops.cast(index, p.dtype)
        return bits, bits * p + (1.0 - bits) * (1.0 - p)

    def _probabilities(self, outputs: Tensor) -> Tensor:
        outputs, from_logits = read_logits(outputs, self.from_logits)
        return ops.sigmoid(outputs) if from_logits else clip(outputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"from_logits": self.from_logits}


def _draw_bits(p: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
    uniform = keras.random.uniform(ops.shape(p), dtype=p.dtype, seed=seed)
    return ops.cast(uniform < p, p.dtype)
