"""H z: products of the Hessian of a mean loss with vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Tensor, Values


class HessianProducts:
    """Computes H z, where H is the Hessian in the trainable weights and z a vector of all weights.

    Args:
        model: A built Keras model with trainable weights.
        loss: `loss(x, y, values)` evaluates the model with the given values for its variables, and
            returns a scalar.

    Attributes:
        sizes: The number of entries of each trainable weight.
    """

    def __init__(self, model: keras.Model, loss: Callable[[Any, Any, Values], Tensor]) -> None:
        self._loss, self._weights = loss, model.trainable_weights
        self._dtype = keras.backend.result_type(*(w.dtype for w in self._weights), "float32")
        self.sizes = [int(np.prod(weight.shape)) for weight in self._weights]
        self._products = backend.compile_function(self._compute, any_length=(2,))

    def __call__(self, x: Any, y: Any, vectors: np.ndarray) -> np.ndarray:
        """Returns the products, shape `(num_vectors, entries of all weights)`, in float64.

        Args:
            x: A batch of inputs.
            y: The labels of the batch.
            vectors: The vectors, which have the shape of the products.
        """
        size = backend.count_probes_at_once() or len(vectors)
        parts = np.split(vectors.astype(self._dtype), range(size, len(vectors), size))
        products = [ops.convert_to_numpy(self._products(x, y, part)) for part in parts]
        return np.concatenate(products, dtype="float64")

    def _compute(self, x: Any, y: Any, vectors: Tensor) -> Tensor:
        return backend.compute_hessian_products(
            lambda: self._loss(x, y, ()), self._weights, vectors
        )
