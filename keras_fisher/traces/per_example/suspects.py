"""Choice of the examples on which the rules are checked."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher.backend.types import Tensor

# A fixed number, because JAX compiles once for each number of examples.
_SIZE = 8


def find_suspects(x: Any, squared_norms: np.ndarray, seed: int) -> list[int]:
    """Returns 8 examples that are likely to show an error of a rule; some may coincide.

    These are the example with the largest gradient, those with the smallest and the largest number
    in each input (a padded sequence, an id that counts from the end), and others drawn at random.
    The seed determines the random ones and, if there are many inputs, which inputs are used.

    Args:
        x: A batch of inputs.
        squared_norms: Shape `(batch, trainable weights)`.
        seed: An integer.
    """
    generator = np.random.default_rng(seed)
    total = np.nan_to_num(squared_norms.sum(axis=1))
    extreme = [row for leaf in keras.tree.flatten(x) for row in _find_extremes(leaf)]
    rows = [int(total.argmax()), *generator.permutation(extreme)[: _SIZE - 2]]
    return [*map(int, rows), *generator.integers(0, len(total), _SIZE - len(rows)).tolist()]


def _find_extremes(leaf: Tensor) -> list[int]:
    """Returns the examples with the smallest and the largest number."""
    array = ops.convert_to_numpy(leaf)
    array = array.reshape(len(array), -1)
    if not array.shape[1]:
        return []
    return [int(array.min(axis=1).argmin()), int(array.max(axis=1).argmax())]
