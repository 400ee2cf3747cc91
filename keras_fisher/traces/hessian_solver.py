"""Algorithms that know the Hessian only from its products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces.hessian_meter import HessianMeter, HessianOperator, KeptBatches
from keras_fisher.traces.labels import LabelledBatch
from keras_fisher.traces.progress import DelayedProgress
from keras_fisher.utils import arguments

Multiply = Callable[[np.ndarray], np.ndarray]
"""Maps vectors, shape `(num_vectors, size)`, to their products with a symmetric matrix."""
Algorithm = Callable[[Multiply, int, np.random.Generator], Any]
"""Maps the products with a symmetric matrix, its size and a random generator to a result."""


class _NotFiniteError(ArithmeticError):
    """Raised when a product is NaN or infinite."""


class Solution(NamedTuple):
    """The result of an algorithm.

    Attributes:
        result: What the algorithm returned; `None` if a product was NaN or infinite.
        operator: The Hessian, with the number of products taken.
    """

    result: Any
    operator: HessianOperator


class HessianSolver(HessianMeter):
    """Runs algorithms on the Hessian, compiled once for many measurements of one model.

    Args:
        model: A Keras model with one output.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the algorithms' random vectors; `None` for a random one.
    """

    _algorithm: Algorithm
    _progress: DelayedProgress | None
    _solution: Solution

    def __init__(self, model: keras.Model, likelihood: Likelihood | None, seed: int | None) -> None:
        super().__init__(model, likelihood)
        arguments.check_seed(seed)
        self._generator = keras.random.SeedGenerator(seed)

    def solve(
        self,
        algorithm: Algorithm,
        data: Any,
        num_examples: int | None,
        batch_size: int,
        progress: DelayedProgress | None,
    ) -> Solution:
        """Runs an algorithm on the Hessian over `data`, with a progress bar over products."""
        self._algorithm, self._progress = algorithm, progress
        self._measurements(data, num_examples, batch_size, by_layer=False, verbose=False)
        return self._solution

    def _measure(self, batches: Iterator[LabelledBatch], by_weight: bool) -> np.ndarray:
        """Runs the algorithm; returns NaN if a product was not finite."""
        assert self._generator is not None
        seed = ops.convert_to_numpy(self._generator.next()).astype("uint32")
        operator = self._make_operator(KeptBatches(batches))
        if operator is None:
            return np.empty((0, 1))

        def multiply(vectors: np.ndarray) -> np.ndarray:
            products = operator.multiply(vectors)
            if self._progress is not None:
                self._progress.add(len(vectors))
            if not np.isfinite(products).all():
                raise _NotFiniteError
            return products

        try:
            result = self._algorithm(multiply, operator.size, np.random.default_rng(seed))
        except _NotFiniteError:
            result = None
        finally:
            if self._progress is not None:
                self._progress.finish()
        self._solution = Solution(result, operator)
        return np.array([[np.nan if result is None else 0.0]])
